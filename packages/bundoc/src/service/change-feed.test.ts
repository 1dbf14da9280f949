import { Pool } from '@bundoc/shared/admission/pool';
import { AppError } from '@bundoc/shared/contract/app-error';
import { createLogger } from '@bundoc/shared/logs/logger';
import { runInShare } from '@bundoc/shared/shares/share-key';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { nextTurn } from '@bundoc/shared/testing/timing';
import { describe, expect, it, onTestFinished } from 'vitest';
import type { ProjectStore } from '../engine/port/port.ts';
import { Scheduler } from '../work/scheduler.ts';
import type { Follower } from './change-broadcast.ts';
import { ChangeFeed, HEARTBEAT_MS, STALLED_BYTES, STALLED_MS } from './change-feed.ts';

/** A feed over a project without changes. */
function start() {
  const clock = new FakeClock();
  const store = {
    changes: async (position: number, _limit: number, horizon = 0) => ({ changes: [], position, horizon }),
    position: async () => 7,
  } as unknown as ProjectStore;
  const feed = new ChangeFeed({
    instances: {
      acquire: (async () => ({ store, [Symbol.dispose]: () => undefined })) as never,
      waitForChange: (_project, _after, signal) =>
        new Promise((resolve) => {
          if (signal.aborted) resolve(false);
          signal.addEventListener('abort', () => resolve(false));
        }),
    },
    clock,
    logger: createLogger({ service: 'bundoc', level: 'silent' }),
    scheduler: new Scheduler(),
    streams: new Pool({ name: 'streams', capacity: 32, subjectMax: 8, projectMax: 4, waitMs: 0, clock }),
  });
  return { clock, feed, store };
}

function follower() {
  const sent: string[] = [];
  const states: string[] = [];
  const state = { needsDrain: false, sentBytes: 0, isAllowed: true };
  const one: Follower = {
    sink: {
      send: (blocks) => {
        sent.push(blocks.toString());
      },
      get needsDrain() {
        return state.needsDrain;
      },
      get sentBytes() {
        return state.sentBytes;
      },
      drained: async () => undefined,
      get isClosed() {
        return states.length > 0;
      },
      end: () => states.push('ended'),
      cut: () => states.push('cut'),
    },
    share: { subject: 's', project: 'p' },
    isAllowed: () => state.isAllowed,
    place: { position: 7, horizon: 0 },
  };
  return { one, sent, states, state };
}

/** A feed with a reader for whom bytes wait. */
async function startWithSlowReader() {
  const { clock, feed } = start();
  const place = feed.reserve('p');
  onTestFinished(() => place[Symbol.dispose]());
  const { one, states, state } = follower();
  feed.follow('p', all, one);
  await nextTurn();
  state.needsDrain = true;
  return { clock, feed, states, state };
}

const all = { collection: undefined, documents: false };
const limits = { limit: 10, bytesMax: 1_000 };
const never = new AbortController().signal;
const noRoom = { places: undefined };
const waitOf = (waitMs: number) => ({ ...noRoom, signal: never, waitMs, requireAllowed: () => undefined });

