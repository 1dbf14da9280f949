import { AsyncLocalStorage } from 'node:async_hooks';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { AT_ONCE, LoopTurns, WAITING_MS } from './loop-turns.ts';

function start() {
  const turns = new LoopTurns();
  const begun: string[] = [];
  /** @param ms how long the request takes. */
  const arrive = (name: string, item = name, ms = 0) =>
    turns.begin(name, () => {
      begun.push(item);
      for (const end = performance.now() + ms; performance.now() < end; );
    });
  const arriveMany = (name: string, count: number, ms = 0) => {
    for (let n = 0; n < count; n++) arrive(name, `${name} ${n}`, ms);
  };
  return { turns, begun, arrive, arriveMany };
}

describe('turns of the event loop', () => {
  it('begin a limited number of requests at once, and the rest at the end of the turn', async () => {
    const { begun, arriveMany } = start();
    arriveMany('a', AT_ONCE + 3);
    expect(begun.length).toBe(AT_ONCE);
    await nextTurn();
    expect(begun.length).toBe(AT_ONCE + 3);
    arriveMany('a', AT_ONCE);
    expect(begun.length).toBe(2 * AT_ONCE + 3);
  });

  it('begin waiting requests for some milliseconds at the end of each turn, and at least one', async () => {
    const { begun, arriveMany } = start();
    arriveMany('a', AT_ONCE);
    arriveMany('b', 2 * WAITING_MS, 1);
    arriveMany('c', 1, 3 * WAITING_MS);
    const counts: number[] = [];
    while (begun.length < AT_ONCE + 2 * WAITING_MS + 1) {
      const before = begun.length;
      await nextTurn();
      counts.push(begun.length - before);
    }
    expect(Math.max(...counts)).toBeLessThanOrEqual(WAITING_MS);
    expect(Math.min(...counts)).toBeGreaterThan(0);
  });

  it('let names take turns, so that no client waits for all requests of another', async () => {
    const { begun, arrive, arriveMany } = start();
    arriveMany('flood', AT_ONCE + 10);
    arrive('one');
    arrive('other');
    arrive('one', 'second of one');
    // On a busy machine a turn may begin fewer.
    while (begun.length < AT_ONCE + 5) await nextTurn();
    expect(begun.slice(AT_ONCE, AT_ONCE + 5)).toEqual([
      ...[`flood ${AT_ONCE}`, 'one', 'other'],
      ...[`flood ${AT_ONCE + 1}`, 'second of one'],
    ]);
  });

  it('put a request that arrives while others wait behind those', async () => {
    const { begun, arrive, arriveMany, turns } = start();
    arriveMany('a', AT_ONCE + 1);
    expect(turns.mayBegin()).toBe(false);
    arrive('a', 'last');
    await nextTurn();
    expect(begun.slice(-2)).toEqual([`a ${AT_ONCE}`, 'last']);
  });

  it('begin no request in the asynchronous context of another one', async () => {
    const context = new AsyncLocalStorage<string>();
    const turns = new LoopTurns();
    const seen: unknown[] = [];
    context.run('a tenant', () => {
      for (let n = 0; n <= AT_ONCE; n++) turns.begin('a', () => seen.push(context.getStore()));
    });
    await nextTurn();
    expect(seen).toEqual(Array(AT_ONCE + 1).fill(undefined));
  });

  it('begin the next request only after everything that a request causes at once', async () => {
    const order: string[] = [];
    const turns = new LoopTurns();
    for (let n = 0; n < AT_ONCE; n++) turns.mayBegin();
    const begin = (item: string) => async () => {
      order.push(item);
      for (let step = 0; step < 3; step++) await Promise.resolve();
      order.push(`${item} done`);
    };
    for (const item of ['first', 'second']) turns.begin('a', begin(item));
    await nextTurn();
    expect(order).toEqual(['first', 'first done', 'second', 'second done']);
  });

  it('begin further requests after one that throws', async () => {
    const { turns, begun, arrive, arriveMany } = start();
    arriveMany('a', AT_ONCE);
    const thrown = Promise.withResolvers<unknown>();
    const listeners = process.listeners('uncaughtException');
    process.removeAllListeners('uncaughtException').once('uncaughtException', thrown.resolve);
    turns.begin('b', () => {
      throw new Error('a fault');
    });
    arrive('c');
    expect(await thrown.promise).toMatchObject({ message: 'a fault' });
    for (const listener of listeners) process.on('uncaughtException', listener);
    await expect.poll(() => begun.at(-1)).toBe('c');
  });
});
