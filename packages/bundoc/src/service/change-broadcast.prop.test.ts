import { AppError } from '@bundoc/shared/contract/app-error';
import { cursorSchema } from '@bundoc/shared/contract/cursor';
import type { ShareKey } from '@bundoc/shared/shares/share-key';
import { nextTurn } from '@bundoc/shared/testing/timing';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Scheduler } from '../work/scheduler.ts';
import type { Work } from '../work/work.ts';
import { ChangeBroadcast, type Follower, type SourcePage } from './change-broadcast.ts';
import { changeTexts, EventBatch } from './change-text.ts';
import type { FeedEvent, FeedPlace } from './read-changes.ts';

/** Its slices do not end, so that pages take the same turns each time. */
const unhurried = new Scheduler({ nowMs: () => 0 });

/** Every step takes a slice and waits for its turn. */
function hurried(): Scheduler {
  let nowMs = 0;
  return new Scheduler({
    nowMs: () => {
      nowMs += 1;
      return nowMs;
    },
  });
}

/** A feed in memory whose documents are overwritten repeatedly: each appears once, at its last change. */
class Feed {
  readonly #positions = new Map<string, number>();
  readonly #waiting = new Set<() => void>();
  /** The share of each page that was read. */
  readonly readers: string[] = [];
  /** The share of each piece of work. */
  readonly workers: string[] = [];
  readonly #scheduler: Scheduler;
  position = 0;

  constructor(scheduler = unhurried) {
    this.#scheduler = scheduler;
  }

  write(id: string): void {
    this.#positions.delete(id);
    this.#positions.set(id, ++this.position);
    for (const wake of this.#waiting) wake();
  }

  /** Number of those that wait for a change. */
  get waiting(): number {
    return this.#waiting.size;
  }

  get latest(): [string, number][] {
    return [...this.#positions];
  }

  work(share: ShareKey): Work {
    this.workers.push(share.subject);
    return this.#scheduler.work(share, 'changes');
  }

  async read({ position, horizon }: FeedPlace, { subject }: ShareKey): Promise<SourcePage> {
    this.readers.push(subject);
    const behind = this.latest.filter(([, at]) => at > position);
    const events = behind.slice(0, 3).map(
      ([id, at]): FeedEvent => ({
        change: { ref: { collection: 'c', id }, rev: `${at}`, deleted: false, position: at },
        text: undefined,
        isUnreadable: false,
      }),
    );
    const end = events.at(-1)?.change.position ?? Math.max(position, this.position);
    await nextTurn();
    const page = { position: end, horizon, more: behind.length > events.length };
    using work = unhurried.background('', 'changes');
    return { ...page, batch: new EventBatch({ ...page, events }, await changeTexts(events, work)) };
  }

  async wait({ position }: FeedPlace, signal: AbortSignal): Promise<boolean> {
    while (this.position <= position && !signal.aborted) {
      const { promise, resolve } = Promise.withResolvers<void>();
      signal.addEventListener('abort', () => resolve());
      this.#waiting.add(resolve);
      await promise;
      this.#waiting.delete(resolve);
    }
    return !signal.aborted;
  }
}

/** A reader that takes sent data only on request. */
class Reader {
  readonly received: [string, number][] = [];
  #sent: string[] = [];
  #isReading = true;
  #drained = Promise.withResolvers<void>();
  isClosed = false;
  readonly sentBytes = 0;
  /** Blocks that were sent while others waited. */
  overruns = 0;

  get needsDrain(): boolean {
    return this.#sent.length > 0;
  }

  send(blocks: string | Buffer): void {
    if (this.isClosed) return;
    if (this.needsDrain) this.overruns++;
    this.#sent.push(blocks.toString());
    if (this.#isReading) this.#take();
  }

  async drained(): Promise<void> {
    while (this.needsDrain && !this.isClosed) await this.#drained.promise;
  }

  read(isReading: boolean): void {
    this.#isReading = isReading;
    if (isReading) this.#take();
  }

  end(): void {
    this.isClosed = true;
    this.#drained.resolve();
  }

  cut(): void {
    this.end();
  }

  #take(): void {
    for (const block of this.#sent.splice(0).join('').split('\n\n')) {
      const [, id, type, data] = /^id: (.*)\nevent: (.*)\ndata: (.*)$/.exec(block) ?? [];
      if (type !== 'change') continue;
      const { position } = cursorSchema('changes').parse(id);
      this.received.push([(JSON.parse(String(data)) as { _id: string })._id, position]);
    }
    const drained = this.#drained;
    this.#drained = Promise.withResolvers();
    drained.resolve();
  }
}

const shareOf = (subject: string): ShareKey => ({ subject, project: 'p' });
type Step =
  | { readonly do: 'write'; readonly id: number }
  | { readonly do: 'join'; readonly from: number }
  | { readonly do: 'read' | 'stall' | 'leave'; readonly reader: number }
  | { readonly do: 'wait' };

const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 6, arbitrary: fc.record({ do: fc.constant('write' as const), id: fc.nat(8) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('join' as const), from: fc.nat(10) }) },
  {
    weight: 3,
    arbitrary: fc.record({ do: fc.constantFrom('read' as const, 'stall' as const), reader: fc.nat(4) }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('leave' as const), reader: fc.nat(4) }) },
  { weight: 4, arbitrary: fc.constant({ do: 'wait' as const }) },
);

