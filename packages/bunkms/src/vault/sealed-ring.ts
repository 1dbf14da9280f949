import assert from 'node:assert/strict';
import { type KeyObject, randomBytes } from 'node:crypto';
import { OUTSIDE_NAME } from '@bundoc/shared/contract/keys';
import {
  deriveKey,
  KEY_BYTES,
  OpenError,
  open,
  SEAL_OVERHEAD_BYTES,
  seal,
  takeKey,
} from '@bundoc/shared/crypto/aead';
import { BLOB_BYTES_MAX } from '../outside/port.ts';

/** Maximum keys of a ring. A longer ring means that rotations were never finished. */
export const KEKS_MAX = 8;

/** The first bytes of a sealed ring: no line of a plain ring can begin so. */
const MAGIC = Buffer.from('BUNKMSR1', 'latin1');
const ID_BYTES = 16;
const INFO = 'bunkms/ring/v1';
/** Slots of a ring. */
export const SLOTS_MAX = 4;
const NAME_BYTES_MAX = 63;
const HEADER_BYTES = MAGIC.length + ID_BYTES + 1;
/** The longest sealed ring, bytes. */
const SEALED_RING_BYTES_MAX =
  HEADER_BYTES +
  SLOTS_MAX * (1 + NAME_BYTES_MAX + 2 + BLOB_BYTES_MAX) +
  SEAL_OVERHEAD_BYTES +
  KEKS_MAX * KEY_BYTES;

/** The ring key, wrapped by one outside key. */
export interface Slot {
  /** Of the entry in `BUNKMS_OUTSIDE_KEYS_FILE`. */
  readonly name: string;
  readonly blob: Buffer;
}

/** A ring of KEKs, sealed under a key that each slot has wrapped (`docs/formats/sealed-ring.md`). */
export interface SealedRing {
  readonly slots: readonly Slot[];
  /** Random: with the ring key it makes the key of the KEKs. */
  readonly id: Buffer;
  /** Everything before the KEKs; they are sealed with it. */
  readonly head: Buffer;
  readonly sealed: Buffer;
}

/** Whether these bytes are a sealed ring, be it damaged. */
export function isSealedRing(bytes: Uint8Array): boolean {
  return MAGIC.equals(bytes.subarray(0, MAGIC.length));
}

/** Reads a sealed ring. @returns undefined for anything else. */
export function parseSealedRing(bytes: Buffer): SealedRing | undefined {
  if (!isSealedRing(bytes) || bytes.length > SEALED_RING_BYTES_MAX || bytes.length < HEADER_BYTES)
    return undefined;
  const count = bytes.readUInt8(HEADER_BYTES - 1);
  if (count < 1 || count > SLOTS_MAX) return undefined;
  const slots: Slot[] = [];
  let at = HEADER_BYTES;
  const take = (length: number): Buffer | undefined => {
    const from = at;
    at += length;
    return at > bytes.length ? undefined : bytes.subarray(from, at);
  };
  for (let slot = 0; slot < count; slot++) {
    const name = take(take(1)?.readUInt8() ?? 0);
    const blob = take(take(2)?.readUInt16BE() ?? 0);
    if (name === undefined || blob === undefined) return undefined;
    // Logs and `/ready` show names before anything has authenticated them.
    if (!OUTSIDE_NAME.test(name.toString('latin1'))) return undefined;
    if (blob.length === 0 || blob.length > BLOB_BYTES_MAX) return undefined;
    slots.push({ name: name.toString('latin1'), blob });
  }
  if (new Set(slots.map(({ name }) => name)).size < count) return undefined;
  const sealed = bytes.subarray(at);
  const keks = (sealed.length - SEAL_OVERHEAD_BYTES) / KEY_BYTES;
  if (!Number.isInteger(keks) || keks < 1 || keks > KEKS_MAX) return undefined;
  return { slots, id: bytes.subarray(MAGIC.length, HEADER_BYTES - 1), head: bytes.subarray(0, at), sealed };
}

/**
 * Opens the KEKs with the ring key of a slot, and wipes it.
 *
 * @throws OpenError when it is another one, or a byte of the ring was changed.
 */
export function openSealedRing({ id, head, sealed }: SealedRing, ringKey: Buffer): readonly KeyObject[] {
  if (ringKey.length !== KEY_BYTES) {
    ringKey.fill(0);
    throw new OpenError();
  }
  const bytes = open(ringKeyOf(ringKey, id), sealed, head);
  try {
    const keks = Array.from({ length: bytes.length / KEY_BYTES }, (_, at) =>
      takeKey(Buffer.from(bytes.subarray(at * KEY_BYTES, (at + 1) * KEY_BYTES))),
    );
    if (keks.some((kek, at) => keks.findIndex((other) => other.equals(kek)) !== at)) throw new OpenError();
    return keks;
  } finally {
    bytes.fill(0);
  }
}

/** Seals KEKs under a new ring key. @param wrap wraps it for each slot. It is wiped after that. */
export async function sealRing(
  keks: readonly KeyObject[],
  names: readonly string[],
  wrap: (name: string, ringKey: Buffer) => Promise<Buffer>,
): Promise<Buffer> {
  assert(keks.length >= 1 && keks.length <= KEKS_MAX, 'a ring has one to eight KEKs');
  assert(names.length >= 1 && names.length <= SLOTS_MAX, 'a ring has one to four slots');
  const ringKey = randomBytes(KEY_BYTES);
  const id = randomBytes(ID_BYTES);
  const plain = Buffer.concat(keks.map((kek) => kek.export()));
  try {
    const slots = await Promise.all(
      names.map(async (name) => {
        const blob = await wrap(name, ringKey);
        const sizes = Buffer.alloc(2);
        sizes.writeUInt16BE(blob.length);
        return [Buffer.of(name.length), Buffer.from(name, 'latin1'), sizes, blob];
      }),
    );
    const head = Buffer.concat([MAGIC, id, Buffer.of(names.length), ...slots.flat()]);
    return Buffer.concat([head, seal(ringKeyOf(ringKey, id), plain, head)]);
  } finally {
    ringKey.fill(0);
    plain.fill(0);
  }
}

/** The key of the KEKs. Wipes the ring key. */
function ringKeyOf(ringKey: Buffer, id: Buffer): KeyObject {
  return deriveKey(takeKey(ringKey), INFO, id);
}
