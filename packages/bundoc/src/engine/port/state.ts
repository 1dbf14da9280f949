import assert from 'node:assert/strict';
import { ByteReader, type ByteWriter } from './bytes.ts';
import type { SealCount } from './seal-budget.ts';

export const FILE_NAME_BYTES = 16;
export const REV_BYTES = 12;

/** A document after a commit. */
export interface DocumentState {
  readonly collection: string;
  readonly id: string;
  readonly fileName: Buffer;
  /** Position of the last change; orders all changes. */
  readonly seq: number;
  /** Position of the creation; orders lists. */
  readonly createdSeq: number;
  readonly createdMs: number;
  readonly rev: Buffer;
  readonly keyVersion: number;
  /** Size of the sealed file in bytes. */
  readonly size: number;
  /** Time of the deletion; 0 while the document exists. */
  readonly deletedMs: number;
}

/** A used idempotency key and its result. */
export interface IdempotencyRecord {
  /** Hash of subject and key, 16 bytes in hex. */
  readonly key: string;
  /** Hash of the request, 16 bytes in hex: a different request under the key is refused. */
  readonly request: string;
  readonly atMs: number;
  /** The answer, as JSON. */
  readonly answer: string;
}

export type CommitRecord =
  | { readonly kind: 'document'; readonly state: DocumentState; readonly sealed: Buffer }
  | { readonly kind: 'idempotency record'; readonly used: IdempotencyRecord }
  | { readonly kind: 'seals'; readonly seals: SealCount };

const DOCUMENT = 1;
const USED_KEY = 2;
const SEALS = 3;

export function writeState(writer: ByteWriter, state: DocumentState): void {
  writeStateOf(writer, state, { bytes: state.fileName, at: 0 }, { bytes: state.rev, at: 0 });
}

/** A part of a buffer; its length is known. */
export interface ByteSlice {
  readonly bytes: Buffer;
  readonly at: number;
}

/** {@link writeState} for a state with file name and revision in other buffers. */
export function writeStateOf(
  writer: ByteWriter,
  state: Omit<DocumentState, 'fileName' | 'rev'>,
  fileName: ByteSlice,
  rev: ByteSlice,
): void {
  writer
    .text(state.collection)
    .text(state.id)
    .raw(fileName.bytes, fileName.at, FILE_NAME_BYTES)
    .u48(state.seq)
    .u48(state.createdSeq)
    .u48(state.createdMs)
    .raw(rev.bytes, rev.at, REV_BYTES)
    .u32(state.keyVersion)
    .u32(state.size)
    .u48(state.deletedMs);
}

export function readState(reader: ByteReader): DocumentState {
  return {
    collection: reader.text(),
    id: reader.text(),
    fileName: reader.raw(FILE_NAME_BYTES),
    seq: reader.u48(),
    createdSeq: reader.u48(),
    createdMs: reader.u48(),
    rev: reader.raw(REV_BYTES),
    keyVersion: reader.u32(),
    size: reader.u32(),
    deletedMs: reader.u48(),
  };
}

export function writeIdempotencyRecord(writer: ByteWriter, used: IdempotencyRecord): void {
  writer
    .raw(Buffer.from(used.key, 'hex'))
    .raw(Buffer.from(used.request, 'hex'))
    .u48(used.atMs)
    .blob(Buffer.from(used.answer));
}

export function readIdempotencyRecord(reader: ByteReader): IdempotencyRecord {
  return {
    key: reader.raw(16).toString('hex'),
    request: reader.raw(16).toString('hex'),
    atMs: reader.u48(),
    answer: reader.blob().toString(),
  };
}

export function writeSeals(writer: ByteWriter, { version, count }: SealCount): void {
  writer.u32(version).u48(count);
}

export function readSeals(reader: ByteReader): SealCount {
  return { version: reader.u32(), count: reader.u48() };
}

/**
 * Adds a document to a part.
 *
 * @returns space for its `state.size` sealed bytes, which the caller fills immediately; empty for a delete.
 */
export function writeDocument(writer: ByteWriter, state: DocumentState): Buffer {
  writer.u8(DOCUMENT);
  writeState(writer, state);
  return writer.u32(state.size).reserve(state.size);
}

/** Adds an idempotency key to a part. */
export function appendIdempotencyRecord(writer: ByteWriter, used: IdempotencyRecord): void {
  writer.u8(USED_KEY);
  writeIdempotencyRecord(writer, used);
}

/** Adds a reservation of seals to a part. */
export function writeSealsRecord(writer: ByteWriter, seals: SealCount): void {
  writer.u8(SEALS);
  writeSeals(writer, seals);
}

/** The records of a part, one by one. Buffers are views of it. */
export function* readRecords(plaintext: Buffer): Generator<CommitRecord> {
  const reader = new ByteReader(plaintext);
  while (!reader.done) {
    const kind = reader.u8();
    assert(kind === DOCUMENT || kind === USED_KEY || kind === SEALS, 'a record of an unknown kind');
    if (kind === DOCUMENT) yield { kind: 'document', state: readState(reader), sealed: reader.blob() };
    else if (kind === USED_KEY) yield { kind: 'idempotency record', used: readIdempotencyRecord(reader) };
    else yield { kind: 'seals', seals: readSeals(reader) };
  }
}
