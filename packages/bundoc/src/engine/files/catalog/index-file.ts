import { type KeyObject, randomBytes } from 'node:crypto';
import { OpenError } from '@bundoc/shared/crypto/aead';
import { CHUNK_BYTES, SealedStream } from '@bundoc/shared/crypto/sealed-stream';
import type { ProjectCipher } from '../../../crypto/project-cipher.ts';
import { ownWork } from '../../../work/scheduler.ts';
import type { OwnWork } from '../../../work/work.ts';
import { ByteReader, ByteWriter } from '../../bytes.ts';
import type { IndexSpec } from '../../index-port.ts';
import type { IndexedDocument, MemoryIndex } from '../../indexes/memory-index.ts';

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

const MAGIC = Buffer.from('BUNDOCI1', 'latin1');
const ID_BYTES = 16;
const HEAD_BYTES = MAGIC.length + 4 + ID_BYTES;
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
  const key = cipher.indexesKey(cipher.version, id);
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
 * Decodes the output of {@link encodeIndexes}; undefined for anything but a complete, authentic file of this
 * project under a live key version.
 */
export function decodeIndexes(
  project: string,
  cipher: ProjectCipher,
  bytes: Buffer,
): StoredIndexes | undefined {
  if (bytes.length < HEAD_BYTES || !bytes.subarray(0, MAGIC.length).equals(MAGIC)) return undefined;
  const id = bytes.subarray(MAGIC.length + 4, HEAD_BYTES);
  const key = cipher.indexesKey(bytes.readUInt32BE(MAGIC.length), id);
  if (key === undefined) return undefined;
  const indexes: { collection: string; spec: IndexSpec; documents: IndexedDocument[] }[] = [];
  let asOf: number | undefined;
  try {
    for (const chunk of streamOf(key, project, id).openAll(bytes.subarray(HEAD_BYTES))) {
      const reader = new ByteReader(chunk);
      asOf ??= reader.u48();
      while (!reader.done) {
        if (reader.u8() === INDEX) indexes.push({ ...readIndex(reader), documents: [] });
        else indexes.at(-1)?.documents.push(readDocument(reader));
      }
    }
  } catch (error) {
    if (error instanceof OpenError) return undefined;
    throw error;
  }
  return asOf === undefined ? undefined : { asOf, indexes };
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
  return new SealedStream(key, 'bundoc/indexes/v1', project, id.toString('hex'));
}
