import { createCipheriv, createDecipheriv, type KeyObject } from 'node:crypto';
import { decrypted, deriveKey, moveTo, NONCE_BYTES } from '@bundoc/shared/crypto/aead';
import type { FramePlace } from './layout.ts';
import { TAG_BYTES } from './layout.ts';

const INFO = 'bundoc/log/v1';
const CIPHER = 'aes-256-gcm';

/** Derives subkeys of a project's DEK. */
export interface PartKeys {
  /** HKDF-SHA256 of a version of the DEK; undefined for a version that is not live. */
  subkey(version: number, info: string, salt: Buffer): KeyObject | undefined;
}

/** {@link PartKeys} from DEKs without a project's cipher. */
export function partKeysOf(deks: ReadonlyMap<number, KeyObject>): PartKeys {
  return {
    subkey: (version, info, salt) => {
      const dek = deks.get(version);
      return dek === undefined ? undefined : deriveKey(dek, info, salt);
    },
  };
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
 * @param clear the clear content of a birth, before the sealed bytes; authenticated with them.
 */
export function sealPart(
  seal: PartSeal,
  frame: number,
  head: Buffer,
  plaintext: readonly Buffer[],
  clear: Buffer | undefined,
  target: { readonly tag: Buffer; readonly body: Buffer },
): void {
  const cipher = createCipheriv(CIPHER, seal.key, nonceOf(frame), { authTagLength: TAG_BYTES });
  cipher.setAAD(aadOfPart(seal.aad, head, frame, clear));
  const start = clear?.copy(target.body, 0) ?? 0;
  const whole = gather(plaintext, target.body, start);
  if (whole.length > 0) moveTo(target.body, start, cipher.update(whole));
  cipher.final();
  cipher.getAuthTag().copy(target.tag);
}

/**
 * Joins the plaintext at the place of the sealed bytes: an extra call of the cipher costs more than sealing a
 * document.
 */
function gather(pieces: readonly Buffer[], body: Buffer, start: number): Buffer {
  const [first] = pieces;
  if (first !== undefined && pieces.length === 1) return first;
  let end = start;
  for (const piece of pieces) end += piece.copy(body, end);
  return body.subarray(start, end);
}

/** @throws OpenError for a part that was changed, moved, or sealed for another project, segment or key. */
export function openPart(
  seal: PartSeal,
  place: FramePlace,
  head: Buffer,
  tag: Buffer,
  sealed: Buffer,
  clear: Buffer | undefined,
): Buffer {
  const decipher = createDecipheriv(CIPHER, seal.key, nonceOf(place.frame), { authTagLength: TAG_BYTES });
  decipher.setAAD(aadOfPart(seal.aad, head, place.frame, clear));
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

function aadOfPart(start: Buffer, head: Buffer, frame: number, clear: Buffer | undefined): Buffer {
  const clearBytes = clear?.length ?? 0;
  const aad = Buffer.allocUnsafe(start.length + head.length + 4 + clearBytes);
  let at = start.copy(aad, 0);
  at += head.copy(aad, at);
  at = aad.writeUInt32BE(frame, at);
  clear?.copy(aad, at);
  return aad;
}

/** The clear content of a birth: the project id, and the text of `project.json`. */
export interface BirthText {
  readonly project: string;
  readonly projectFile: Buffer;
}

/** `length(2) | project id | length(4) | text`. */
export function encodeBirth({ project, projectFile }: BirthText): Buffer {
  const id = Buffer.from(project, 'latin1');
  const clear = Buffer.allocUnsafeSlow(6 + id.length + projectFile.length);
  clear.writeUInt16BE(id.length, 0);
  id.copy(clear, 2);
  clear.writeUInt32BE(projectFile.length, 2 + id.length);
  projectFile.copy(clear, 6 + id.length);
  return clear;
}

/** @returns undefined unless the bytes are a birth. */
export function decodeBirth(body: Buffer): (BirthText & { readonly bytes: number }) | undefined {
  if (body.length < 6) return undefined;
  const idBytes = body.readUInt16BE(0);
  if (body.length < 6 + idBytes) return undefined;
  const textBytes = body.readUInt32BE(2 + idBytes);
  const bytes = 6 + idBytes + textBytes;
  if (body.length < bytes) return undefined;
  return {
    project: body.toString('latin1', 2, 2 + idBytes),
    projectFile: Buffer.from(body.subarray(6 + idBytes, bytes)),
    bytes,
  };
}
