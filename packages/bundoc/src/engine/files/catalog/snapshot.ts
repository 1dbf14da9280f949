import assert from 'node:assert/strict';
import { hash, type KeyObject, randomBytes } from 'node:crypto';
import { AppError } from '@bundoc/shared/contract/app-error';
import { type CatalogHead, type CoveredPlace, encodeCatalogHead } from '@bundoc/shared/contract/catalog-head';
import { CHUNK_BYTES, LENGTH_BYTES, SealedStream } from '@bundoc/shared/crypto/sealed-stream';
import { freeMemory } from '@bundoc/shared/process/free-memory';
import { ownWork } from '../../../work/scheduler.ts';
import type { OwnWork } from '../../../work/work.ts';
import { ByteReader, ByteWriter } from '../../port/bytes.ts';
import type { SealCount } from '../../port/seal-budget.ts';
import {
  type DocumentState,
  type IdempotencyRecord,
  readIdempotencyRecord,
  readSeals,
  readState,
  writeIdempotencyRecord,
  writeSeals,
} from '../../port/state.ts';
import { LARGE_FILE_BYTES_MAX } from '../disk/disk.ts';
import type { Catalog } from './catalog.ts';
import type { SealedChunk } from './sealed-chunks.ts';

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
  /** As {@link ProjectCipher.subkey}. */
  subkey(version: number, info: string, salt: Buffer): KeyObject | undefined;
}

/** Of the key of a snapshot and of its AAD. */
const LABEL = 'bundoc/catalog/v2';
const ID_BYTES = 16;

/**
 * Maximum bytes of a sealed chunk. A writer ends a chunk at {@link CHUNK_BYTES}, so it is longer by one entry
 * at most: a used idempotency key whose answer lists a batch of 500 documents has some 700,000 bytes, a state
 * fewer than 132,000. The first chunk has ten bytes for each of 1,000 key versions.
 */
export const CATALOG_CHUNK_BYTES_MAX = 2_097_152;

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
  const key = keys.subkey(keys.version, LABEL, id);
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
    assert(chunk.length - LENGTH_BYTES <= CATALOG_CHUNK_BYTES_MAX, 'a chunk can be read');
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

/** Receives what a snapshot has. Buffers are views that are valid during the call. */
export interface SnapshotSink {
  state(state: DocumentState): void;
  idempotencyRecord(used: IdempotencyRecord): void;
}

/** Decodes one catalog file, chunk by chunk. */
export class SnapshotDecoder {
  readonly #clear: CatalogHead;
  readonly #stream: SealedStream;
  readonly #sink: SnapshotSink;
  #head: SnapshotHead | undefined;
  #entries = 0;

  /**
   * @param clear the head of the file, and the bytes of that.
   * @throws CatalogDamaged when the keys have none for it.
   */
  constructor(project: string, keys: SnapshotKeys, clear: CatalogHead, bytes: Buffer, sink: SnapshotSink) {
    const key = keys.subkey(clear.keyVersion, LABEL, clear.id);
    if (key === undefined) throw new CatalogDamaged('there is no key of its version');
    this.#clear = clear;
    this.#stream = streamOf(key, project, bytes);
    this.#sink = sink;
  }

  /**
   * Opens the next chunk and gives its entries to the sink, in steps.
   *
   * @returns what the first chunk has besides entries.
   * @throws OpenError for anything but the next chunk of this catalog.
   */
  *take({ sealed, isLast }: SealedChunk): Generator<void, SnapshotHead> {
    const chunk = this.#stream.open(sealed, isLast);
    yield;
    const reader = new ByteReader(chunk);
    this.#head ??= readHead(reader, this.#clear);
    while (!reader.done) {
      if (reader.u8() === STATE) this.#sink.state(readState(reader));
      else this.#sink.idempotencyRecord(readIdempotencyRecord(reader));
      if (++this.#entries % STEP_ENTRIES === 0) yield;
    }
    freeMemory(chunk);
    return this.#head;
  }
}

function readHead(reader: ByteReader, { handle, covered, projectFile }: CatalogHead): SnapshotHead {
  const lastSeq = reader.u48();
  const purgedSeq = reader.u48();
  const seals = Array.from({ length: reader.u16() }, () => readSeals(reader));
  return { handle, covered, projectFile, lastSeq, purgedSeq, seals };
}

/** @param head the clear head, which each chunk is bound to. */
function streamOf(key: KeyObject, project: string, head: Buffer): SealedStream {
  return new SealedStream(key, LABEL, project, hash('sha256', head, 'hex'));
}
