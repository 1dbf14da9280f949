import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { decodeCell, encodeCell } from '../src/engine/postgres/order/cell.ts';
import { entriesOf } from '../src/engine/postgres/order/entry.ts';
import { decodeManifest, encodeManifest } from '../src/engine/postgres/order/manifest.ts';
import { entryValue, Page, PageWriter, readNumbers } from '../src/engine/postgres/order/page.ts';
import { encodeKeyPart } from '../src/values/key.ts';

const golden = JSON.parse(
  readFileSync(new URL('golden/postgres-order-v1.golden.json', import.meta.url), 'utf8'),
) as Record<string, string>;
const bytesOf = (name: string) => Buffer.from(String(golden[name]), 'hex');

/** Never regenerated from the first release on: a changed format gets a new version. */
it('opens the golden cell, pages and manifest of ordered indexes, and writes them unchanged', () => {
  const keys = [encodeKeyPart('é'), encodeKeyPart(-12.5), encodeKeyPart(undefined)];
  const cell = new Map<number, unknown>([
    [3, keys],
    [300, 'too many'],
  ]);
  expect(decodeCell(bytesOf('cell'))).toEqual(cell);
  const indexes = [
    { id: 3, keys: { keys, tooMany: false } },
    { id: 300, keys: { keys: [], tooMany: true } },
  ];
  expect(encodeCell(indexes)).toEqual(bytesOf('cell'));

  const entries = [
    ...entriesOf(7, 9, 'too many'),
    ...entriesOf(1, 1, [encodeKeyPart('note 1')]),
    ...entriesOf(70_000, 5_000_000_000, [encodeKeyPart('note 1')]),
    ...entriesOf(2, 300, [encodeKeyPart('note 2'), encodeKeyPart('note 3')]),
  ];
  const leaf = new Page(bytesOf('leaf'));
  expect(entries.map((_, item) => leaf.entry(item))).toEqual(entries);
  const writer = new PageWriter('leaf', 128);
  for (const entry of entries) writer.addText(entry.place, entryValue(entry));
  expect(writer.bytes).toEqual(bytesOf('leaf'));

  const fences = new Page(bytesOf('fences'));
  expect([0, 1, 2].map((item) => [fences.text(item), fences.pageOf(item)])).toEqual([
    ['', 1],
    ['\x07note 1\x00\x00', 2 ** 48 - 1],
    ['\x07note 3', 123_456_789],
  ]);
  expect(readNumbers(bytesOf('changed'))).toEqual([1, 2, 200, 70_000]);

  const manifest = {
    asOf: 5_000,
    builtTo: 'all',
    indexed: 4,
    runs: [
      {
        id: '0123456789abcdef',
        entries: 5,
        multiple: 3,
        bytes: 2 * 7_984,
        fences: [{ first: '', id: 2 ** 48 - 1 }],
        changed: [],
      },
      { id: 'fedcba9876543210', entries: 0, multiple: 0, bytes: 7_984, fences: [], changed: [77] },
    ],
  } as const;
  expect(decodeManifest(bytesOf('manifest'))).toEqual(manifest);
  expect(encodeManifest(manifest)).toEqual(bytesOf('manifest'));
});
