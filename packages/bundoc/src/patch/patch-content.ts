import { AppError } from '@bundoc/shared/errors';
import { type JsonObject, parseTree, treeText } from '@bundoc/shared/json/tree';
import type { DocumentContent } from '../cipher/stored-text.ts';
import type { Patch } from './read-patch.ts';

/**
 * The own members of a document after a patch. Members that it does not touch keep their bytes.
 *
 * @throws AppError those of {@link Patch}, and `payload_too_large` for a document of over `bytesMax` bytes.
 */
export function patchContent(own: DocumentContent, patch: Patch, bytesMax: number): DocumentContent {
  const patched = patch(parseTree(`{${own.bytes.toString('utf8')}}`) as JsonObject);
  const text = Buffer.from(treeText(patched));
  if (text.length > bytesMax)
    throw new AppError('payload_too_large', { detail: 'the patch makes the document too large' });
  return { bytes: text.subarray(1, -1), hasMembers: patched.members.length > 0 };
}
