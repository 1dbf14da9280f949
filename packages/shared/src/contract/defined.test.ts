import { describe, expect, it } from 'vitest';
import { defined } from './defined.ts';

describe('defined', () => {
  it('keeps the members that have a value, in their order, and leaves out those that are undefined', () => {
    const kept = defined({ b: 0, a: undefined, d: null, c: '', e: false });
    expect(Object.entries(kept)).toEqual([
      ['b', 0],
      ['d', null],
      ['c', ''],
      ['e', false],
    ]);
  });
});
