import { describe, expect, it } from 'vitest';
import type { Value } from '../values/value.ts';
import { compileWhere } from './evaluate.ts';
import type { Test } from './where.ts';

const LISTED = Array.from({ length: 1_000 }, (_, n) => n);

function holds(test: Test, items: readonly Value[]): boolean {
  return compileWhere({ kind: 'field', path: ['a'], tests: [test] })({ a: items });
}

describe('conditions with lists of many values', () => {
  it('test each element once, however many values $in lists', () => {
    let looks = 0;
    const element = new Proxy({ x: -1 } as Record<string, Value>, {
      ownKeys: (target) => {
        looks++;
        return Reflect.ownKeys(target);
      },
    });
    expect(holds({ op: '$in', values: LISTED.map((x) => ({ x })) }, [element])).toBe(false);
    // The array is a value as well.
    expect(looks).toBeLessThanOrEqual(2);
  });

  it('pass over an array once, however many values $all lists', () => {
    let walks = 0;
    const items = Object.assign(Array.from({ length: 10 }, () => -1).concat(LISTED), {
      some(this: Value[], ...args: Parameters<Value[]['some']>) {
        walks++;
        return Array.prototype.some.apply(this, args);
      },
    });
    expect(holds({ op: '$all', values: LISTED }, items)).toBe(true);
    expect(walks).toBe(1);
    expect(holds({ op: '$all', values: [...LISTED, 1_000] }, items)).toBe(false);
  });

  it('distinguish values of different types with the same encoding', () => {
    expect(holds({ op: '$in', values: [[1], { a: 1 }] }, [[1]])).toBe(true);
    expect(holds({ op: '$all', values: ['1', [1], { b: 2, a: 1 }] }, ['1', { a: 1, b: 2 }, [1]])).toBe(true);
    expect(holds({ op: '$all', values: ['1', [1]] }, [1, [1]])).toBe(false);
  });
});
