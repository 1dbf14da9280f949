import { hasCode } from '@bundoc/shared/contract/app-error';
import type { ProjectStore, StoredDocument, Write } from '../engine/port/port.ts';

/**
 * Removes documents in exactly these states. It takes one commit unless another writer was faster or the
 * commit would be too large.
 * @returns the number of removed documents.
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

/** Removes a document in exactly this state. A faster writer wins. */
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
