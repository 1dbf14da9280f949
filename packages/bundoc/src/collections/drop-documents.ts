import type { DocumentPage, Position, ProjectStore, Write } from '../engine/port/port.ts';
import type { Work } from '../work/work.ts';
import { removeStates } from './remove-states.ts';

/** The documents removed at a time: one commit, unless another writer is faster. */
const PAGE = { limit: 500, bytesMax: 2_097_152 };
/** Pages without any document that can be removed, before a request ends. */
const PAGES_MAX = 25;

export interface DroppedDocuments {
  readonly removed: number;
  /** Whether there may be more. */
  readonly more: boolean;
  /** Documents that stay, since not even their ids open. */
  readonly left: number;
}

/**
 * Removes the first documents of a collection, expired and damaged ones, too. Each leaves a tombstone, as
 * after a single deletion. One that changes meanwhile is removed by a later call.
 *
 * @param store that below the definitions, which shows expired documents.
 * @throws AppError of `ProjectStore.commit` and `list`.
 */
export async function dropDocuments(
  store: Pick<ProjectStore, 'list' | 'commit'>,
  collection: string,
  work: Work,
): Promise<DroppedDocuments> {
  let left = 0;
  let after: Position | undefined = 0;
  for (let pages = 0; after !== undefined && pages < PAGES_MAX; pages++) {
    const from: Position = after;
    const page: DocumentPage = await work.outside(() =>
      store.list({ collection, after: from, ...PAGE, work }),
    );
    const { documents, unreadable, unnamed = [] } = page;
    if (documents.length + unreadable.length > 0) {
      const removed = await work.outside(() => removeStates(store, documents));
      const damaged = await work.outside(() => removeDamaged(store, collection, unreadable));
      return { removed: removed + damaged, more: true, left };
    }
    left += unnamed.length;
    after = page.next;
  }
  return { removed: 0, more: after !== undefined, left };
}

async function removeDamaged(
  store: Pick<ProjectStore, 'commit'>,
  collection: string,
  ids: readonly string[],
): Promise<number> {
  if (ids.length === 0) return 0;
  const removalOf = (id: string): Write => ({
    kind: 'delete',
    ref: { collection, id },
    precondition: { kind: 'none' },
  });
  await store.commit(ids.map(removalOf));
  return ids.length;
}
