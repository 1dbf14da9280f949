import { OpenError } from '@bundoc/shared/crypto/aead';
import { expect, it } from 'vitest';
import { readStateRow } from './rows.ts';

it.each([0, 1, 6, 7])('a row with null in column %i is undecryptable', (column) => {
  const bytes = Buffer.alloc(40);
  const row = [bytes, bytes, 1, 1, 0, 1, bytes, bytes, 0].with(column, null as never);
  const rows = { openState: () => ({}), collectionToken: () => bytes };
  expect(() => readStateRow(row, rows as never)).toThrow(OpenError);
});
