import assert from 'node:assert/strict';
import { hash } from 'node:crypto';
import {
  aadOf,
  deriveKey,
  KEY_BYTES,
  OpenError,
  open,
  SEAL_OVERHEAD_BYTES,
  seal,
  takeKey,
} from '@bundoc/shared/crypto/aead';
import { BLOB_BYTES_MAX } from '../outside/port.ts';
import type { DekIdentity } from './vault.ts';

const INFO = 'bunkms/outside/v1';
const NAME_BYTES_MAX = 63;
const INNER_BYTES = KEY_BYTES + SEAL_OVERHEAD_BYTES;

/**
 * A DEK under an outside key, as BunKMS's own layer has it (`docs/formats/wrapped-key.md`). The outside key
 * wraps a random share of 32 bytes that belongs to one version. The DEK is sealed under the share. So no
 * provider sees a DEK, and a provider's key alone opens nothing.
 */
export interface OutsideDek {
  /** The name of the outside key, of its entry in `BUNKMS_OUTSIDE_KEYS_FILE`. */
  readonly outside: string;
  /** The wrapped share. */
  readonly blob: Uint8Array;
  /** The DEK, sealed under the share. */
  readonly inner: Uint8Array;
}

export function encodeOutsideDek({ outside, blob, inner }: OutsideDek): Buffer {
  const name = Buffer.from(outside, 'latin1');
  assert(name.length >= 1 && name.length <= NAME_BYTES_MAX, 'the name of an outside key has 1 to 63 bytes');
  assert(blob.length >= 1 && blob.length <= BLOB_BYTES_MAX, 'a wrapped share has 1 to 384 bytes');
  assert(inner.length === INNER_BYTES, 'a sealed DEK has 60 bytes');
  const size = Buffer.alloc(2);
  size.writeUInt16BE(blob.length);
  return Buffer.concat([Buffer.of(name.length), name, size, blob, inner]);
}

/** @returns undefined for bytes of another form. They refer to `bytes`. */
export function decodeOutsideDek(bytes: Buffer): OutsideDek | undefined {
  const nameLength = bytes[0] ?? 0;
  const blobAt = 1 + nameLength + 2;
  if (nameLength < 1 || nameLength > NAME_BYTES_MAX || bytes.length < blobAt) return undefined;
  const blobLength = bytes.readUInt16BE(blobAt - 2);
  if (blobLength < 1 || blobLength > BLOB_BYTES_MAX) return undefined;
  if (bytes.length !== blobAt + blobLength + INNER_BYTES) return undefined;
  return {
    outside: bytes.toString('latin1', 1, 1 + nameLength),
    blob: bytes.subarray(blobAt, blobAt + blobLength),
    inner: bytes.subarray(blobAt + blobLength),
  };
}

/**
 * Seals a DEK under a share, which it wipes. The caller wipes `dek`.
 *
 * @param blob the share, wrapped by the outside key of that name.
 */
export function sealUnderShare(
  share: Buffer,
  dek: Uint8Array,
  identity: DekIdentity,
  { outside, blob }: Pick<OutsideDek, 'outside' | 'blob'>,
): OutsideDek {
  assert(dek.length === KEY_BYTES, 'a DEK has 32 bytes');
  return { outside, blob, inner: seal(keyOf(share), dek, innerAad(identity, outside, blob)) };
}

/**
 * Opens a DEK with its share, which it wipes. @returns the raw DEK, which the caller wipes.
 *
 * @throws OpenError when it does not open, for whatever reason.
 */
export function openUnderShare(
  share: Buffer,
  { outside, blob, inner }: OutsideDek,
  identity: DekIdentity,
): Buffer {
  if (share.length !== KEY_BYTES) {
    share.fill(0);
    throw new OpenError();
  }
  return open(keyOf(share), inner, innerAad(identity, outside, blob));
}

function keyOf(share: Buffer) {
  return deriveKey(takeKey(share), INFO);
}

function innerAad({ keyId, name, version }: DekIdentity, outside: string, blob: Uint8Array): Buffer {
  return aadOf(INFO, keyId, name, String(version), outside, hash('sha256', blob, 'hex'));
}
