import { createCipheriv, createDecipheriv, type KeyObject } from 'node:crypto';
import { decrypted, moveTo, NONCE_BYTES } from '@bundoc/shared/crypto/aead';
import type { FramePlace } from './layout.ts';
import { TAG_BYTES } from './layout.ts';

const INFO = 'bundoc/log/v1';
const CIPHER = 'aes-256-gcm';

/** Derives subkeys of a project's DEK. */
export interface PartKeys {
  /** HKDF-SHA256 of a version of the DEK; undefined for a version that is not live. */
  subkey(version: number, info: string, salt: Buffer): KeyObject | undefined;
}

/** The key for the parts of one handle in one use of a segment; undefined for a version that is not live. */
export function partKey(
  keys: PartKeys,
  version: number,
  segmentId: Buffer,
  handle: string,
): KeyObject | undefined {
  return keys.subkey(version, INFO, Buffer.concat([segmentId, Buffer.from(handle, 'hex')]));
}

/** The common start of the AAD of a project's parts in one use of a segment. */
export function aadStart(project: string, storageId: Buffer, segmentId: Buffer): Buffer {
  return Buffer.concat([Buffer.from(`${INFO}\0${project}\0`, 'latin1'), storageId, segmentId]);
}

export interface PartSeal {
  readonly key: KeyObject;
  /** {@link aadStart} */
  readonly aad: Buffer;
}

/**
 * Seals a part into a frame.
 *
 * The nonce is the frame's number. A frame has at most one part of a handle, and each number is used once in
 * a use of a segment. So no key uses a nonce twice.
 *
 * @param head the entry without its tag, as in the frame.
 */
export function sealPart(
  seal: PartSeal,
  frame: number,
  head: Buffer,
  plaintext: readonly Buffer[],
  target: { readonly tag: Buffer; readonly body: Buffer },
): void {
  const cipher = createCipheriv(CIPHER, seal.key, nonceOf(frame), { authTagLength: TAG_BYTES });
  cipher.setAAD(aadOfPart(seal.aad, head, frame));
  const whole = gather(plaintext, target.body);
  if (whole.length > 0) moveTo(target.body, 0, cipher.update(whole));
  cipher.final();
  cipher.getAuthTag().copy(target.tag);
}

/**
 * Joins the plaintext at the place of the sealed bytes: an extra call of the cipher costs more than sealing a
 * document.
 */
function gather(pieces: readonly Buffer[], body: Buffer): Buffer {
  const [first] = pieces;
  if (first !== undefined && pieces.length === 1) return first;
  let end = 0;
  for (const piece of pieces) end += piece.copy(body, end);
  return body.subarray(0, end);
}

/** @throws OpenError for a part that was changed, moved, or sealed for another project, segment or key. */
export function openPart(
  seal: PartSeal,
  place: FramePlace,
  head: Buffer,
  tag: Buffer,
  sealed: Buffer,
): Buffer {
  const decipher = createDecipheriv(CIPHER, seal.key, nonceOf(place.frame), { authTagLength: TAG_BYTES });
  decipher.setAAD(aadOfPart(seal.aad, head, place.frame));
  decipher.setAuthTag(tag);
  return decrypted(decipher, sealed);
}

/**
 * The cipher copies it, so one buffer serves all parts. Allocating one for each part would take longer than
 * the rest of its cipher.
 */
const nonce = Buffer.alloc(NONCE_BYTES);

function nonceOf(frame: number): Buffer {
  nonce.writeUInt32BE(frame, NONCE_BYTES - 4);
  return nonce;
}

function aadOfPart(start: Buffer, head: Buffer, frame: number): Buffer {
  const aad = Buffer.allocUnsafe(start.length + head.length + 4);
  let at = start.copy(aad, 0);
  at += head.copy(aad, at);
  aad.writeUInt32BE(frame, at);
  return aad;
}
