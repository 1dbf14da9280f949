import type { Page } from '../port.ts';
import type { Row } from '../row-records.ts';

/** Takes at most `limit` rows that `select` accepts, and looks whether another follows. */
export function takePage<T>(
  rows: Iterable<Row>,
  limit: number,
  toItem: (row: Row) => T,
  select: (row: Row) => boolean = () => true,
): Page<T> {
  const items: T[] = [];
  for (const row of rows) {
    if (!select(row)) continue;
    if (items.length === limit) return { items, more: true };
    items.push(toItem(row));
  }
  return { items, more: false };
}
