import type { randomFillSync } from 'node:crypto';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { beforeEach, expect, it, vi } from 'vitest';
import { fillRandom, smallRandom } from './random.ts';

/** What the generator was asked for, and how often a wipe was scheduled. */
const seen = vi.hoisted(() => ({ fills: [] as Buffer[], bytes: 0, numbers: 0, immediates: 0, fails: false }));

vi.mock('node:crypto', async (importOriginal) => {
  const original = await importOriginal<typeof import('node:crypto')>();
  /** Gives every four bytes another number. */
  const fill = (target: Buffer, offset = 0, bytes = target.length): Buffer => {
    if (seen.fails) throw new Error('no entropy');
    seen.fills.push(target.subarray(offset, offset + bytes));
    seen.bytes += bytes;
    for (let at = 0; at + 4 <= bytes; at += 4) target.writeUInt32BE(++seen.numbers, offset + at);
    return target;
  };
  return { ...original, randomFillSync: fill as typeof randomFillSync };
});

vi.mock('node:timers', async (importOriginal) => {
  const original = await importOriginal<typeof import('node:timers')>();
  const setImmediate = (run: () => void) => {
    seen.immediates++;
    return original.setImmediate(run);
  };
  return { ...original, setImmediate };
});

/** The numbers in so many random bytes. */
const numbersOf = (bytes: number) => {
  const random = smallRandom(bytes);
  return Array.from({ length: bytes / 4 }, (_, at) => random.readUInt32BE(4 * at));
};

beforeEach(async () => {
  // What a test before has read ahead is wiped.
  await nextTurn();
  Object.assign(seen, { fills: [], bytes: 0, immediates: 0, fails: false });
});

it('bytes that were read ahead are wiped at the end of the turn, and the next turn reads its own', async () => {
  let last = seen.numbers;
  for (let turn = 0; turn < 20; turn++) {
    const numbers = numbersOf(12);
    expect(Math.min(...numbers)).toBeGreaterThan(last);
    last = seen.numbers;
    expect(seen.fills.some((fill) => fill.some((byte) => byte !== 0))).toBe(true);
    await nextTurn();
    for (const fill of seen.fills) expect(fill.every((byte) => byte === 0)).toBe(true);
  }
  expect(seen.fills).toHaveLength(20);
});

it('no byte is used twice, within a turn and over many, for values of every size', async () => {
  const given: number[] = [];
  for (let turn = 0; turn < 50; turn++) {
    for (let value = 0; value < 40; value++) given.push(...numbersOf(4 * (1 + ((turn * value) % 300))));
    if (turn % 3 !== 0) await nextTurn();
    else await Promise.resolve();
  }
  expect(new Set(given).size).toBe(given.length);
});

it('one wipe is scheduled for a turn, however often it reads', async () => {
  for (let value = 0; value < 1_000; value++) smallRandom(12);
  expect([seen.immediates, seen.fills.length]).toEqual([1, 4]);
  await nextTurn();
  smallRandom(12);
  expect(seen.immediates).toBe(2);
});

it('a turn with few values reads little, and a value larger than the block is not read ahead', async () => {
  for (let value = 0; value < 30; value++) smallRandom(12);
  expect(seen.bytes).toBe(512);
  fillRandom(Buffer.alloc(10_000));
  expect(seen.bytes).toBe(10_512);
  expect(seen.immediates).toBe(1);
});

it('a failing generator returns nothing and leaves no bytes behind', () => {
  seen.fails = true;
  for (let attempt = 0; attempt < 2; attempt++) expect(() => smallRandom(12)).toThrow('no entropy');
  seen.fails = false;
  const numbers = numbersOf(12);
  expect(numbers.every((number) => number > 0)).toBe(true);
});
