import { hasCode } from '@bundoc/shared/contract/app-error';
import type { ProjectStore, StoredDocument, Write } from '../engine/port.ts';

/**
 * Removes these very states of documents, in one commit when nobody was faster and one can hold them all.
 * @returns how many.
 */
export async function removeStates(
  store: Pick<ProjectStore, 'commit'>,
  documents: readonly StoredDocument[],
): Promise<number> {
  if (documents.length === 0) return 0;
  try {
    await store.commit(documents.map(removalOf));
    return documents.length;
  } catch (error) {
    if (hasCode(error, 'payload_too_large') && documents.length > 1) {
      const half = Math.ceil(documents.length / 2);
      const first = await removeStates(store, documents.slice(0, half));
      return first + (await removeStates(store, documents.slice(half)));
    }
    if (!hasCode(error, 'precondition_failed', 'document_not_found')) throw error;
  }
  let removed = 0;
  for (const document of documents) if (await removeState(store, document)) removed++;
  return removed;
}

/** Removes this very state of a document. A faster writer wins. */
async function removeState(store: Pick<ProjectStore, 'commit'>, document: StoredDocument): Promise<boolean> {
  try {
    await store.commit([removalOf(document)]);
    return true;
  } catch (error) {
    if (hasCode(error, 'precondition_failed', 'document_not_found')) return false;
    throw error;
  }
}

function removalOf({ metadata }: StoredDocument): Write {
  return {
    kind: 'delete',
    ref: { collection: metadata._collection, id: metadata._id },
    precondition: { kind: 'revision', anyOf: [metadata._rev] },
  };
}