describe('a broadcast of changes', () => {
  it('sends every reader each change after its position once and in order, whenever it reads or joins', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 60 }), fc.boolean(), async (steps, isHurried) => {
        const feed = new Feed(isHurried ? hurried() : unhurried);
        const failures: unknown[] = [];
        const broadcast = new ChangeBroadcast(feed, (error) => failures.push(error), nextTurn);
        const readers: { reader: Reader; follower: Follower; from: number }[] = [];
        // One stays, so that the broadcast does not end in between.
        const join = (from: number) => {
          const reader = new Reader();
          const place = { position: Math.min(from, feed.position), horizon: 0 };
          const share = shareOf(`s${readers.length % 3}`);
          const follower: Follower = { sink: reader, share, isAllowed: () => true, place };
          readers.push({ reader, follower, from: place.position });
          broadcast.add(follower);
        };
        join(0);
        for (const one of steps) {
          if (one.do === 'write') feed.write(`d${one.id}`);
          else if (one.do === 'join') join(one.from);
          else if (one.do === 'wait') for (let n = 0; n < 3; n++) await nextTurn();
          else {
            const chosen = readers[one.reader];
            if (one.do === 'leave') {
              if (chosen === undefined || one.reader === 0) continue;
              chosen.reader.end();
              broadcast.remove(chosen.follower);
            } else chosen?.reader.read(one.do === 'read');
          }
        }
        for (const { reader } of readers) reader.read(true);
        feed.write('last');
        const isDone = () =>
          readers.every(({ reader }) => reader.isClosed || reader.received.at(-1)?.[1] === feed.position);
        for (let n = 0; n < 2_000 && !isDone(); n++) await nextTurn();
        expect(isDone()).toBe(true);
        for (const { reader, from } of readers) {
          const positions = reader.received.map(([, at]) => at);
          expect(positions).toEqual([...new Set(positions)].sort((a, b) => a - b));
          expect(positions.every((at) => at > from)).toBe(true);
          expect(reader.overruns).toBe(0);
          if (reader.isClosed) continue;
          for (const [id, at] of feed.latest) if (at > from) expect(reader.received).toContainEqual([id, at]);
        }
        expect(failures).toEqual([]);
        broadcast.end();
      }),
      { numRuns: 150 },
    );
  });

  it('waits for no change once its last reader has left during a delivery', async () => {
    const feed = new Feed();
    const broadcast = new ChangeBroadcast(feed, () => undefined, nextTurn);
    const sink = new Reader();
    const place = { position: 0, horizon: 0 };
    const follower: Follower = { sink, share: shareOf('s'), isAllowed: () => true, place };
    broadcast.add(follower);
    for (let n = 0; n < 5; n++) await nextTurn();
    expect(feed.waiting).toBe(1);
    sink.send = () => {
      sink.end();
      broadcast.remove(follower);
    };
    feed.write('d');
    for (let n = 0; n < 10; n++) await nextTurn();
    expect([sink.isClosed, feed.waiting]).toEqual([true, 0]);
    broadcast.end();
  });

  it('reads each page once for all readers that have caught up', async () => {
    const feed = new Feed();
    const broadcast = new ChangeBroadcast(feed, () => undefined, nextTurn);
    const readers = Array.from({ length: 50 }, () => new Reader());
    for (const sink of readers)
      broadcast.add({ sink, share: shareOf('s'), isAllowed: () => true, place: { position: 0, horizon: 0 } });
    for (let n = 0; n < 5; n++) await nextTurn();
    const before = feed.readers.length;
    for (let n = 0; n < 10; n++) {
      feed.write(`d${n}`);
      for (let turns = 0; turns < 5; turns++) await nextTurn();
    }
    expect(feed.readers.length - before).toBe(10);
    for (const { received } of readers) expect(received).toHaveLength(10);
    broadcast.end();
  });

  it('reads each page once also for readers that have come while changes went on', async () => {
    const feed = new Feed();
    const broadcast = new ChangeBroadcast(feed, () => undefined, nextTurn);
    const readers: Reader[] = [];
    let writes = 0;
    const write = async () => {
      feed.write(`d${writes++}`);
      for (let turns = 0; turns < 2; turns++) await nextTurn();
    };
    for (let n = 0; n < 20; n++) {
      const sink = new Reader();
      readers.push(sink);
      const place = { position: Math.max(0, feed.position - (n % 3)), horizon: 0 };
      broadcast.add({ sink, share: shareOf('s'), isAllowed: () => true, place });
      await write();
    }
    for (let n = 0; n < 5; n++) await write();
    const before = feed.readers.length;
    for (let n = 0; n < 40; n++) await write();
    expect(feed.readers.length - before).toBeLessThanOrEqual(40);
    const last = readers.map(({ received }) => received.slice(-30));
    for (const one of last) expect(one).toEqual(last[0]);
    broadcast.end();
  });

  it('has readers pay in turn for shared pages, and each subject for what is sent to it', async () => {
    const feed = new Feed();
    const broadcast = new ChangeBroadcast(feed, () => undefined, nextTurn);
    const subjects = ['a', 'b', 'a', 'c'];
    for (const subject of subjects)
      broadcast.add({
        sink: new Reader(),
        share: shareOf(subject),
        isAllowed: () => true,
        place: { position: 0, horizon: 0 },
      });
    for (let n = 0; n < 5; n++) await nextTurn();
    feed.readers.length = 0;
    feed.workers.length = 0;
    for (let n = 0; n < 4; n++) {
      feed.write(`d${n}`);
      for (let turns = 0; turns < 5; turns++) await nextTurn();
    }
    expect(feed.readers.toSorted()).toEqual(subjects.toSorted());
    expect(feed.workers.toSorted().join('')).toBe('aaaabbbbcccc');
    broadcast.end();
  });

  it('sends a batch to some readers of a subject in each turn, without delaying others', async () => {
    const scheduler = hurried();
    const feed = new Feed(scheduler);
    const broadcast = new ChangeBroadcast(
      feed,
      () => undefined,
      async () => undefined,
    );
    const many = Array.from({ length: 40 }, () => new Reader());
    const one = new Reader();
    const follow = (sink: Reader, subject: string) =>
      broadcast.add({
        sink,
        share: shareOf(subject),
        isAllowed: () => true,
        place: { position: 0, horizon: 0 },
      });
    for (const sink of many) follow(sink, 'many');
    follow(one, 'one');
    for (let n = 0; n < 200; n++) await nextTurn();
    const before = scheduler.slices;
    feed.write('d');
    while (one.received.length === 0) await nextTurn();
    expect(many.filter(({ received }) => received.length > 0).length).toBeLessThan(10);
    while (many.some(({ received }) => received.length === 0)) await nextTurn();
    expect(scheduler.slices - before).toBeGreaterThanOrEqual(20);
    broadcast.end();
  });

  it('refers to no reader that has left while it waited', async () => {
    const feed = new Feed();
    feed.write('d');
    const broadcast = new ChangeBroadcast(feed, () => undefined, nextTurn);
    const follow = (): Follower => {
      const share = shareOf('s');
      const place = { position: 1, horizon: 0 };
      const follower: Follower = { sink: new Reader(), share, isAllowed: () => true, place };
      broadcast.add(follower);
      return follower;
    };
    follow();
    const left: Follower[] = [];
    for (let n = 0; n < 10; n++) {
      const follower = follow();
      for (let turns = 0; turns < 5; turns++) await nextTurn();
      broadcast.remove(follower);
      left.push(follower);
    }
    // A group asks each of its readers whether it is served.
    let asked = 0;
    for (const { sink } of left)
      Object.defineProperty(sink, 'isClosed', {
        get: () => {
          asked++;
          return true;
        },
      });
    feed.write('e');
    for (let turns = 0; turns < 10; turns++) await nextTurn();
    expect(asked).toBe(0);
    broadcast.end();
  });

  it('serves a reader that is behind beside one whose subject gets no capacity', async () => {
    const feed = new Feed();
    feed.write('d');
    const broadcast = new ChangeBroadcast(
      {
        read: (place, share) =>
          share.subject === 'refused'
            ? Promise.reject(new AppError('rate_limited'))
            : feed.read(place, share),
        wait: (place, signal) => feed.wait(place, signal),
        work: (share) => feed.work(share),
      },
      () => undefined,
      nextTurn,
    );
    const [refused, other] = [new Reader(), new Reader()];
    const place = { position: 0, horizon: 0 };
    broadcast.add({ sink: refused, share: shareOf('refused'), isAllowed: () => true, place });
    broadcast.add({ sink: other, share: shareOf('other'), isAllowed: () => true, place });
    for (let n = 0; n < 20; n++) await nextTurn();
    expect(other.received).toEqual([['d', 1]]);
    broadcast.end();
  });

  it('serves readers that are up to date beside one whose subject cannot wait for changes', async () => {
    const feed = new Feed();
    const broadcast = new ChangeBroadcast(
      {
        read: (place, share) => feed.read(place, share),
        wait: async (place, signal, share) => {
          if (share.subject !== 'refused') return await feed.wait(place, signal);
          // So long that others join it.
          for (let n = 0; n < 5; n++) await nextTurn();
          throw new AppError('rate_limited');
        },
        work: (share) => feed.work(share),
      },
      () => undefined,
      nextTurn,
    );
    const sinks = { refused: new Reader(), other: new Reader() };
    for (const [subject, sink] of Object.entries(sinks))
      broadcast.add({
        sink,
        share: shareOf(subject),
        isAllowed: () => true,
        place: { position: 0, horizon: 0 },
      });
    for (let n = 0; n < 20; n++) await nextTurn();
    feed.write('d');
    for (let n = 0; n < 20; n++) await nextTurn();
    expect(sinks.other.received).toEqual([['d', 1]]);
    broadcast.end();
  });

  it('reads each page once also for readers whose cursors have different horizons', async () => {
    const feed = new Feed();
    feed.write('d');
    const broadcast = new ChangeBroadcast(feed, () => undefined, nextTurn);
    for (let n = 0; n < 10; n++)
      broadcast.add({
        sink: new Reader(),
        share: shareOf('s'),
        isAllowed: () => true,
        place: { position: 1, horizon: 1_000 + n },
      });
    for (let n = 0; n < 20; n++) await nextTurn();
    const before = feed.readers.length;
    feed.write('e');
    for (let n = 0; n < 10; n++) await nextTurn();
    expect(feed.readers.length - before).toBe(1);
    broadcast.end();
  });

  it('sends a page to other subjects while the only one that got the page before has no turn', async () => {
    const feed = new Feed();
    let isStalled = false;
    const stalledWork = {
      pause: () => new Promise<void>(() => undefined),
      [Symbol.dispose]: () => undefined,
    };
    const broadcast = new ChangeBroadcast(
      {
        read: (place, share) => feed.read(place, share),
        wait: (place, signal) => feed.wait(place, signal),
        work: (share) =>
          isStalled && share.subject === 'starved' ? (stalledWork as unknown as Work) : feed.work(share),
      },
      () => undefined,
      nextTurn,
    );
    const [starved, other] = [new Reader(), new Reader()];
    broadcast.add({
      sink: starved,
      share: shareOf('starved'),
      isAllowed: () => true,
      place: { position: 0, horizon: 0 },
    });
    for (let n = 0; n < 5; n++) await nextTurn();
    isStalled = true;
    feed.write('a');
    for (let n = 0; n < 5; n++) await nextTurn();
    broadcast.add({
      sink: other,
      share: shareOf('other'),
      isAllowed: () => true,
      place: { position: 1, horizon: 0 },
    });
    for (let n = 0; n < 5; n++) await nextTurn();
    feed.write('b');
    for (let n = 0; n < 20; n++) await nextTurn();
    expect(other.received).toEqual([['b', 2]]);
    broadcast.end();
  });

  it('ends only the streams whose position is gone', async () => {
    const feed = new Feed();
    feed.write('a');
    feed.write('b');
    const broadcast = new ChangeBroadcast(
      {
        read: (place, share) =>
          place.position === 1 ? Promise.reject(new AppError('position_gone')) : feed.read(place, share),
        wait: (place, signal) => feed.wait(place, signal),
        work: (share) => feed.work(share),
      },
      () => undefined,
      nextTurn,
    );
    const [late, other] = [new Reader(), new Reader()];
    for (const [sink, position] of [[other, 0] as const, [late, 1] as const])
      broadcast.add({ sink, share: shareOf('s'), isAllowed: () => true, place: { position, horizon: 0 } });
    for (let n = 0; n < 10; n++) await nextTurn();
    expect([late.isClosed, other.isClosed]).toEqual([true, false]);
    broadcast.end();
  });

  it('ends all its streams when the feed is unreadable', async () => {
    const feed = new Feed();
    const failures: unknown[] = [];
    const broadcast = new ChangeBroadcast(
      {
        read: () => Promise.reject(new Error('gone')),
        wait: (place, signal) => feed.wait(place, signal),
        work: (share) => feed.work(share),
      },
      (error) => failures.push(error),
      nextTurn,
    );
    const sink = new Reader();
    broadcast.add({ sink, share: shareOf('s'), isAllowed: () => true, place: { position: 0, horizon: 0 } });
    await nextTurn();
    expect([sink.isClosed, failures.length]).toEqual([true, 1]);
  });
});
