import assert from 'node:assert/strict';
import { type KeyObject, randomBytes } from 'node:crypto';
import { OpenError } from '@bundoc/shared/crypto/aead';
import { CHUNK_BYTES, LENGTH_BYTES, SealedStream } from '@bundoc/shared/crypto/sealed-stream';
import type { ProjectCipher } from '../../../crypto/project-cipher.ts';
import { ownWork } from '../../../work/scheduler.ts';
import type { OwnWork } from '../../../work/work.ts';
import type { IndexedDocument, MemoryIndex } from '../../indexes/memory-index.ts';
import { ByteReader, ByteWriter } from '../../port/bytes.ts';
import type { IndexSpec } from '../../port/index-port.ts';
import type { ReadableFile } from '../disk/disk.ts';
import { FileWindow } from '../disk/file-window.ts';
import { takeChunk } from './sealed-chunks.ts';

/**
 * Entries of a project's indexes, beside its catalog. When the file is missing or invalid, the indexes are
 * rebuilt from the documents.
 */
export const INDEX_FILE = 'indexes';

/** An index as stored. */
export interface StoredIndex {
  readonly collection: string;
  readonly spec: IndexSpec;
  readonly documents: readonly IndexedDocument[];
}

export interface StoredIndexes {
  /** Stored entries are valid for documents that have not changed after this position. */
  readonly asOf: number;
  readonly indexes: readonly StoredIndex[];
}

/** Of the key of a file of indexes and of its AAD. */
const LABEL = 'bundoc/indexes/v1';
const MAGIC = Buffer.from('BUNDOCI1', 'latin1');
const ID_BYTES = 16;
const HEAD_BYTES = MAGIC.length + 4 + ID_BYTES;
/**
 * Maximum bytes of a sealed chunk: {@link CHUNK_BYTES} and one entry. A document has up to 1,000 keys and as
 * many complete ones, each of four parts of some 530 bytes at most.
 */
const CHUNK_BYTES_MAX = 8_388_608;
const INDEX = 1;
const DOCUMENT = 2;

/**
 * Encodes indexes as a file, piece by piece: a clear head, then sealed chunks, each bound to its place. Byte
 * table: docs/formats/indexes.md.
 *
 * Documents may change while it is written. A reader ignores stored entries of documents that changed after
 * `asOf`.
 */
export async function* encodeIndexes(
  project: string,
  cipher: ProjectCipher,
  asOf: number,
  indexes: Iterable<readonly [string, MemoryIndex]>,
  own: OwnWork = ownWork(project),
): AsyncGenerator<Buffer> {
  using work = own('index');
  const id = randomBytes(ID_BYTES);
  const key = cipher.subkey(cipher.version, LABEL, id);
  if (key === undefined) throw new Error('the current key version has no key');
  const head = Buffer.alloc(HEAD_BYTES);
  MAGIC.copy(head);
  head.writeUInt32BE(cipher.version, MAGIC.length);
  id.copy(head, MAGIC.length + 4);
  yield head;
  const stream = streamOf(key, project, id);
  let writer = new ByteWriter(CHUNK_BYTES + 2_048).u48(asOf);
  const sealChunk = (isLast: boolean): Buffer => {
    const chunk = stream.seal(writer.finish(), isLast);
    writer = new ByteWriter(CHUNK_BYTES + 2_048);
    work.leave();
    assert(chunk.length - LENGTH_BYTES <= CHUNK_BYTES_MAX, 'a chunk can be read');
    return chunk;
  };
  for (const [collection, index] of indexes) {
    writer.u8(INDEX).text(collection).text(index.spec.name).u8(Number(index.spec.unique));
    writer.u8(index.spec.fields.length);
    for (const field of index.spec.fields) writer.text(field);
    for (const document of index.documents()) {
      const turn = work.pause();
      if (turn !== undefined) await turn;
      writeDocument(writer, document);
      if (writer.length >= CHUNK_BYTES) yield sealChunk(false);
    }
  }
  await work.pause();
  yield sealChunk(true);
}

function writeDocument(writer: ByteWriter, { id, position, keys }: IndexedDocument): void {
  writer.u8(DOCUMENT).text(id).u48(position).u8(Number(keys.tooMany));
  for (const list of [keys.keys, keys.complete]) {
    writer.u16(list.length);
    for (const key of list) writer.blob(Buffer.from(key, 'latin1'));
  }
}

/**
 * Reads the output of {@link encodeIndexes}, chunk by chunk; undefined for anything but a complete, authentic
 * file of this project under a live key version. A file of any size and content costs the memory of one
 * chunk more than its authentic entries.
 */
export async function readIndexes(
  project: string,
  cipher: ProjectCipher,
  file: ReadableFile,
): Promise<StoredIndexes | undefined> {
  using window = new FileWindow(file);
  // A copy, because the window moves.
  const head = Buffer.from(await window.peek(HEAD_BYTES));
  if (head.length < HEAD_BYTES || !head.subarray(0, MAGIC.length).equals(MAGIC)) return undefined;
  window.skip(HEAD_BYTES);
  const id = head.subarray(MAGIC.length + 4);
  const key = cipher.subkey(head.readUInt32BE(MAGIC.length), LABEL, id);
  if (key === undefined) return undefined;
  const stream = streamOf(key, project, id);
  const indexes: { collection: string; spec: IndexSpec; documents: IndexedDocument[] }[] = [];
  let asOf: number | undefined;
  try {
    for (;;) {
      const { sealed, isLast } = await takeChunk(window, CHUNK_BYTES_MAX);
      const reader = new ByteReader(stream.open(sealed, isLast));
      asOf ??= reader.u48();
      while (!reader.done) {
        if (reader.u8() === INDEX) indexes.push({ ...readIndex(reader), documents: [] });
        else indexes.at(-1)?.documents.push(readDocument(reader));
      }
      if (isLast) return { asOf, indexes };
    }
  } catch (error) {
    if (error instanceof OpenError) return undefined;
    throw error;
  }
}

function readIndex(reader: ByteReader): { collection: string; spec: IndexSpec } {
  const collection = reader.text();
  const name = reader.text();
  const unique = reader.u8() === 1;
  const fields = Array.from({ length: reader.u8() }, () => reader.text());
  return { collection, spec: { name, fields, unique } };
}

function readDocument(reader: ByteReader): IndexedDocument {
  const id = reader.text();
  const position = reader.u48();
  const tooMany = reader.u8() === 1;
  const list = () => Array.from({ length: reader.u16() }, () => reader.blob().toString('latin1'));
  return { id, position, keys: { keys: list(), complete: list(), tooMany } };
}

function streamOf(key: KeyObject, project: string, id: Buffer): SealedStream {
  return new SealedStream(key, LABEL, project, id.toString('hex'));
}
