/** The largest page of lists, queries and changes. */
const PAGE_SIZE_MAX = 1_000;

/**
 * The size of a page, as the service accepts it.
 *
 * @throws RangeError for another one: the service would name its own parameter, `limit`.
 */
export function requirePageSize(pageSize: number | undefined, max = PAGE_SIZE_MAX): number | undefined {
  if (pageSize !== undefined && !(Number.isInteger(pageSize) && pageSize >= 1 && pageSize <= max))
    throw new RangeError(`pageSize: ${pageSize} is not a whole number from 1 to ${max}`);
  return pageSize;
}

/** @throws TypeError for a member that is not one of these: it would have no effect. */
export function requireKnown(place: string, given: object, known: readonly string[]): void {
  const other = Object.keys(given).find((name) => !known.includes(name));
  if (other !== undefined) throw new TypeError(`${place}.${other}: unknown; known are ${known.join(', ')}`);
}
