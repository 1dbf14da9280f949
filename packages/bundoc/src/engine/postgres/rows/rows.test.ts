import { OpenError } from '@bundoc/shared/crypto/aead';
import { expect, it } from 'vitest';
import { clearStateOf, readStateRow } from './rows.ts';

it.each([0, 1, 6, 7])('a row with null in column %i is undecryptable', (column) => {
  const bytes = Buffer.alloc(40);
  const row = [bytes, bytes, 1, 1, 0, 1, bytes, bytes, 0].with(column, null as never);
  const rows = { openState: () => ({}), collectionToken: () => bytes };
  expect(() => readStateRow(row, rows as never)).toThrow(OpenError);
});

it('the clear state of a row whose columns are all null can be written over', () => {
  const nulls = Array<null>(9).fill(null);
  expect(clearStateOf(nulls as never, { collection: 'c', id: 'a' }, 5)).toEqual({
    collection: 'c',
    id: 'a',
    fileName: Buffer.alloc(16),
    createdMs: 5,
    seq: 0,
    createdSeq: 0,
    deletedMs: 0,
    keyVersion: 0,
    rev: Buffer.alloc(12),
    size: 0,
  });
});
