import { expect, it } from 'vitest';
import { counted } from './counted.ts';

it('a count takes the singular or the plural of its noun', () => {
  expect([0, 1, 2].map((count) => counted(count, 'document'))).toEqual([
    '0 documents',
    '1 document',
    '2 documents',
  ]);
  expect(counted(2, 'entry', 'entries')).toBe('2 entries');
});
