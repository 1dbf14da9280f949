import type { OrderBy } from '@bundoc/shared/contract/query';
import { encodeKeyPart, encodePosition, inverted } from '../values/key.ts';
import { type Path, pathOf, valueAt } from '../values/path.ts';
import type { Value } from '../values/value.ts';

/** What documents are ordered by, the most significant first; none is the order of creation. */
export type Order = readonly { readonly path: Path; readonly descending: boolean }[];

export function orderOf(orderBy: OrderBy): Order {
  return orderBy.map(({ field, direction }) => ({ path: pathOf(field), descending: direction === 'desc' }));
}

/**
 * Where a document stands in an order, as a text: they compare unit by unit. Documents that are equal in
 * every field stand in the order of their creation, in the direction of the last field.
 */
export function sortKey(order: Order, document: Value, position: number): string {
  let key = '';
  for (const { path, descending } of order) {
    const part = encodeKeyPart(valueAt(document, path));
    key += descending ? inverted(part) : part;
  }
  const place = encodePosition(position);
  return key + (order.at(-1)?.descending === true ? inverted(place) : place);
}
