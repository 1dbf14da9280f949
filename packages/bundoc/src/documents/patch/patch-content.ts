import { AppError } from '@bundoc/shared/contract/app-error';
import { type JsonObject, parseTree, treeText } from '@bundoc/shared/json/tree';
import type { DocumentContent } from '../../crypto/stored-text.ts';
import { inSteps } from '../../work/in-steps.ts';
import { defineJobs } from '../../work/job.ts';
import { bufferOf, copyOf, TREE_BYTES_MAX } from '../../work/large-bytes.ts';
import type { Work } from '../../work/work.ts';
import { type Patch, patchSteps } from './read-patch.ts';

/**
 * The own members of a document after a patch. Untouched members keep their bytes.
 *
 * @throws AppError those of {@link patchSteps}, and `payload_too_large` for a document of over `bytesMax`
 *   bytes.
 */
export function patchContent(own: DocumentContent, patch: Patch, bytesMax: number): DocumentContent {
  const steps = contentSteps(own, patch, bytesMax);
  for (;;) {
    const step = steps.next();
    if (step.done === true) return step.value;
  }
}

/** @public The thread for large documents looks it up by name. */
export const JOBS = defineJobs(import.meta.url, {
  patch(input: {
    readonly own: Uint8Array;
    readonly hasMembers: boolean;
    readonly patch: Patch;
    readonly bytesMax: number;
  }) {
    const own = { bytes: bufferOf(input.own), hasMembers: input.hasMembers };
    const { bytes, hasMembers } = patchContent(own, input.patch, input.bytesMax);
    return { bytes: copyOf(bytes), hasMembers };
  },
});

/** {@link patchContent}, yielding between the steps; large documents and patches run in another thread. */
export async function patchContentInTurns(
  own: DocumentContent,
  patch: Patch,
  bytesMax: number,
  work: Work,
): Promise<DocumentContent> {
  if (own.bytes.length * weightOf(patch) > TREE_BYTES_MAX || patch.kind === 'large') {
    const input = { own: own.bytes, hasMembers: own.hasMembers, patch, bytesMax };
    const { bytes, hasMembers } = await work.elsewhere(JOBS.patch, input);
    return { bytes: bufferOf(bytes), hasMembers };
  }
  return inSteps(contentSteps(own, patch, bytesMax), work);
}

/** How often a value is read: once, and once for each test of an update. */
function weightOf(patch: Patch): number {
  return patch.kind === 'update' ? 1 + patch.tests : 1;
}

function* contentSteps(
  own: DocumentContent,
  patch: Patch,
  bytesMax: number,
): Generator<void, DocumentContent, void> {
  const tree = parseTree(`{${own.bytes.toString('utf8')}}`) as JsonObject;
  yield;
  const patched = yield* patchSteps(tree, patch, bytesMax);
  yield;
  // Copied white space can be long, so it is counted before it is written.
  const text = patched.length > bytesMax ? undefined : Buffer.from(treeText(patched));
  if (text === undefined || text.length > bytesMax)
    throw new AppError('payload_too_large', { detail: 'the patch makes the document too large' });
  return { bytes: text.subarray(1, -1), hasMembers: patched.members.length > 0 };
}
