import { createSecretKey, randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseCatalogHead } from '@bundoc/shared/contract/catalog-head';
import { LENGTH_BYTES } from '@bundoc/shared/crypto/sealed-stream';
import { describe, expect, it, onTestFinished } from 'vitest';
import { countedFile, fileInMemory } from '../../../testing/file-in-memory.ts';
import { ownWork } from '../../../work/scheduler.ts';
import { LARGE_FILE_BYTES_MAX, type ReadableFile } from '../disk/disk.ts';
import { openNodeDisk } from '../disk/node-disk.ts';
import { Catalog } from './catalog.ts';
import { openCatalog, readCatalog } from './catalog-file.ts';
import { CATALOG_CHUNK_BYTES_MAX, CatalogDamaged, encodeSnapshot } from './snapshot.ts';

const key = createSecretKey(randomBytes(32));
const keys = { version: 1, subkey: () => key };
const head = {
  handle: '0123456789abcdef',
  covered: undefined,
  projectFile: Buffer.from('{}'),
  lastSeq: 7,
  purgedSeq: 0,
  seals: [],
};
const ANSWER_BYTES = 700_000;

/** A head, and at least four chunks, one of which is long. */
async function encoded(): Promise<Buffer> {
  const catalog = new Catalog();
  for (let seq = 1; seq <= 4_000; seq++)
    catalog.apply({
      collection: 'c',
      id: `id${seq}`,
      fileName: randomBytes(16),
      rev: randomBytes(12),
      seq,
      createdSeq: seq,
      createdMs: 1,
      keyVersion: 1,
      size: 1,
      deletedMs: 0,
    });
  const used = { key: 'a'.repeat(32), request: 'b'.repeat(32), atMs: 1, answer: 'x'.repeat(ANSWER_BYTES) };
  const pieces: Buffer[] = [];
  for await (const piece of encodeSnapshot('p', keys, head, [used], catalog)) pieces.push(piece);
  expect(pieces.length).toBeGreaterThan(4);
  return Buffer.concat(pieces);
}

/** The head and the chunks with their lengths. */
function piecesOf(bytes: Buffer): Buffer[] {
  const pieces: Buffer[] = [];
  for (let at = 0; at < bytes.length; ) {
    const end = at === 0 ? parseCatalogHead(bytes)!.end : at + LENGTH_BYTES + bytes.readUInt32BE(at);
    pieces.push(bytes.subarray(at, end));
    at = end;
  }
  return pieces;
}

async function read(file: ReadableFile) {
  const found = { states: 0, answers: 0 };
  const sink = {
    state: () => found.states++,
    idempotencyRecord: ({ answer }: { answer: string }) => {
      found.answers += answer.length;
    },
  };
  const { head: read, keyVersion } = await readCatalog('p', keys, file, sink, ownWork('p'));
  return { ...found, lastSeq: read.lastSeq, keyVersion };
}

/** A file that gives out at most so many bytes, and fewer than it said if it became shorter. */
function withLength(bytes: number, content: Buffer): ReadableFile {
  return { ...fileInMemory(content), bytes };
}

/** The bytes with another length of a chunk. */
function withChunkLength(bytes: Buffer, chunk: number, length: number): Buffer {
  const pieces = piecesOf(bytes);
  const changed = Buffer.from(pieces[chunk]!);
  changed.writeUInt32BE(length);
  return Buffer.concat(pieces.with(chunk, changed));
}