describe('the feeds of changes', () => {
  it('say how to restart when a position is too old', async () => {
    const { feed, store } = start();
    store.changes = () => Promise.reject(new AppError('position_gone'));
    const old = { position: 1, horizon: 0 };
    for (const ask of [() => feed.page('p', old, all, limits), () => feed.begin('p', old)])
      await expect(ask()).rejects.toMatchObject({
        code: 'position_gone',
        detail: expect.stringContaining('since'),
      });
  });

  it('have a fixed number of places, of which a subject gets a quarter and a project an eighth', () => {
    const { feed } = start();
    const reserve = (subject: string, project: string) =>
      runInShare({ subject, project }, () => feed.reserve(project));
    const refusal = (code: string, detail: string) => expect.objectContaining({ code, detail });
    const own = (held: string) => refusal('rate_limited', `your share of streams is in use: ${held}`);
    const places = Array.from({ length: 4 }, () => reserve('a', 'p'));
    expect(() => reserve('a', 'p')).toThrow(own('4 of 32, 4 of them by this project'));
    for (let n = 0; n < 4; n++) places.push(reserve('a', `p-${n}`));
    expect(() => reserve('a', 'q')).toThrow(own('8 of 32, 0 of them by this project'));
    for (const subject of ['b', 'c', 'd'])
      for (let n = 0; n < 8; n++) places.push(reserve(subject, `p-${n}`));
    expect(() => reserve('e', 'p')).toThrow(refusal('overloaded', 'the service has no streams to spare'));
    places[0]?.[Symbol.dispose]();
    places[0]?.[Symbol.dispose]();
    expect(feed.waiting).toBe(31);
    places.push(reserve('e', 'p'));
    for (const place of places) place[Symbol.dispose]();
    expect(feed.waiting).toBe(0);
  });

  it('end a stream with an expired token', async () => {
    const { feed } = start();
    using _place = feed.reserve('p');
    const { one, states, state } = follower();
    feed.follow('p', all, one);
    await nextTurn();
    feed.tick();
    expect(states).toEqual([]);
    state.isAllowed = false;
    feed.tick();
    expect(states).toEqual(['ended']);
  });

  it('cut off a stalled reader, and no other', async () => {
    const { clock, feed, states, state } = await startWithSlowReader();
    feed.tick();
    clock.advance(STALLED_MS - 1);
    feed.tick();
    state.needsDrain = false;
    feed.tick();
    state.needsDrain = true;
    clock.advance(STALLED_MS - 1);
    feed.tick();
    expect(states).toEqual([]);
    clock.advance(STALLED_MS);
    feed.tick();
    expect(states).toEqual(['cut']);
  });

  it('do not cut off a slow reader that keeps reading, however often bytes wait for it', async () => {
    const { clock, feed, states, state } = await startWithSlowReader();
    for (let n = 0; n < 5; n++) {
      feed.tick();
      clock.advance(STALLED_MS);
      state.sentBytes += STALLED_BYTES;
    }
    feed.tick();
    expect(states).toEqual([]);
    clock.advance(STALLED_MS);
    state.sentBytes += STALLED_BYTES - 1;
    feed.tick();
    expect(states).toEqual(['cut']);
  });

  it('send each stream a heartbeat at the start and periodically', async () => {
    const { clock, feed } = start();
    using _place = feed.reserve('p');
    const { one, sent } = follower();
    feed.follow('p', all, one);
    await nextTurn();
    feed.tick();
    expect(sent).toHaveLength(1);
    clock.advance(HEARTBEAT_MS);
    feed.tick();
    feed.tick();
    expect(sent).toHaveLength(2);
    expect(sent[1]).toMatch(/^id: \S+\nevent: heartbeat\ndata: \{\}\n\n$/);
  });

  it('end with their project, including long polls, and leave other projects alone', async () => {
    const { feed } = start();
    const [mine, other] = [follower(), follower()];
    using _place = feed.reserve('p');
    using _other = feed.reserve('q');
    feed.follow('p', all, mine.one);
    feed.follow('q', all, other.one);
    const poll = feed.nextPage('p', 'now', all, limits, waitOf(3_600_000));
    await nextTurn();
    feed.end('p');
    expect([mine.states, other.states]).toEqual([['ended'], []]);
    expect(await poll).toMatchObject({ events: [], position: 7 });
  });

  it('end with their project even if another reader of it has left before', () => {
    const { feed } = start();
    const places = [feed.reserve('p'), feed.reserve('p')];
    places[0]?.[Symbol.dispose]();
    feed.end('p');
    expect(places[1]?.ending.aborted).toBe(true);
    places[1]?.[Symbol.dispose]();
  });

  it('end when the service stops, and accept no more readers', async () => {
    const { feed } = start();
    using _place = feed.reserve('p');
    const { one, states } = follower();
    const leave = feed.follow('p', all, one);
    const poll = feed.nextPage('p', 'now', all, limits, waitOf(3_600_000));
    await nextTurn();
    feed.close();
    leave();
    expect(states).toEqual(['ended']);
    expect((await poll).events).toEqual([]);
    expect(() => feed.reserve('p')).toThrow(expect.objectContaining({ code: 'overloaded' }));
  });

  it('return nothing to a long poll whose token has expired in the meantime', async () => {
    const { feed } = start();
    const stop = new AbortController();
    const poll = feed.nextPage('p', 'now', all, limits, {
      ...noRoom,
      signal: stop.signal,
      waitMs: 3_600_000,
      requireAllowed: () => Promise.reject(new Error('over')),
    });
    await nextTurn();
    stop.abort();
    await expect(poll).rejects.toThrow('over');
    expect(feed.waiting).toBe(0);
  });
});
