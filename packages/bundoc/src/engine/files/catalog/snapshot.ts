import assert from 'node:assert/strict';
import { hash, type KeyObject, randomBytes } from 'node:crypto';
import { AppError } from '@bundoc/shared/contract/app-error';
import {
  type CatalogHead,
  type CoveredPlace,
  encodeCatalogHead,
  parseCatalogHead,
} from '@bundoc/shared/contract/catalog-head';
import { OpenError } from '@bundoc/shared/crypto/aead';
import { CHUNK_BYTES, SealedStream } from '@bundoc/shared/crypto/sealed-stream';
import { ownWork } from '../../../work/scheduler.ts';
import type { OwnWork } from '../../../work/work.ts';
import { ByteReader, ByteWriter } from '../../bytes.ts';
import type { SealCount } from '../../seal-budget.ts';
import {
  type DocumentState,
  type IdempotencyRecord,
  readIdempotencyRecord,
  readSeals,
  readState,
  writeIdempotencyRecord,
  writeSeals,
} from '../../state.ts';
import { LARGE_FILE_BYTES_MAX } from '../disk/disk.ts';
import type { Catalog } from './catalog.ts';

/** The catalog file is undecryptable or inconsistent. */
export class CatalogDamaged extends Error {
  override readonly name = 'CatalogDamaged';
}

/** The part of a snapshot besides documents and idempotency records. */
export interface SnapshotHead {
  /** The project's handle in the log, 16 hex digits. */
  readonly handle: string;
  /** The last part of the log that the snapshot covers. */
  readonly covered: CoveredPlace | undefined;
  /** The text of `project.json`. */
  readonly projectFile: Buffer;
  readonly lastSeq: number;
  readonly purgedSeq: number;
  readonly seals: readonly SealCount[];
}

export interface SnapshotKeys {
  readonly version: number;
  /** The key of one snapshot; undefined for a version without a key. */
  snapshotKey(version: number, snapshotId: Buffer): KeyObject | undefined;
}

const ID_BYTES = 16;

/**
 * Encodes the catalog as a file, piece by piece: a clear head, then sealed chunks, each bound to its place
 * and to the head. The last chunk is marked, so that a truncated file does not open. Byte table:
 * docs/formats/catalog.md.
 *
 * Ends with AppError `quota_exceeded` before it is longer than a catalog that can be read.
 *
 * States may be applied while it is written. Changes after `head` was taken are in the log after
 * `head.covered`; applying them again yields the same state.
 */
export function encodeSnapshot(
  project: string,
  keys: SnapshotKeys,
  head: SnapshotHead,
  idempotencyRecords: Iterable<IdempotencyRecord>,
  catalog: Catalog,
  own: OwnWork = ownWork(project),
  bytesMax = LARGE_FILE_BYTES_MAX,
): AsyncGenerator<Buffer> {
  const id = randomBytes(ID_BYTES);
  const key = keys.snapshotKey(keys.version, id);
  if (key === undefined) throw new CatalogDamaged('the current key version has no key');
  // Synchronous, so that the counts match `head`.
  const clear = encodeCatalogHead({ ...head, ...catalog.usage, keyVersion: keys.version, id });
  return piecesOf(project, key, clear, head, idempotencyRecords, catalog, own, bytesMax);
}

async function* piecesOf(
  project: string,
  key: KeyObject,
  clear: Buffer,
  head: SnapshotHead,
  idempotencyRecords: Iterable<IdempotencyRecord>,
  catalog: Catalog,
  own: OwnWork,
  bytesMax: number,
): AsyncGenerator<Buffer> {
  using work = own('snapshot');
  yield clear;
  const stream = streamOf(key, project, clear);
  let bytes = clear.length;
  const sealChunk = (writer: ByteWriter, isLast: boolean): Buffer => {
    const chunk = stream.seal(writer.finish(), isLast);
    work.leave();
    bytes += chunk.length;
    // Before the file takes the place of one that can be read.
    if (bytes > bytesMax)
      throw new AppError('quota_exceeded', { detail: 'the catalog would be too large to be read' });
    return chunk;
  };

  let writer = new ByteWriter(FIRST_CHUNK_BYTES);
  writer.u48(head.lastSeq).u48(head.purgedSeq).u16(head.seals.length);
  for (const seals of head.seals) writeSeals(writer, seals);
  yield sealChunk(writer, false);
  writer = new ByteWriter(Math.min(CHUNK_BYTES, catalog.size * STATE_BYTES) + 2_048);
  for (const used of idempotencyRecords) {
    writer.u8(USED_KEY);
    writeIdempotencyRecord(writer, used);
    if (writer.length < CHUNK_BYTES) continue;
    await work.pause();
    yield sealChunk(writer, false);
    writer = new ByteWriter(CHUNK_BYTES + 2_048);
  }
  const begin = (to: ByteWriter) => to.u8(STATE);
  for (let from: number | undefined = 0; from !== undefined; ) {
    await work.pause();
    from = catalog.writeStates(writer, from, CHUNK_BYTES, begin);
    yield sealChunk(writer, from === undefined);
    writer = new ByteWriter(CHUNK_BYTES + 2_048);
  }
}

const FIRST_CHUNK_BYTES = 256;
/** Approximate bytes of a state. */
const STATE_BYTES = 160;
const STATE = 1;
const USED_KEY = 2;

/** Entries that are read before other work gets its turn. */
const STEP_ENTRIES = 512;

/**
 * Reads a catalog file, in steps.
 *
 * @throws CatalogDamaged for anything but a complete, authentic one of this project.
 */
export function* decodeSnapshot(
  project: string,
  keys: SnapshotKeys,
  bytes: Buffer,
  sink: { state(state: DocumentState): void; idempotencyRecord(used: IdempotencyRecord): void },
): Generator<void, SnapshotHead> {
  const clear = parseCatalogHead(bytes);
  if (clear === undefined) throw new CatalogDamaged('it is no catalog of a known format');
  const key = keys.snapshotKey(clear.keyVersion, clear.id);
  if (key === undefined) throw new CatalogDamaged('there is no key of its version');
  const stream = streamOf(key, project, bytes.subarray(0, clear.end));
  let head: SnapshotHead | undefined;
  let entries = 0;
  try {
    for (const chunk of stream.openAll(bytes.subarray(clear.end))) {
      yield;
      const reader = new ByteReader(chunk);
      head ??= readHead(reader, clear);
      while (!reader.done) {
        if (reader.u8() === STATE) sink.state(readState(reader));
        else sink.idempotencyRecord(readIdempotencyRecord(reader));
        if (++entries % STEP_ENTRIES === 0) yield;
      }
    }
  } catch (error) {
    if (error instanceof OpenError) throw new CatalogDamaged('it does not open');
    throw error;
  }
  assert(head !== undefined, 'a stream has a chunk');
  return head;
}

function readHead(reader: ByteReader, { handle, covered, projectFile }: CatalogHead): SnapshotHead {
  const lastSeq = reader.u48();
  const purgedSeq = reader.u48();
  const seals = Array.from({ length: reader.u16() }, () => readSeals(reader));
  return { handle, covered, projectFile, lastSeq, purgedSeq, seals };
}

/** @param head the clear head, which each chunk is bound to. */
function streamOf(key: KeyObject, project: string, head: Buffer): SealedStream {
  return new SealedStream(key, 'bundoc/catalog/v2', project, hash('sha256', head, 'hex'));
}
