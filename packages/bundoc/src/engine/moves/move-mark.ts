import type { KeyObject } from 'node:crypto';
import { KEY_VERSIONS_MAX } from '@bundoc/shared/contract/keys';
import { storageIdSchema } from '@bundoc/shared/contract/storages';
import { aadOf, OpenError, open, seal } from '@bundoc/shared/crypto/aead';
import { z } from 'zod';
import type { ProjectCipher } from '../../crypto/project-cipher.ts';

const moveMarkSchema = z.strictObject({
  /**
   * At the target: `incoming`, and `whole` once it is complete. At the source: `leaving`, and `moved` after
   * the cut-over.
   */
  state: z.enum(['incoming', 'whole', 'leaving', 'moved']),
  move: z.uuid(),
  from: storageIdSchema,
  to: storageIdSchema,
  since: z.iso.datetime(),
});
/** What a storage records about a project that it gives away or receives (docs/formats/move-mark.md). */
export type MoveMark = z.infer<typeof moveMarkSchema>;

/** The prefix of a mark's text, which no other mark has. */
export const MOVE_MARK_BEGINS = 'bundoc-move-mark-1.';
/** Maximum length of a mark's text, bytes. */
export const MOVE_MARK_BYTES_MAX = 1_024;
/** The key derivation label of marks. */
export const MARK_KEY = 'bundoc/move-mark/v1';
const VERSION_BYTES = 4;
/** @returns one line: base64url of `key version 4 | nonce 12 | ciphertext | tag 16`. */
export function sealMoveMark(
  project: string,
  cipher: Pick<ProjectCipher, 'version' | 'subkey'>,
  mark: MoveMark,
): string {
  const version = Buffer.alloc(VERSION_BYTES);
  version.writeUInt32BE(cipher.version);
  const key = cipher.subkey(cipher.version, MARK_KEY) as KeyObject;
  const sealed = seal(key, Buffer.from(JSON.stringify(moveMarkSchema.parse(mark))), aadOf(MARK_KEY, project));
  return `${MOVE_MARK_BEGINS}${Buffer.concat([version, sealed]).toString('base64url')}`;
}

/**
 * @param keyOf the key of marks in one version; undefined when there is no such version.
 * @returns undefined for any text that {@link sealMoveMark} did not make with the key of this project.
 */
export async function openMoveMark(
  project: string,
  text: string,
  keyOf: (version: number) => Promise<KeyObject | undefined>,
): Promise<MoveMark | undefined> {
  const bytes = Buffer.from(text.slice(MOVE_MARK_BEGINS.length), 'base64url');
  if (!text.startsWith(MOVE_MARK_BEGINS) || text.length > MOVE_MARK_BYTES_MAX) return undefined;
  if (bytes.length < VERSION_BYTES) return undefined;
  const version = bytes.readUInt32BE();
  // BunKMS is not asked about a version that no key can have.
  const key = version === 0 || version > KEY_VERSIONS_MAX ? undefined : await keyOf(version);
  if (key === undefined) return undefined;
  try {
    const opened = open(key, bytes.subarray(VERSION_BYTES), aadOf(MARK_KEY, project));
    return moveMarkSchema.parse(JSON.parse(opened.toString()));
  } catch (error) {
    if (error instanceof OpenError) return undefined;
    throw error;
  }
}
