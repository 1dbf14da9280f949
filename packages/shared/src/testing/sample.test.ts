import { expect, it } from 'vitest';
import { sampleOf } from './sample.ts';

const ITEMS = Array.from({ length: 20 }, (_, index) => index);

it('a sample has that many items, in their order, and the same ones for the same seed', () => {
  for (let seed = 1; seed <= 100; seed++) {
    const sample = sampleOf(ITEMS, 4, seed);
    expect(new Set(sample).size).toBe(4);
    expect(sample).toEqual(sample.toSorted((a, b) => a - b));
    expect(sampleOf(ITEMS, 4, seed)).toEqual(sample);
  }
});

it('over many seeds each item is in a sample, and none in most of them', () => {
  const counts = ITEMS.map(() => 0);
  for (let seed = 1; seed <= 1_000; seed++)
    for (const item of sampleOf(ITEMS, 4, seed)) counts[item] = (counts[item] ?? 0) + 1;
  expect(Math.min(...counts)).toBeGreaterThan(100);
  expect(Math.max(...counts)).toBeLessThan(300);
});
