import { AppError } from '@bundoc/shared/contract/app-error';
import { describe, expect, it } from 'vitest';
import type { Change, StoredDocument } from '../engine/port/port.ts';
import { SlowSteps } from '../testing/slow-steps.ts';
import { ownWork } from '../work/scheduler.ts';
import { changeTexts } from './change-text.ts';
import * as feed from './read-changes.ts';

const rev = (position: number) => String(position).padStart(24, '0');

function change(position: number, collection = 'notes', deleted = false): Change {
  return { ref: { collection, id: `d${position}` }, rev: rev(position), deleted, position };
}

function document({ ref, rev: _rev }: Change, text = '{}'): StoredDocument {
  const times = { _created: '', _updated: '' };
  return { metadata: { _id: ref.id, _collection: ref.collection, _rev, ...times }, text: Buffer.from(text) };
}

/** A store with these changes, whose documents `get` returns. */
function storeOf(changes: readonly Change[], get: (change: Change) => StoredDocument | undefined = document) {
  let pages = 0;
  return {
    pages: () => pages,
    changes: async (after: number, limit: number, horizon = 0) => {
      pages++;
      const page = changes.filter(({ position }) => position > after).slice(0, limit);
      const last = changes.at(-1)?.position ?? 0;
      return { changes: page, position: page.at(-1)?.position ?? Math.max(after, last), horizon };
    },
    get: async ({ id }: { id: string }) => {
      const found = changes.find(({ ref }) => ref.id === id);
      return found && get(found);
    },
  };
}

type Args = Parameters<typeof feed.readChanges> extends [...infer A, unknown] ? A : never;
/** Alone: no other work makes it wait. */
const readChanges = (...args: Args) => feed.readChanges(...args, ownWork()('changes'));

const start = { position: 0, horizon: 0 };
const all = { collection: undefined, documents: false };
const limits = { limit: 100, bytesMax: 1_000_000 };

describe('a page of the feed', () => {
  it('a page of changes in a rare collection ends after a bounded number of changes, at a position that makes progress', async () => {
    const others = Array.from({ length: 25_000 }, (_, n) => change(n + 1, 'other'));
    const store = storeOf([...others, change(25_001)]);
    const found: number[] = [];
    let place = start;
    const mores: boolean[] = [];
    for (let more = true; more; ) {
      const page = await readChanges(store, place, { collection: 'notes', documents: false }, limits);
      found.push(...page.events.map((event) => event.change.position));
      mores.push(page.more);
      ({ more } = page);
      place = page;
    }
    expect([found, mores, place.position]).toEqual([[25_001], [true, true, false], 25_001]);
    expect(store.pages()).toBe(26);
  });

  it('ends before the first change without space', async () => {
    const store = storeOf([change(1), change(2, 'other'), change(3), change(4)]);
    const page = await readChanges(
      store,
      start,
      { collection: 'notes', documents: false },
      { ...limits, limit: 2 },
    );
    expect(page.events.map((event) => event.change.position)).toEqual([1, 3]);
    expect([page.position, page.more]).toEqual([3, true]);
  });

  it('ends early when its documents are large, but always has at least one', async () => {
    const changes = [1, 2, 3].map((position) => change(position));
    const store = storeOf(changes, (one) => document(one, 'x'.repeat(100)));
    const filter = { collection: undefined, documents: true };
    const page = await readChanges(store, start, filter, { limit: 100, bytesMax: 150 });
    expect([page.events.length, page.position, page.more]).toEqual([2, 2, true]);
    const one = await readChanges(store, start, filter, { limit: 100, bytesMax: 1 });
    expect([one.events.length, one.position, one.more]).toEqual([1, 1, true]);
  });

  it('reads only a few documents more than fit when they are large', async () => {
    const changes = Array.from({ length: 40 }, (_, n) => change(n + 1));
    let read = 0;
    const store = storeOf(changes, (one) => {
      read++;
      return document(one, 'x'.repeat(100));
    });
    const page = await readChanges(
      store,
      start,
      { collection: undefined, documents: true },
      { limit: 100, bytesMax: 1_000 },
    );
    expect([page.events.length, read]).toEqual([10, 11]);
  });

  it('omits a document that has changed or gone since, and moves past it', async () => {
    const changes = [change(1), change(2), change(3)];
    const newer = document({ ...change(1), rev: rev(9) });
    const store = storeOf(changes, (one) =>
      one.position === 1 ? newer : one.position === 2 ? undefined : document(one),
    );
    const page = await readChanges(store, start, { ...all, documents: true }, limits);
    expect(page.events.map((event) => event.change.position)).toEqual([3]);
    expect([page.position, page.more]).toEqual([3, false]);
  });

  it('reports an undecryptable document and continues; any other failure is thrown', async () => {
    const damaged = (code: 'integrity_error' | 'storage_unavailable') =>
      storeOf([change(1), change(2)], (one) => {
        if (one.position === 1) throw new AppError(code);
        return document(one);
      });
    const filter = { ...all, documents: true };
    const page = await readChanges(damaged('integrity_error'), start, filter, limits);
    expect(page.events.map(({ isUnreadable, text }) => [isUnreadable, text?.length])).toEqual([
      [true, undefined],
      [false, 2],
    ]);
    await expect(readChanges(damaged('storage_unavailable'), start, filter, limits)).rejects.toMatchObject({
      code: 'storage_unavailable',
    });
  });

  it.each(['in memory', 'in the storage'])('yields between any two documents that are %s', async (where) => {
    const changes = Array.from({ length: 50 }, (_, n) => change(n + 1));
    const stored = storeOf(changes);
    const store =
      where === 'in memory'
        ? {
            ...stored,
            get: ({ id }: { id: string }) => document(changes[Number(id.slice(1)) - 1] as Change),
          }
        : stored;
    const steps = new SlowSteps();
    using work = steps.work('changes');
    const page = await feed.readChanges(store, start, { ...all, documents: true }, limits, work);
    expect(page.events).toHaveLength(50);
    expect(steps.turns).toBeGreaterThanOrEqual(50);
  });
});

describe('the text of a page', () => {
  it('is composed change by change, with large documents piece by piece, yielding in between', async () => {
    const lines = (count: number) => Buffer.from(`{"v":[${Array(count).fill('1').join(',\r\n')}]}`);
    const eventOf = (position: number, text: Buffer) => ({
      change: change(position),
      text,
      isUnreadable: false,
    });
    const large = lines(300_000);
    const events = [...Array.from({ length: 20 }, (_, n) => eventOf(n + 1, lines(3))), eventOf(21, large)];
    const steps = new SlowSteps();
    using work = steps.work('changes');
    const texts = await changeTexts(events, work);
    expect(steps.turns).toBeGreaterThanOrEqual(21 + large.length / 262_144);
    for (const [at, text] of texts.entries()) {
      expect(text.includes('\n') || text.includes('\r')).toBe(false);
      const { doc } = JSON.parse(text.toString()) as { doc: unknown };
      expect(doc).toEqual(JSON.parse(String(events[at]?.text)));
    }
  });
});
