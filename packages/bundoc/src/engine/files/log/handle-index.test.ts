import { randomBytes } from 'node:crypto';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { describe, expect, it } from 'vitest';
import { HandleIndex } from './handle-index.ts';

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

const tag = (value: number) => Buffer.alloc(16, value);

describe('HandleIndex', () => {
  it('takes about 120 bytes for each handle', () => {
    const count = 50_000;
    const handles = Array.from({ length: count }, () => randomBytes(8).toString('hex'));
    const used = () => {
      collectGarbage();
      const { heapUsed, external } = process.memoryUsage();
      return heapUsed + external;
    };
    const before = used();
    const index = new HandleIndex();
    for (const handle of handles) index.append(handle, { segment: 1, frame: 1, tag: tag(1) }, 10);
    // The handles themselves take 32 bytes each and count separately, because `handles` holds them.
    expect((used() - before) / count).toBeLessThan(150);
    expect(index.size).toBe(count);
  });

  it('keeps the oldest uncovered part and the uncovered bytes', () => {
    const index = new HandleIndex();
    index.append('a', { segment: 1, frame: 1, tag: tag(1) }, 10);
    index.append('a', { segment: 1, frame: 5, tag: tag(2) }, 20);
    index.append('a', { segment: 2, frame: 1, tag: tag(3) }, 30);
    index.append('b', { segment: 2, frame: 1, tag: tag(4) }, 40);
    expect(index.pinning(1)).toEqual(['a']);
    index.cover('a', { segment: 1, frame: 5 }, 30);
    expect(index.oldest('a')).toEqual({ segment: 1, frame: 6 });
    index.coverSegment('a', 1, 2, 0);
    expect(index.isPinned(1)).toBe(false);
    expect(index.pinning(2)).toEqual(['a', 'b']);
    expect(index.uncoveredBytes).toBe(70);
    index.cover('a', { segment: 2, frame: 1 }, 30);
    expect(index.oldest('a')).toBeUndefined();
    expect(index.newest('a')).toEqual({ segment: 2, frame: 1, tag: tag(3) });
    expect(index.uncoveredBytes).toBe(40);
    index.remove('b');
    expect(index.isPinned(2)).toBe(false);
    expect(index.uncoveredBytes).toBe(0);
    index.forgetBefore(3);
    expect(index.size).toBe(0);
  });

  it('reuses the row of a removed handle, without any trace of it', () => {
    const index = new HandleIndex();
    for (let at = 0; at < 1_000; at++) {
      index.append(`h${at}`, { segment: 1, frame: at + 1, tag: tag(at) }, 1);
      if (at % 2 === 0) index.remove(`h${at}`);
    }
    expect(index.size).toBe(500);
    expect(index.uncoveredBytes).toBe(500);
    expect(index.newest('h0')).toBeUndefined();
    expect(index.newest('h999')).toEqual({ segment: 1, frame: 1_000, tag: tag(999) });
  });
});
