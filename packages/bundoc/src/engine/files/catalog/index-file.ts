import { randomBytes } from 'node:crypto';
import { aadOf, OpenError, open, SEAL_OVERHEAD_BYTES, seal } from '@bundoc/shared/crypto/aead';
import type { ProjectCipher } from '../../../crypto/project-cipher.ts';
import { type OwnWork, ownWork } from '../../../work/scheduler.ts';
import { ByteReader, ByteWriter } from '../../bytes.ts';
import type { IndexSpec } from '../../index-port.ts';
import type { IndexedDocument, MemoryIndex } from '../../indexes/memory-index.ts';

/**
 * Entries of a project's indexes, beside its catalog: it may be missing or useless, then they are made of the
 * documents.
 */
export const INDEX_FILE = 'indexes';

/** An index as it was stored. */
export interface StoredIndex {
  readonly collection: string;
  readonly spec: IndexSpec;
  readonly documents: readonly IndexedDocument[];
}

export interface StoredIndexes {
  /** Documents that have not changed behind this place have the entries that are stored. */
  readonly asOf: number;
  readonly indexes: readonly StoredIndex[];
}

const MAGIC = Buffer.from('BUNDOCI1', 'latin1');
const ID_BYTES = 16;
const HEAD_BYTES = MAGIC.length + 4 + ID_BYTES;
/** Plaintext bytes after which a chunk is sealed; between chunks other work gets its turn. */
const CHUNK_BYTES = 262_144;
const INDEX = 1;
const DOCUMENT = 2;

/**
 * Indexes as a file, piece by piece: a clear head, then sealed chunks, each bound to its place. Byte table:
 * docs/formats/indexes.md.
 *
 * Documents change while it is written. That is harmless: what has changed behind `asOf` is not taken from
 * it.
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
  let chunk = 0;
  let writer = new ByteWriter(CHUNK_BYTES + 2_048).u48(asOf);
  const sealChunk = (last: boolean): Buffer => {
    const sealed = seal(key, writer.finish(), chunkAad(project, id, chunk++, last));
    const length = Buffer.alloc(4);
    length.writeUInt32BE(sealed.length);
    writer = new ByteWriter(CHUNK_BYTES + 2_048);
    const piece = Buffer.concat([length, sealed]);
    work.leave();
    return piece;
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
 * What {@link encodeIndexes} wrote; undefined for anything but a whole, authentic file of this project under
 * a live key version.
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
  for (let at = HEAD_BYTES, chunk = 0; ; chunk++) {
    const length = at + 4 <= bytes.length ? bytes.readUInt32BE(at) : 0;
    const end = at + 4 + length;
    if (length < SEAL_OVERHEAD_BYTES || end > bytes.length) return undefined;
    const last = end === bytes.length;
    let reader: ByteReader;
    try {
      reader = new ByteReader(open(key, bytes.subarray(at + 4, end), chunkAad(project, id, chunk, last)));
    } catch (error) {
      if (error instanceof OpenError) return undefined;
      throw error;
    }
    asOf ??= reader.u48();
    while (!reader.done) {
      if (reader.u8() === INDEX) indexes.push({ ...readIndex(reader), documents: [] });
      else indexes.at(-1)?.documents.push(readDocument(reader));
    }
    if (last) return { asOf, indexes };
    at = end;
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

function chunkAad(project: string, id: Buffer, chunk: number, last: boolean): Buffer {
  return aadOf('bundoc/indexes/v1', project, id.toString('hex'), String(chunk), last ? 'last' : 'more');
}
