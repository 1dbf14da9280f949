import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { describe, expect, it } from 'vitest';
import type { DocumentPage, ListedDocument, ListQuery, Write } from '../engine/port/port.ts';
import { ownWork } from '../work/scheduler.ts';
import { ExpirySweep, ROUND_PAGES_MAX } from './expiry-sweep.ts';

const TTL = { field: 'until', seconds: 0 };
const never = new AbortController().signal;

/**
 * Collections with pages of one document each, of which `x` has expired. Records which pages were read, and
 * what was removed.
 */
function start(pages: Readonly<Record<string, string>>) {
  const clock = new FakeClock();
  const checked: string[] = [];
  const removed: string[] = [];
  const store = {
    list: async ({ collection, after = 0 }: ListQuery): Promise<DocumentPage> => {
      checked.push(`${collection}${after}`);
      const kind = pages[collection]?.[after];
      const until = new Date(kind === 'x' ? clock.now() : clock.now() + 1_000).toISOString();
      const metadata = { _collection: collection, _id: `${collection}${after}`, _rev: 'r' };
      const document = { metadata, text: Buffer.from(JSON.stringify({ until })) } as ListedDocument;
      const next = after + 1 < (pages[collection]?.length ?? 0) ? after + 1 : undefined;
      return { documents: [document], unreadable: [], next };
    },
    commit: async (writes: readonly Write[]) => {
      removed.push(...writes.map(({ ref }) => ref.id));
      return [];
    },
  };
  const sweep = new ExpirySweep(store, clock, ownWork('p'), () =>
    Object.keys(pages).map((name) => [name, TTL]),
  );
  return { sweep, checked: () => checked.splice(0), removed };
}

describe('a sweep for expired documents', () => {
  it('checks a page of every collection in each round, and starts over at the end', async () => {
    const { sweep, checked } = start({ b: '...', a: '.' });
    const rounds: string[][] = [];
    for (let round = 0; round < 4; round++) {
      await sweep.sweepRound();
      rounds.push(checked());
    }
    expect(rounds).toEqual([
      ['b0', 'a0'],
      ['b1', 'a0'],
      ['b2', 'a0'],
      ['b0', 'a0'],
    ]);
  });

  it('removes nothing early when the clock is set forward, and no later than it should otherwise', async () => {
    const clock = new FakeClock();
    const until = new Date(clock.now() + 60_000).toISOString();
    const removed: string[] = [];
    const metadata = { _collection: 'a', _id: 'a0', _rev: 'r' };
    const store = {
      list: async (): Promise<DocumentPage> => {
        const document = { metadata, text: Buffer.from(JSON.stringify({ until })) } as ListedDocument;
        return { documents: [document], unreadable: [], next: undefined };
      },
      commit: async (writes: readonly Write[]) => {
        removed.push(...writes.map(({ ref }) => ref.id));
        return [];
      },
    };
    const sweep = new ExpirySweep(store, clock, ownWork('p'), () => [['a', TTL]]);
    clock.setWall(clock.now() + 86_400_000);
    await sweep.sweepRound();
    clock.setWall(clock.now() - 86_400_000);
    clock.advance(59_999);
    await sweep.sweepRound();
    expect(removed).toEqual([]);
    clock.advance(1);
    await sweep.sweepRound();
    expect(removed).toEqual(['a0']);
  });

  it('checks a bounded number of pages in each round, and takes turns among many collections', async () => {
    const names = Array.from({ length: 2 * ROUND_PAGES_MAX + 5 }, (_, n) => `c${n}`);
    const { sweep, checked } = start(
      Object.fromEntries(names.map((name) => [name, name === 'c3' ? 'xx.' : '.'])),
    );
    const rounds: string[][] = [];
    for (let round = 0; round < 3; round++) {
      await sweep.sweepRound();
      rounds.push(checked());
    }
    expect(rounds.map(({ length }) => length)).toEqual(Array(3).fill(ROUND_PAGES_MAX));
    expect(new Set(rounds.flat().map((look) => look.slice(0, -1)))).toEqual(new Set(names));
  });

  it('checks more pages in a round when some documents have expired', async () => {
    const { sweep, checked, removed } = start({ a: 'xx..', b: '.' });
    expect(await sweep.sweepRound()).toBe(2);
    expect([checked(), removed]).toEqual([
      ['a0', 'a1', 'a2', 'b0'],
      ['a0', 'a1'],
    ]);
  });

  it('checks each page once when it runs through, a bounded number at a time, whatever has expired', async () => {
    const { sweep, checked, removed } = start({ b: '.x', a: 'x..' });
    const first = await sweep.sweepAll(undefined, 2, never);
    expect(first).toEqual({ removed: 1, next: { collection: 'a', after: 2 } });
    const second = await sweep.sweepAll(first.next, 1, never);
    expect(second).toEqual({ removed: 0, next: { collection: 'b', after: 0 } });
    expect(await sweep.sweepAll(second.next, 9, never)).toEqual({ removed: 1, next: undefined });
    expect(checked()).toEqual(['a0', 'a1', 'a2', 'b0', 'b1']);
    expect(removed).toEqual(['a0', 'b1']);
  });

  it('says where to continue when it is stopped', async () => {
    const { sweep } = start({ a: '..' });
    const place = { collection: 'a', after: 1 };
    expect(await sweep.sweepAll(place, 9, AbortSignal.abort())).toEqual({ removed: 0, next: place });
  });
});
