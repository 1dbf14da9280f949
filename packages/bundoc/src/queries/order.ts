import type { OrderBy } from '@bundoc/shared/contract/query';
import { encodeKeyPart, encodePosition, invertOrder } from '../values/key.ts';
import { type Path, pathOf, valueAt } from '../values/path.ts';
import type { Value } from '../values/value.ts';

/** The fields to sort by, most significant first; none means creation order. */
export type Order = readonly { readonly path: Path; readonly descending: boolean }[];

export function orderOf(orderBy: OrderBy): Order {
  return orderBy.map(({ field, direction }) => ({ path: pathOf(field), descending: direction === 'desc' }));
}

/**
 * A document's sort key, a text that compares unit by unit. Documents with equal fields follow creation
 * order, in the direction of the last field.
 */
export function sortKey(order: Order, document: Value, position: number): string {
  let key = '';
  for (const { path, descending } of order) {
    const part = encodeKeyPart(valueAt(document, path));
    key += descending ? invertOrder(part) : part;
  }
  const place = encodePosition(position);
  return key + (order.at(-1)?.descending === true ? invertOrder(place) : place);
}
