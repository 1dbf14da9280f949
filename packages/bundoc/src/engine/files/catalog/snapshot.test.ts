import { createSecretKey, randomBytes } from 'node:crypto';
import { parseCatalogHead } from '@bundoc/shared/contract/catalog-head';
import { expect, it } from 'vitest';
import { callsOfSteps } from '../../../testing/counted-calls.ts';
import { fileInMemory } from '../../../testing/file-in-memory.ts';
import { ownWork } from '../../../work/scheduler.ts';
import { FileWindow } from '../disk/file-window.ts';
import { Catalog } from './catalog.ts';
import { takeChunk } from './sealed-chunks.ts';
import { CATALOG_CHUNK_BYTES_MAX, encodeSnapshot, SnapshotDecoder } from './snapshot.ts';

const key = createSecretKey(randomBytes(32));
const keys = { version: 1, subkey: () => key };
const head = {
  handle: '0123456789abcdef',
  covered: undefined,
  projectFile: Buffer.from('{}'),
  lastSeq: 0,
  purgedSeq: 0,
  seals: [],
};

function catalogOf(documents: number): Catalog {
  const catalog = new Catalog();
  for (let seq = 1; seq <= documents; seq++)
    catalog.apply({
      collection: `ä-${seq % 7}`,
      id: `€${seq}`,
      fileName: randomBytes(16),
      rev: randomBytes(12),
      seq,
      createdSeq: seq,
      createdMs: 1,
      keyVersion: 1,
      size: 1,
      deletedMs: seq % 2,
    });
  return catalog;
}

async function encoded(catalog: Catalog, bytesMax?: number): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for await (const piece of encodeSnapshot('p', keys, head, [], catalog, ownWork('p'), bytesMax))
    pieces.push(piece);
  return Buffer.concat(pieces);
}

it('a catalog knows the bytes of its documents in a snapshot', async () => {
  const empty = await encoded(new Catalog());
  const catalog = catalogOf(1_000);
  const bytes = await encoded(catalog);
  expect(bytes.length - empty.length).toBe(catalog.snapshotBytes);
});

it('a snapshot that is too large to be read is not written to its end', async () => {
  const catalog = catalogOf(100);
  const { length } = await encoded(catalog);
  expect(await encoded(catalog, length)).toHaveLength(length);
  await expect(encoded(catalog, length - 1)).rejects.toMatchObject({ code: 'quota_exceeded' });
});

it('a snapshot is read in short steps', async () => {
  const bytes = await encoded(catalogOf(4_000));
  let states = 0;
  const sink = { state: () => states++, idempotencyRecord: () => undefined };
  const clear = parseCatalogHead(bytes)!;
  expect(clear.documents).toBe(2_000);
  const decoder = new SnapshotDecoder('p', keys, clear, bytes.subarray(0, clear.end), sink);
  using window = new FileWindow(fileInMemory(bytes.subarray(clear.end)));
  const calls: number[] = [];
  while (window.left > 0) {
    const steps = decoder.take(await takeChunk(window, CATALOG_CHUNK_BYTES_MAX));
    calls.push(...callsOfSteps({ next: () => ({ ...steps.next(), value: undefined }) }, 'src/engine'));
  }
  expect(states).toBe(4_000);
  expect(calls.length).toBeGreaterThan(7);
  expect(Math.max(...calls)).toBeLessThan(30_000);
});
