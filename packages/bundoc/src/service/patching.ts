import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import { type DocumentRef, ownContentOf } from '../crypto/stored-text.ts';
import { patchContentInTurns } from '../documents/patch/patch-content.ts';
import type { Patch } from '../documents/patch/read-patch.ts';
import type { CommitOptions, Precondition, ProjectStore, Write, WriteResult } from '../engine/port/port.ts';
import { requirePrecondition } from '../engine/port/precondition.ts';
import type { Work } from '../work/work.ts';

/** Maximum attempts of a patch without a precondition, if the document keeps changing. */
export const PATCH_TRIES_MAX = 16;

/** The write that replaces the revision of a document with its patched content. */
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
 * The first result of a repeated request that can no longer be applied.
 *
 * @throws its refusal, when there is no earlier result.
 */
export async function answeredBefore(
  store: ProjectStore,
  ref: DocumentRef,
  options: CommitOptions,
  refusal: unknown,
): Promise<readonly WriteResult[]> {
  if (!(refusal instanceof AppError)) throw refusal;
  const earlier = await earlierResults(store, ref, options);
  if (earlier === undefined) throw refusal;
  return earlier;
}

/**
 * The first result of a repeated request; undefined for a new one, and without an idempotency key. A store
 * checks the key before preconditions, so a write that cannot succeed finds the result and does nothing else.
 *
 * @throws AppError `idempotency_mismatch`, and those of the store.
 */
export async function earlierResults(
  store: ProjectStore,
  ref: DocumentRef,
  options: CommitOptions,
): Promise<readonly WriteResult[] | undefined> {
  if (options.idempotency === undefined) return undefined;
  options.work?.leave();
  try {
    const never: Precondition = { kind: 'revision', anyOf: [] };
    return await store.commit([{ kind: 'delete', ref, precondition: never }], options);
  } catch (error) {
    if (hasCode(error, 'precondition_failed')) return undefined;
    throw error;
  }
}