describe('a catalog', () => {
  it('is read chunk by chunk, a long chunk of one large answer included', async () => {
    const whole = { states: 4_000, answers: ANSWER_BYTES, lastSeq: 7, keyVersion: 1 };
    expect(await read(fileInMemory(await encoded()))).toEqual(whole);
  });

  const reordered = (bytes: Buffer, change: (pieces: Buffer[]) => Buffer[]) =>
    Buffer.concat(change(piecesOf(bytes)));
  const damages: readonly [string, (bytes: Buffer) => Buffer][] = [
    ['that is empty', () => Buffer.alloc(0)],
    ['that ends in its head', (bytes) => bytes.subarray(0, 80)],
    ['that ends behind its head', (bytes) => reordered(bytes, (pieces) => pieces.slice(0, 1))],
    ['that ends in a length', (bytes) => Buffer.concat([...piecesOf(bytes).slice(0, 2), Buffer.alloc(3)])],
    ['that ends in a chunk', (bytes) => bytes.subarray(0, -1)],
    ['that ends before its last chunk', (bytes) => reordered(bytes, (pieces) => pieces.slice(0, -1))],
    ['that is longer by a byte', (bytes) => Buffer.concat([bytes, Buffer.alloc(1)])],
    ['that ends in a chunk too many', (bytes) => reordered(bytes, (pieces) => [...pieces, pieces.at(-1)!])],
    ['with a byte changed', (bytes) => bytes.with(-20, bytes.at(-20)! ^ 1) as Buffer],
    ['with two chunks swapped', (bytes) => reordered(bytes, ([h, a, b, ...rest]) => [h!, b!, a!, ...rest])],
    ['without a chunk', (bytes) => reordered(bytes, (pieces) => pieces.toSpliced(2, 1))],
    ['with a length that is shorter', (bytes) => withChunkLength(bytes, 2, 1_000)],
    ['with a length that is longer by one', (bytes) => withChunkLength(bytes, 1, piecesOf(bytes)[1]!.length)],
    ['with a length of nothing', (bytes) => withChunkLength(bytes, 1, 0)],
    ['with a length beyond its end', (bytes) => withChunkLength(bytes, 3, 2_000_000)],
    ['with the greatest length', (bytes) => withChunkLength(bytes, 1, 0xffff_ffff)],
  ];
  it.each(damages)('%s is damage', async (_name, change) => {
    const changed = Buffer.from(change(await encoded()));
    await expect(read(fileInMemory(changed))).rejects.toThrow(CatalogDamaged);
  });

  it('a catalog that becomes shorter while it is read is damage', async () => {
    const bytes = await encoded();
    for (const left of [0, 50, 2_000, bytes.length - 1])
      await expect(read(withLength(bytes.length, bytes.subarray(0, left)))).rejects.toThrow(CatalogDamaged);
  });

  it('a catalog with a chunk longer than a writer makes is damage before the chunk is read', async () => {
    const [clear] = piecesOf(await encoded()) as [Buffer];
    const length = Buffer.alloc(LENGTH_BYTES);
    length.writeUInt32BE(CATALOG_CHUNK_BYTES_MAX + 1);
    const content = Buffer.concat([clear, length, Buffer.alloc(4 * CATALOG_CHUNK_BYTES_MAX)]);
    const file = countedFile(fileInMemory(content));
    await expect(read(file)).rejects.toThrow(CatalogDamaged);
    expect(file.read).toBeLessThan(CATALOG_CHUNK_BYTES_MAX);
  });
});

describe('a sparse file of 1 GiB in place of a catalog', () => {
  /** More than a window and a chunk; a thirtieth of the file. */
  const MEMORY_MAX = 33_554_432;

  it.each<[string, (bytes: Buffer) => Buffer]>([
    ['of zeros', () => Buffer.alloc(0)],
    ['that begins like a catalog', (bytes) => piecesOf(bytes)[0]!],
    ['that begins with a whole catalog', (bytes) => bytes],
    [
      'with a chunk as long as one may be',
      (bytes) => {
        const length = Buffer.alloc(LENGTH_BYTES);
        length.writeUInt32BE(CATALOG_CHUNK_BYTES_MAX);
        return Buffer.concat([piecesOf(bytes)[0]!, length]);
      },
    ],
  ])('%s is damage, and costs the memory of one chunk', async (_name, start) => {
    const root = mkdtempSync(join(tmpdir(), 'bundoc-catalog-'));
    const disk = openNodeDisk(root);
    onTestFinished(async () => {
      await disk[Symbol.asyncDispose]();
      rmSync(root, { recursive: true });
    });
    writeFileSync(join(root, 'catalog'), start(await encoded()));
    truncateSync(join(root, 'catalog'), LARGE_FILE_BYTES_MAX);
    const before = process.memoryUsage().arrayBuffers;
    using opened = await openCatalog(disk, root);
    const file = countedFile(opened!);
    await expect(read(file)).rejects.toThrow(CatalogDamaged);
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(MEMORY_MAX);
    expect(file.read).toBeLessThan(3 * CATALOG_CHUNK_BYTES_MAX);
  });

  it('a file that is longer than a catalog by a byte is damage before it is read', async () => {
    const root = mkdtempSync(join(tmpdir(), 'bundoc-catalog-'));
    const disk = openNodeDisk(root);
    onTestFinished(async () => {
      await disk[Symbol.asyncDispose]();
      rmSync(root, { recursive: true });
    });
    writeFileSync(join(root, 'catalog'), '');
    truncateSync(join(root, 'catalog'), LARGE_FILE_BYTES_MAX + 1);
    await expect(openCatalog(disk, root)).rejects.toThrow(CatalogDamaged);
  });
});
