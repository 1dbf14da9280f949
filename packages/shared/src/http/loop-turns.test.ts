import { AsyncLocalStorage } from 'node:async_hooks';
import { describe, expect, it } from 'vitest';
import { FEW } from '../runtime/round-robin.ts';
import { AT_ONCE, LoopTurns, WAITING_MS } from './loop-turns.ts';

/** An event loop by hand. Each item takes a millisecond. */
function start() {
  const begun: string[] = [];
  let ends: (() => void)[] = [];
  let nowMs = 0;
  const turns = new LoopTurns({
    nowMs: () => nowMs,
    endOfTurn: (run) => ends.push(run),
    afterwards: (run) => after.push(run),
  });
  const after: (() => void)[] = [];
  const begin = (item: string) => () => {
    begun.push(item);
    nowMs++;
  };
  const arrive = (name: string, item = name) => {
    turns.begin(name, begin(item));
  };
  const endTurn = () => {
    const all = ends;
    ends = [];
    for (const end of all) {
      end();
      for (let run = after.shift(); run !== undefined; run = after.shift()) run();
    }
  };
  const pass = (ms: number) => {
    nowMs += ms;
  };
  /** So many connections arrive that others are likely to wait. */
  const crowd = () => {
    for (let n = 0; n < 16; n++) turns.accepted();
  };
  return { turns, begun, arrive, endTurn, pass, crowd, isIdle: () => ends.length === 0 };
}

describe('turns of the event loop', () => {
  it('begin an item at once while few arrive, and ask for no callback without items', () => {
    const { turns, begun, arrive, isIdle } = start();
    arrive('a', 'one');
    arrive('a', 'two');
    expect([begun, turns.waiting, isIdle()]).toEqual([['one', 'two'], 0, true]);
    arrive('a', 'three');
    expect(begun).toEqual(['one', 'two', 'three']);
  });

  it('begin no more than a number as they arrive in one turn, and some milliseconds of work at its end', () => {
    const { turns, begun, arrive, endTurn } = start();
    for (let n = 0; n < AT_ONCE + 2 * WAITING_MS; n++) arrive('a', `${n}`);
    expect(begun.length).toBe(AT_ONCE);
    endTurn();
    expect([begun.length, turns.waiting]).toEqual([AT_ONCE + WAITING_MS, WAITING_MS]);
    // What arrives while others wait begins behind them.
    arrive('a', 'last');
    endTurn();
    expect(begun.length).toBe(AT_ONCE + 2 * WAITING_MS);
    endTurn();
    expect([begun.at(-1), turns.waiting]).toEqual(['last', 0]);
  });

  it('begin less while many connections are accepted, but something in each turn', () => {
    const { turns, begun, arrive, endTurn, crowd, isIdle } = start();
    crowd();
    endTurn();
    expect(turns.isCrowded).toBe(true);
    for (let turn = 1; turn < 5; turn++) {
      crowd();
      for (let n = 0; n < 5; n++) arrive('a');
      endTurn();
      expect(begun.length).toBe(turn + 2);
    }
    while (!isIdle()) endTurn();
    expect([turns.waiting, begun.length, turns.isCrowded]).toEqual([0, 20, false]);
  });

  it('begin in a crowd for a part of the time that a long turn took, so that what waits is not forgotten', () => {
    const { begun, arrive, endTurn, pass, crowd } = start();
    crowd();
    endTurn();
    for (let n = 0; n < 20; n++) arrive('a');
    for (const [ms, expected] of [
      [1, 1],
      [22, 3],
      [1_000, WAITING_MS],
    ] as const) {
      crowd();
      pass(ms);
      const before = begun.length;
      endTurn();
      expect(begun.length - before).toBe(expected);
    }
  });

  it('serve a crowd without an end first, but not all of the time', () => {
    const { begun, arrive, endTurn, pass, crowd } = start();
    let [crowdedMs, otherMs] = [0, 0];
    for (let turn = 0; turn < 1_000; turn++) {
      crowd();
      for (let n = 0; n < 20; n++) arrive('a');
      const before = begun.length;
      pass(10);
      endTurn();
      const count = begun.length - before;
      if (count > 2) otherMs += 10 + count;
      else crowdedMs += 10 + count;
    }
    expect(crowdedMs / (crowdedMs + otherMs)).toBeCloseTo(0.8, 1);
  });

  it('begin items outside of the asynchronous context of the requests that they waited behind', async () => {
    const context = new AsyncLocalStorage<string>();
    const turns = new LoopTurns();
    const seen: unknown[] = [];
    const { promise, resolve } = Promise.withResolvers<void>();
    context.run('a tenant', () => {
      turns.begin('a', () => seen.push(context.getStore()));
      for (let n = 1; n < AT_ONCE; n++) turns.mayBegin();
      turns.begin('a', () => seen.push(context.getStore()));
      turns.begin('a', resolve);
    });
    await promise;
    expect(seen).toEqual([undefined, undefined]);
  });

  it('let names take turns, so that one client does not wait for all that another has sent', () => {
    const { begun, arrive, endTurn } = start();
    for (let n = 0; n < AT_ONCE + 2 * FEW; n++) arrive('flood', `flood ${n}`);
    arrive('neighbour');
    endTurn();
    expect(begun.indexOf('neighbour')).toBe(AT_ONCE);
  });

  it('count what an item causes as a part of it, and begin the next one only then', async () => {
    const order: string[] = [];
    const turns = new LoopTurns();
    const untilBegun = Promise.withResolvers<void>();
    for (let n = 0; n < AT_ONCE; n++) turns.mayBegin();
    expect(turns.mayBegin()).toBe(false);
    const begin = (item: string, last?: () => void) => () => {
      order.push(item);
      void (async () => {
        for (let step = 0; step < 3; step++) await Promise.resolve();
        order.push(`${item} done`);
        last?.();
      })();
    };
    turns.begin('a', begin('first'));
    turns.begin('a', begin('second', untilBegun.resolve));
    await untilBegun.promise;
    expect(order.slice(0, 3)).toEqual(['first', 'first done', 'second']);
  });

  it('forget an item that has gone, and go on after one that throws', () => {
    const { turns, begun, arrive, endTurn } = start();
    for (let n = 0; n < AT_ONCE; n++) arrive('a');
    const gone = () => begun.push('gone');
    turns.begin('b', gone);
    turns.begin('b', () => {
      throw new Error('a fault');
    });
    arrive('c');
    turns.remove('b', gone);
    expect(endTurn).toThrow('a fault');
    endTurn();
    endTurn();
    expect([begun.includes('gone'), turns.waiting]).toEqual([false, 1]);
  });
});
