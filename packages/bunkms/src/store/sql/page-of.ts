import type { Page } from '../page.ts';
import type { Row } from './row-records.ts';

/** The page that rows are, of which one more than `limit` were asked for. */
export function pageOf<T>(rows: readonly Row[], limit: number, toItem: (row: Row) => T): Page<T> {
  return { items: rows.slice(0, limit).map(toItem), more: rows.length > limit };
}
