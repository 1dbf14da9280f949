import { OpenError } from '@bundoc/shared/crypto/aead';
import type { IndexKeys } from '../../indexes/index-keys.ts';
import type { Keys } from './entry.ts';
import { PackedReader, varintBytes, writeVarint } from './varint.ts';

/** Cells are padded to a multiple of this, so that their sizes say little about the values. */
const PADDED_TO_BYTES = 32;
/** Maximum bytes of a cell before it is sealed. */
const CELL_BYTES_MAX = 65_536;

/** A document's keys in one index. */
export interface KeysOfIndex {
  /** The index's number in the project. */
  readonly id: number;
  readonly keys: Pick<IndexKeys, 'keys' | 'tooMany'>;
}

/**
 * Encodes a document's keys in all indexes of its collection: the plaintext of `documents.keys`, at most
 * 65,536 bytes. If they need more, the document has too many keys in every index. Byte table:
 * docs/formats/postgres-order.md.
 */
export function encodeCell(indexes: readonly KeysOfIndex[]): Buffer {
  const bytes = bytesOf(indexes);
  if (bytes > CELL_BYTES_MAX)
    return encodeCell(indexes.map(({ id }) => ({ id, keys: { keys: [], tooMany: true } })));
  const cell = Buffer.alloc(Math.ceil(bytes / PADDED_TO_BYTES) * PADDED_TO_BYTES);
  let at = writeVarint(cell, 0, indexes.length);
  for (const { id, keys } of indexes) {
    at = writeVarint(cell, at, id);
    at = writeVarint(cell, at, keys.tooMany ? 0 : keys.keys.length);
    if (keys.tooMany) continue;
    for (const key of keys.keys) {
      at = writeVarint(cell, at, key.length);
      at += cell.write(key, at, 'latin1');
    }
  }
  return cell;
}

function bytesOf(indexes: readonly KeysOfIndex[]): number {
  let bytes = varintBytes(indexes.length);
  for (const { id, keys } of indexes) {
    const list = keys.tooMany ? [] : keys.keys;
    bytes += varintBytes(id) + varintBytes(list.length);
    for (const key of list) bytes += varintBytes(key.length) + key.length;
  }
  return bytes;
}

/**
 * The keys of a document by the numbers of the indexes that its writer knew.
 *
 * @throws OpenError for bytes that {@link encodeCell} does not make.
 */
export function decodeCell(bytes: Buffer): ReadonlyMap<number, Keys> {
  if (bytes.length > CELL_BYTES_MAX) throw new OpenError();
  const reader = new PackedReader(bytes);
  const cell = new Map<number, Keys>();
  for (let indexes = reader.varint(); indexes > 0; indexes--) {
    const id = reader.varint();
    const keys: string[] = [];
    for (let count = reader.varint(); count > 0; count--) {
      const length = reader.varint();
      const start = reader.skip(length);
      keys.push(bytes.toString('latin1', start, start + length));
    }
    cell.set(id, keys.length === 0 ? 'too many' : keys);
  }
  reader.end();
  return cell;
}
