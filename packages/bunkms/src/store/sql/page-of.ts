import type { Page } from '../page.ts';
import type { Row } from './row-records.ts';

/** The page from rows of a query for one more row than `limit`. */
export function pageOf<T>(rows: readonly Row[], limit: number, toItem: (row: Row) => T): Page<T> {
  return { items: rows.slice(0, limit).map(toItem), more: rows.length > limit };
}
