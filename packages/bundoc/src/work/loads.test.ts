import { expect, it } from 'vitest';
import { type Loaded, Loads } from './loads.ts';

interface Piece extends Loaded {
  usedUs: number;
  isRefused: boolean;
}

function start() {
  const loads = new Loads();
  const begin = (subject: string): Piece => {
    const piece: Piece = { key: { subject, project: 'p' }, usedUs: 0, loadUs: 0, isRefused: false };
    loads.add(piece);
    return piece;
  };
  const take = (piece: Piece, us: number) => {
    piece.usedUs += us;
    loads.took(piece);
  };
  /** Pieces of a subject, one after the other. */
  const finish = (subject: string, count: number, us: number, isRefused = false) => {
    for (let n = 0; n < count; n++) {
      const piece = begin(subject);
      take(piece, us);
      piece.isRefused = isRefused;
      loads.end(piece);
    }
  };
  return { loads, begin, take, finish };
}

it('a subject with one piece has little beside others with many, and not beside others with one', () => {
  const { loads, begin } = start();
  begin('neighbour');
  const others = Array.from({ length: 4 }, (_, n) => begin(`other ${n}`));
  expect(loads.hasLittle('neighbour')).toBe(false);
  for (const { key } of others) for (let n = 0; n < 15; n++) begin(key.subject);
  expect([loads.hasLittle('neighbour'), loads.hasLittle('other 1')]).toEqual([true, false]);
});

it('of subjects with many pieces each, one that has half as many at the moment has not little', () => {
  const { loads, begin } = start();
  for (let subject = 0; subject < 64; subject++)
    for (let n = 0; n < (subject === 0 ? 8 : 16); n++) begin(`s${subject}`);
  expect(loads.hasLittle('s0')).toBe(false);
});

it('pieces that are refused after a short time do not pass as short ones', () => {
  const { loads, begin, finish } = start();
  finish('refused', 30, 300, true);
  begin('refused');
  for (let n = 0; n < 4; n++) begin(`other ${n}`);
  expect(loads.hasLittle('refused')).toBe(false);
});

it('pieces that are refused after a long time pass as long ones', () => {
  const { loads, begin, finish } = start();
  finish('heavy', 30, 100);
  for (let n = 0; n < 4; n++) begin(`other ${n}`);
  begin('heavy');
  expect(loads.hasLittle('heavy')).toBe(true);
  finish('heavy', 3, 500_000, true);
  begin('heavy');
  expect(loads.hasLittle('heavy')).toBe(false);
});

it('a subject with short pieces has little beside others with long ones, however many wait', () => {
  const { loads, begin, finish } = start();
  finish('neighbour', 30, 300);
  for (let n = 0; n < 50; n++) begin('neighbour');
  // Nothing is known of these yet: they do not pass as short.
  for (let n = 0; n < 4; n++) begin(`other ${n}`);
  expect([loads.hasLittle('neighbour'), loads.hasLittle('other 1')]).toEqual([true, false]);
});

it('a piece that takes longer than expected counts for what it has taken', () => {
  const { loads, begin, take } = start();
  const long = begin('heavy');
  begin('light');
  expect(loads.hasLittle('light')).toBe(false);
  take(long, 100_000);
  expect([loads.hasLittle('light'), loads.hasLittle('heavy')]).toEqual([true, false]);
});

it('nothing counts any more once all pieces have ended', () => {
  const { loads, begin, take } = start();
  const pieces = Array.from({ length: 20 }, (_, n) => begin(`s${n % 3}`));
  for (const [n, piece] of pieces.entries()) take(piece, n * 1_000);
  for (const piece of pieces) loads.end(piece);
  for (const piece of pieces) loads.end({ ...piece, usedUs: 0 });
  expect(pieces.map(({ loadUs }) => loadUs)).toEqual(pieces.map(() => 0));
  begin('one');
  begin('other');
  expect([loads.hasLittle('one'), loads.hasLittle('other')]).toEqual([false, false]);
});
