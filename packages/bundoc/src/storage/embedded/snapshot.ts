import { type KeyObject, randomBytes } from 'node:crypto';
import { setImmediate } from 'node:timers/promises';
import { aadOf, OpenError, open, SEAL_OVERHEAD_BYTES, seal } from '@bundoc/shared/aead';
import { ByteReader, ByteWriter } from './bytes.ts';
import type { Catalog } from './catalog.ts';
import { SEGMENT_ID_BYTES } from './frame.ts';
import type { JournalStart } from './journal.ts';
import {
  type DocumentState,
  readSeals,
  readState,
  readUsedKey,
  type UsedKey,
  writeSeals,
  writeUsedKey,
} from './record.ts';
import type { SealCount } from './seal-budget.ts';

export const CATALOG_FILE = 'catalog';

/** The catalog file does not open, or does not hold together. */
export class CatalogDamaged extends Error {
  override readonly name = 'CatalogDamaged';
}

export interface SnapshotHead {
  readonly start: JournalStart;
  readonly lastSeq: number;
  readonly purgedSeq: number;
  readonly seals: readonly SealCount[];
}

export interface SnapshotKeys {
  readonly version: number;
  /** The key of one snapshot; undefined for a version that there is no key of. */
  snapshotKey(version: number, snapshotId: Buffer): KeyObject | undefined;
}

const MAGIC = Buffer.from('BUNDOCC1', 'latin1');
const ID_BYTES = 16;
const HEAD_BYTES = MAGIC.length + 4 + ID_BYTES;
/** Plaintext bytes after which a chunk is sealed; between chunks other work gets its turn. */
const CHUNK_BYTES = 262_144;
const TAG_BYTES = 16;

/**
 * The catalog as a file, piece by piece: a clear head, then sealed chunks, each bound to its place; the last one is marked, so that a
 * file that was cut short does not open. Byte table: docs/formats/catalog.md.
 *
 * The states are read while others are applied. That is harmless: whatever changed since `head` was taken is in the journal from
 * `head.start` on, and applying it again leaves the later state.
 */
export async function* encodeSnapshot(
  project: string,
  keys: SnapshotKeys,
  head: SnapshotHead,
  usedKeys: Iterable<UsedKey>,
  catalog: Catalog,
): AsyncGenerator<Buffer> {
  const id = randomBytes(ID_BYTES);
  const key = keys.snapshotKey(keys.version, id);
  if (key === undefined) throw new CatalogDamaged('the current key version has no key');
  const clear = Buffer.alloc(HEAD_BYTES);
  MAGIC.copy(clear);
  clear.writeUInt32BE(keys.version, MAGIC.length);
  id.copy(clear, MAGIC.length + 4);
  yield clear;
  let chunk = 0;
  const sealChunk = async (writer: ByteWriter, last: boolean): Promise<Buffer> => {
    const sealed = seal(key, writer.finish(), chunkAad(project, id, chunk++, last));
    const length = Buffer.alloc(4);
    length.writeUInt32BE(sealed.length);
    await setImmediate();
    return Buffer.concat([length, sealed]);
  };

  let writer = new ByteWriter(CHUNK_BYTES + 2_048);
  writer
    .u48(head.start.firstLive)
    .raw(head.start.before.id)
    .raw(head.start.before.tag)
    .u48(head.lastSeq)
    .u48(head.purgedSeq)
    .u16(head.seals.length);
  for (const seals of head.seals) writeSeals(writer, seals);
  yield await sealChunk(writer, false);
  writer = new ByteWriter(CHUNK_BYTES + 2_048);
  for (const used of usedKeys) {
    writer.u8(USED_KEY);
    writeUsedKey(writer, used);
    if (writer.length < CHUNK_BYTES) continue;
    yield await sealChunk(writer, false);
    writer = new ByteWriter(CHUNK_BYTES + 2_048);
  }
  const begin = (to: ByteWriter) => to.u8(STATE);
  for (let from: number | undefined = 0; from !== undefined; ) {
    from = catalog.writeStates(writer, from, CHUNK_BYTES, begin);
    yield await sealChunk(writer, from === undefined);
    writer = new ByteWriter(CHUNK_BYTES + 2_048);
  }
}

const STATE = 1;
const USED_KEY = 2;

/**
 * Reads a catalog file.
 *
 * @throws CatalogDamaged for anything but a whole, authentic one of this project.
 */
export function decodeSnapshot(
  project: string,
  keys: SnapshotKeys,
  bytes: Buffer,
  sink: { state(state: DocumentState): void; usedKey(used: UsedKey): void },
): SnapshotHead {
  if (bytes.length < HEAD_BYTES || !bytes.subarray(0, MAGIC.length).equals(MAGIC))
    throw new CatalogDamaged('it is no catalog of a known format');
  const id = bytes.subarray(MAGIC.length + 4, HEAD_BYTES);
  const key = keys.snapshotKey(bytes.readUInt32BE(MAGIC.length), id);
  if (key === undefined) throw new CatalogDamaged('there is no key of its version');
  let head: SnapshotHead | undefined;
  let at = HEAD_BYTES;
  for (let chunk = 0; ; chunk++) {
    const length = at + 4 <= bytes.length ? bytes.readUInt32BE(at) : 0;
    const end = at + 4 + length;
    if (length < SEAL_OVERHEAD_BYTES || end > bytes.length) throw new CatalogDamaged('it is cut short');
    const last = end === bytes.length;
    const reader = new ByteReader(
      openChunk(key, bytes.subarray(at + 4, end), chunkAad(project, id, chunk, last)),
    );
    if (head === undefined) head = readHead(reader);
    while (!reader.done) {
      if (reader.u8() === STATE) sink.state(readState(reader));
      else sink.usedKey(readUsedKey(reader));
    }
    if (last) return head;
    at = end;
  }
}

function readHead(reader: ByteReader): SnapshotHead {
  const firstLive = reader.u48();
  const before = { id: Buffer.from(reader.raw(SEGMENT_ID_BYTES)), tag: Buffer.from(reader.raw(TAG_BYTES)) };
  const lastSeq = reader.u48();
  const purgedSeq = reader.u48();
  const seals = Array.from({ length: reader.u16() }, () => readSeals(reader));
  return { start: { firstLive, before }, lastSeq, purgedSeq, seals };
}

function openChunk(key: KeyObject, sealed: Buffer, aad: Buffer): Buffer {
  try {
    return open(key, sealed, aad);
  } catch (error) {
    if (error instanceof OpenError) throw new CatalogDamaged('it does not open');
    throw error;
  }
}

function chunkAad(project: string, id: Buffer, chunk: number, last: boolean): Buffer {
  return aadOf('bundoc/catalog/v1', project, id.toString('hex'), String(chunk), last ? 'last' : 'more');
}
