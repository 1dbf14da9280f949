import { beforeEach, describe, expect, it, vi } from 'vitest';
import { systemClock } from '../runtime/clock.ts';
import { FakeClock } from '../testing/fake-clock.ts';
import { type Minute, Minutes, OTHERS } from './minutes.ts';

interface Count {
  count: number;
}

let clock: FakeClock;
let ended: string[];
let minutes: Minutes<Count>;
const say = ({ owner, name, value }: Minute<Count>) => void ended.push(`${owner} ${name} ${value.count}`);
/** @returns whether there was room. */
function count(owner: string, name = 'x'): boolean {
  const running = minutes.get(owner, name);
  if (running !== undefined) running.count++;
  return running !== undefined || minutes.begin(owner, name, { count: 1 });
}
const times = (number: number, owner: string, prefix = 'n') => {
  for (let n = 0; n < number; n++) count(owner, `${prefix}${n}`);
};

beforeEach(() => {
  clock = new FakeClock();
  ended = [];
  minutes = new Minutes({ clock, max: 8, onEnd: say });
});

describe('minutes', () => {
  it('end a minute after their first event, each on its own, and begin again with the next', () => {
    count('a');
    clock.advance(59_999);
    count('a');
    count('b');
    minutes.sweep();
    expect(ended).toEqual([]);
    clock.advance(1);
    minutes.sweep();
    minutes.sweep();
    expect(ended).toEqual(['a x 2']);
    clock.advance(59_999);
    count('b');
    expect(ended).toEqual(['a x 2', 'b x 1']);
    expect(minutes.get('b', 'x')).toEqual({ count: 1 });
  });

  it('say when they began', () => {
    const begun: string[] = [];
    using told = new Minutes<Count>({ clock, onEnd: ({ since }) => begun.push(since) });
    clock.advance(1_000);
    told.begin('a', 'x', { count: 1 });
    clock.advance(60_000);
    told.sweep();
    expect(begun).toEqual(['2026-01-01T00:00:01.000Z']);
  });

  it('end without a caller, and leave no timer behind', () => {
    vi.useFakeTimers();
    try {
      minutes = new Minutes({ clock: systemClock, onEnd: say });
      count('a');
      vi.advanceTimersByTime(30_000);
      count('b');
      vi.advanceTimersByTime(30_000);
      expect(ended).toEqual(['a x 1']);
      vi.advanceTimersByTime(30_000);
      expect(ended).toEqual(['a x 1', 'b x 1']);
      expect(vi.getTimerCount()).toBe(0);
    } finally {
      vi.useRealTimers();
    }
  });

  it('end even if the report of one of them fails', () => {
    minutes = new Minutes({
      clock,
      onEnd: (minute) => {
        if (minute.owner === 'broken') throw new Error('no');
        say(minute);
      },
    });
    for (const owner of ['broken', 'a']) count(owner);
    clock.advance(60_000);
    expect(() => minutes.sweep()).toThrow('no');
    minutes.sweep();
    expect(ended).toEqual(['a x 1']);
  });

  it('minutes of the owner with most end early to make room for owners with fewer, the oldest first', () => {
    times(8, 'a');
    expect(count('a', 'more')).toBe(false);
    expect([count('b', '0'), count('b', '1'), count('c', '0'), count('b', '2')]).toEqual(Array(4).fill(true));
    expect(ended).toEqual(['a n0 1', 'a n1 1', 'a n2 1', 'a n3 1']);
    // The parts are equal to within one.
    expect([count('b', '3'), count('c', '1'), count('a', 'more')]).toEqual([false, true, false]);
  });

  it('minutes of unlimited new owners are at most the maximum, beside those of known owners', () => {
    for (let n = 0; n < 8; n++) expect(count(`owner ${n}`)).toBe(true);
    for (let n = 0; n < 1_000; n++) expect(count(`stranger ${n}`)).toBe(false);
    expect(ended).toEqual([]);
    expect([count(OTHERS, 'x'), count(OTHERS, 'y'), count('owner 1')]).toEqual([true, true, true]);
    clock.advance(60_000);
    expect(count('stranger 1')).toBe(true);
  });

  it('minutes are all reported at once when they are flushed, even one that would begin again', () => {
    minutes = new Minutes({
      clock,
      onEnd: (minute) => {
        if (!minutes.begin(minute.owner, minute.name, minute.value)) say(minute);
      },
    });
    for (const owner of ['a', 'b', 'b']) count(owner);
    clock.advance(60_000);
    minutes.sweep();
    expect(ended).toEqual([]);
    minutes.flush();
    minutes.flush();
    expect(ended).toEqual(['a x 1', 'b x 2']);
    expect(count('a')).toBe(true);
    minutes[Symbol.dispose]();
    expect(ended).toEqual(['a x 1', 'b x 2', 'a x 1']);
    expect(count('a')).toBe(false);
  });

  it('deleted minutes are not reported', () => {
    count('a');
    minutes.delete('a', 'x');
    minutes.delete('a', 'x');
    minutes.flush();
    expect(ended).toEqual([]);
  });
});
