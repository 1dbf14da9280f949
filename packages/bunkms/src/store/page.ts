/** Keyset paging: at most `limit` entries after the entry `after`, or from the start without it. */
export interface PageQuery<Cursor> {
  readonly after?: Cursor | undefined;
  readonly limit: number;
}

export interface Page<T> {
  readonly items: readonly T[];
  /** True when more entries follow the last item. */
  readonly more: boolean;
}

/**
 * A page of a filtered list. For one page a store reads a bounded number of entries, so that no filter delays
 * other calls. So a page may have fewer than `limit` items, or none, and still have `more`.
 */
export interface FilteredPage<T, Cursor> extends Page<T> {
  /** The cursor of the next page when that is not the last item: see {@link cursorOf}. */
  readonly next?: Cursor | undefined;
}

/**
 * Records, the newest first. `next` is the cursor of the next page, which continues below that `seq`. Absent
 * at the end.
 */
export interface BackwardPage<T> {
  readonly items: readonly T[];
  readonly next?: number;
}

/** Names of keys. `next` is the cursor of the next page: it continues after that name. Absent at the end. */
export interface NamePage {
  readonly names: readonly string[];
  readonly next?: string;
}

/**
 * The cursor of the next page; undefined at the end. @param cursorOfItem the cursor that stands for an item.
 */
export function cursorOf<T, Cursor>(
  { items, more, next }: FilteredPage<T, Cursor>,
  cursorOfItem: (item: T) => Cursor,
): Cursor | undefined {
  if (!more || next !== undefined) return next;
  const last = items.at(-1);
  return last === undefined ? undefined : cursorOfItem(last);
}

/** All entries of a list, read page by page. @param cursorOfItem as for {@link cursorOf}. */
export async function* allItems<T, Cursor>(
  read: (after: Cursor | undefined) => Promise<FilteredPage<T, Cursor>>,
  cursorOfItem: (item: T) => Cursor,
): AsyncGenerator<T> {
  for (let after: Cursor | undefined, more = true; more; more = after !== undefined) {
    const page = await read(after);
    yield* page.items;
    after = cursorOf(page, cursorOfItem);
  }
}
