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
    expect([...index.handlesFrom(2)]).toEqual(['a']);
    expect([...index.handlesFrom(3)]).toEqual([]);
  });

  it('repeats the newest part of a handle in the next header once no other header remembers it', () => {
    const index = new HandleIndex();
    const A = '00000000000000a1';
    const last = { segment: 1, frame: 5, tag: tag(2) };
    index.append(A, last, 10);
    index.cover(A, last, 10);
    const unremembered = (firstLive: number, until: number) =>
      index.unremembered(firstLive, until, 10).bytes.toString('hex');
    const entry = `${A}000000000001${'00000005'}${'02'.repeat(16)}`;
    expect(unremembered(1, 9)).toBe('');
    expect(unremembered(2, 9)).toBe(entry);
    expect([index.anchored(1), index.unrememberedBefore(2)]).toEqual([1, 1]);
    index.remembered(index.unremembered(2, 9, 10), 4);
    expect([index.anchored(1), index.anchored(4), index.unrememberedBefore(4)]).toEqual([0, 1, 0]);
    expect(unremembered(2, 9)).toBe('');
    expect(unremembered(4, 4)).toBe('');
    // The header was freed, or its segment is left out because it has no frame.
    expect(unremembered(5, 9)).toBe(entry);
    expect(unremembered(2, 3)).toBe(entry);
    // A start reads it again.
    const read = new HandleIndex();
    read.remember(Buffer.from(entry, 'hex'), 4);
    expect([read.newest(A), read.anchored(4)]).toEqual([last, 1]);
    // A later part takes its place.
    index.append(A, { segment: 6, frame: 1, tag: tag(3) }, 10);
    expect(unremembered(5, 9)).toBe('');
    expect(unremembered(7, 9)).toBe(`${A}000000000006${'00000001'}${'03'.repeat(16)}`);
    index.remove(A);
    expect([index.anchored(6), unremembered(7, 9)]).toEqual([0, '']);
    for (let at = 0; at < 3; at++) index.append(`0${at}`.repeat(8), last, 10);
    expect(index.unremembered(7, 9, 2)).toMatchObject({ isComplete: false, rows: [expect.anything(), 48] });
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
