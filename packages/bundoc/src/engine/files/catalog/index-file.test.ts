import { createSecretKey, randomBytes } from 'node:crypto';
import { LENGTH_BYTES } from '@bundoc/shared/crypto/sealed-stream';
import { expect, it } from 'vitest';
import { ProjectCipher } from '../../../crypto/project-cipher.ts';
import { countedFile, fileInMemory } from '../../../testing/file-in-memory.ts';
import { readValue } from '../../../values/value.ts';
import { MemoryIndex } from '../../indexes/memory-index.ts';
import { encodeIndexes, readIndexes } from './index-file.ts';

const HEAD_BYTES = 28;
const newKey = () => createSecretKey(randomBytes(32));
const cipher = new ProjectCipher('p', [{ version: 1, dek: newKey() }], newKey());

/** An index of documents that each have the most keys and the longest parts. */
async function encoded(documents: number): Promise<{ index: MemoryIndex; bytes: Buffer }> {
  const index = new MemoryIndex({ name: 'i', fields: ['a', 'b', 'c', 'd'], unique: true });
  const long = 'x'.repeat(600);
  const a = Array.from({ length: 999 }, (_, at) => `${at}${long}`);
  const text = JSON.stringify({ a, b: `b${long}`, c: `c${long}`, d: `d${long}` });
  for (let at = 0; at < documents; at++) index.put(`d${at}`, at + 1, index.keysFor(readValue(text)));
  const pieces: Buffer[] = [];
  for await (const piece of encodeIndexes('p', cipher, 9, [['c', index]])) pieces.push(piece);
  return { index, bytes: Buffer.concat(pieces) };
}

const read = (bytes: Buffer) => readIndexes('p', cipher, fileInMemory(bytes));

it('a file of indexes is read chunk by chunk, with the longest entries that there are', async () => {
  const { index, bytes } = await encoded(3);
  expect(bytes.readUInt32BE(HEAD_BYTES)).toBeGreaterThan(4_000_000);
  const documents = [...index.documents()];
  expect(await read(bytes)).toEqual({
    asOf: 9,
    indexes: [{ collection: 'c', spec: index.spec, documents }],
  });
});

it('a file of indexes that is cut, longer or changed is ignored', async () => {
  const { bytes } = await encoded(2);
  const changed = Buffer.from(bytes);
  changed[HEAD_BYTES + 100] = (bytes[HEAD_BYTES + 100] as number) ^ 1;
  const cut = [0, 10, HEAD_BYTES, HEAD_BYTES + 3, HEAD_BYTES + 100, bytes.length - 1];
  const wrong = [
    ...cut.map((end) => bytes.subarray(0, end)),
    Buffer.concat([bytes, Buffer.alloc(9)]),
    changed,
  ];
  for (const one of wrong) expect(await read(one)).toBeUndefined();
});

it('a chunk that is longer than a writer makes is not read', async () => {
  const { bytes } = await encoded(1);
  const content = Buffer.concat([bytes.subarray(0, HEAD_BYTES + LENGTH_BYTES), Buffer.alloc(20_000_000)]);
  content.writeUInt32BE(10_000_000, HEAD_BYTES);
  const file = countedFile(fileInMemory(content));
  expect(await readIndexes('p', cipher, file)).toBeUndefined();
  expect(file.read).toBeLessThan(2_000_000);
});
