import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import { type DocumentRef, ownContentOf } from '../crypto/stored-text.ts';
import { patchContentInTurns } from '../documents/patch/patch-content.ts';
import type { Patch } from '../documents/patch/read-patch.ts';
import type { CommitOptions, Precondition, ProjectStore, Write, WriteResult } from '../engine/port.ts';
import { requirePrecondition } from '../engine/precondition.ts';
import type { Work } from '../work/work.ts';

/** How often a patch without a precondition is applied again, because the document has changed meanwhile. */
export const PATCH_TRIES_MAX = 16;

/** The write that puts a patched document in the place of the revision that it was made of. */
export async function patchedWrite(
  store: ProjectStore,
  ref: DocumentRef,
  patch: Patch,
  asked: Precondition,
  documentBytesMax: number,
  work: Work,
): Promise<Write> {
  const document = await store.get(ref);
  const rev = document?.metadata._rev;
  requirePrecondition(asked, rev);
  if (document === undefined || rev === undefined) throw new AppError('document_not_found');
  const own = ownContentOf(document.text, ref);
  const content = await patchContentInTurns(own, patch, documentBytesMax, work);
  work.leave();
  return { kind: 'put', ref, content, precondition: { kind: 'revision', anyOf: [rev] } };
}

/**
 * What a repeated request led to the first time, although it cannot be carried out any more. A store looks up
 * the key before preconditions, so a write that cannot hold finds it and does nothing else.
 *
 * @throws what it was refused with, when it was not answered before.
 */
export async function answeredBefore(
  store: ProjectStore,
  ref: DocumentRef,
  options: CommitOptions,
  refusal: unknown,
): Promise<readonly WriteResult[]> {
  if (options.idempotency === undefined || !(refusal instanceof AppError)) throw refusal;
  options.work?.leave();
  try {
    const never: Precondition = { kind: 'revision', anyOf: [] };
    return await store.commit([{ kind: 'delete', ref, precondition: never }], options);
  } catch (error) {
    throw hasCode(error, 'precondition_failed') ? refusal : error;
  }
}
