import { createCipheriv, createDecipheriv, type KeyObject } from 'node:crypto';
import { decrypted, deriveKey, NONCE_BYTES } from '@bundoc/shared/crypto/aead';
import type { FramePlace } from './layout.ts';
import { TAG_BYTES } from './layout.ts';

const INFO = 'bundoc/log/v1';
const CIPHER = 'aes-256-gcm';

/** Gives the subkeys of a project's DEK. */
export interface PartKeys {
  /** HKDF-SHA256 of a version of the DEK; undefined for a version that is not live. */
  subkey(version: number, info: string, salt: Buffer): KeyObject | undefined;
}

/** {@link PartKeys} of one DEK by itself. */
export function partKeysOf(deks: ReadonlyMap<number, KeyObject>): PartKeys {
  return {
    subkey: (version, info, salt) => {
      const dek = deks.get(version);
      return dek === undefined ? undefined : deriveKey(dek, info, salt);
    },
  };
}

/** The key of the parts of one handle in one use of a segment; undefined for a version that is not live. */
export function partKey(
  keys: PartKeys,
  version: number,
  segmentId: Buffer,
  handle: string,
): KeyObject | undefined {
  return keys.subkey(version, INFO, Buffer.concat([segmentId, Buffer.from(handle, 'hex')]));
}

/** What all parts of a project in one use of a segment authenticate first. */
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
 * The nonce is the frame's number: at most one part of a handle is in a frame, and a number is sealed once in
 * a use of a segment, so no key sees a nonce twice.
 *
 * @param head the entry without its tag, as it stands in the frame.
 * @param clear what a birth has in the clear, before the sealed bytes; authenticated with them.
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
  if (whole.length > 0) cipher.update(whole).copy(target.body, start);
  cipher.final();
  cipher.getAuthTag().copy(target.tag);
}

/**
 * The plaintext in one piece, several pieces where their sealed bytes go: each call of the cipher costs more
 * than sealing a document.
 */
function gather(pieces: readonly Buffer[], body: Buffer, start: number): Buffer {
  const [first] = pieces;
  if (first !== undefined && pieces.length === 1) return first;
  let end = start;
  for (const piece of pieces) end += piece.copy(body, end);
  return body.subarray(start, end);
}

/** @throws OpenError for what was changed, moved, or sealed for another project, segment or key. */
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
 * A cipher copies it. A buffer of its own for each part would take longer to make than the rest of its
 * cipher.
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

/** What a birth has in the clear: whose project it is, and the text of `project.json`. */
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

/** @returns undefined when the bytes are not those of a birth. */
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
