import type { Pool } from '@bundoc/shared/admission/pool';
import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import type { Logger } from '@bundoc/shared/logs/logger';
import type { Clock } from '@bundoc/shared/runtime/clock';
import { type Places, runInShare, shareIn } from '@bundoc/shared/shares/share-key';
import type { Position, ProjectStore } from '../engine/port/port.ts';
import type { InstanceManager } from '../projects/instance-manager.ts';
import type { Scheduler } from '../work/scheduler.ts';
import { createServiceShares } from '../work/service-shares.ts';
import type { Work } from '../work/work.ts';
import { ChangeBroadcast, type Follower, type SourcePage } from './change-broadcast.ts';
import { changeTexts, EventBatch, heartbeatOf } from './change-text.ts';
import {
  type FeedFilter,
  type FeedLimits,
  type FeedPage,
  type FeedPlace,
  readChanges,
} from './read-changes.ts';

export interface ChangeFeedOptions {
  readonly instances: Pick<InstanceManager, 'acquire' | 'waitForChange'>;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly scheduler: Pick<Scheduler, 'work'>;
  /** The places of waiting readers. */
  readonly streams?: Pool;
  /** The places of pages being read. */
  readonly pageReads?: Pool;
}

/** The start of a reader: after a position, or at new changes only. */
export type Since = FeedPlace | 'now';

/** Interval of heartbeats in a stream, milliseconds. */
export const HEARTBEAT_MS = 15_000;
/** A reader that takes fewer bytes in this many milliseconds while more wait for it is cut off. */
export const STALLED_MS = 30_000;
export const STALLED_BYTES = 32_768;
const RESTART_HINT = 'read everything again without "since", and forget the documents that do not come';
/** Limits of one batch of a stream; a reader has at most one unread batch. */
const BATCH_LIMITS: FeedLimits = { limit: 1_000, bytesMax: 262_144 };

interface ProjectFeed {
  /** Number of waiting pages and streams. */
  waiting: number;
  /** By filter. */
  readonly broadcasts: Map<string, ChangeBroadcast>;
  /** Ends all of them. */
  readonly ending: AbortController;
}

/**
 * The change feeds of all projects: pages, long polls and streams. Readers do not keep a project open: while
 * it is closed, they wait until someone opens it.
 */
export class ChangeFeed {
  readonly #options: ChangeFeedOptions;
  readonly #projects = new Map<string, ProjectFeed>();
  /** For readers with waiting bytes: when they began to take few. */
  readonly #slowSince = new WeakMap<Follower, { readonly ms: number; readonly sentBytes: number }>();
  readonly #streams: Pool;
  readonly #pageReads: Pool;
  #heartbeatAtMs: number;
  #isClosed = false;

  constructor(options: ChangeFeedOptions) {
    this.#options = options;
    const { streams, pageReads } = createServiceShares();
    this.#streams = options.streams ?? streams;
    this.#pageReads = options.pageReads ?? pageReads;
    this.#heartbeatAtMs = options.clock.monotonic();
  }

  /** Number of waiting readers. */
  get waiting(): number {
    return this.#streams.held;
  }

  /**
   * Reads a page immediately. @throws AppError `position_gone`, `project_not_found`, and those of the store.
   */
  async page(project: string, since: Since, filter: FeedFilter, limits: FeedLimits): Promise<FeedPage> {
    using work = this.#options.scheduler.work(shareIn(project), 'changes');
    return await this.#page(project, since, filter, limits, work);
  }

  #page(
    project: string,
    since: Since,
    filter: FeedFilter,
    limits: FeedLimits,
    work: Work,
  ): Promise<FeedPage> {
    return this.#withStore(project, async (store) => {
      const place = await resolvePlace(store, since);
      // Released during waits for the processor before the first read.
      using _place = await work.outside(() => this.#pageReads.take(shareIn(project), 1));
      return await readChanges(store, place, filter, limits, work);
    });
  }

  async #batch(project: string, from: FeedPlace, filter: FeedFilter): Promise<SourcePage> {
    using work = this.#options.scheduler.work(shareIn(project), 'changes');
    const page = await this.#page(project, from, filter, BATCH_LIMITS, work);
    const { position, horizon, more } = page;
    return { position, horizon, more, batch: new EventBatch(page, await changeTexts(page.events, work)) };
  }

  /**
   * Returns a page as soon as it has a change. It returns an empty one when the time is up, the signal
   * aborts, or the feed ends.
   *
   * @param requireAllowed throws when the caller may no longer read the changes.
   * @param places at the gate, which it gives back during waits.
   * @throws AppError `rate_limited`, `overloaded` when too many wait; and as {@link page}.
   */
  async nextPage(
    project: string,
    since: Since,
    filter: FeedFilter,
    limits: FeedLimits,
    {
      signal,
      waitMs,
      requireAllowed,
      places,
    }: {
      signal: AbortSignal;
      waitMs: number;
      requireAllowed: () => unknown;
      places: Places | undefined;
    },
  ): Promise<FeedPage> {
    using place = this.reserve(project);
    const stop = new AbortController();
    const abort = () => stop.abort();
    const timer = setTimeout(abort, waitMs);
    for (const other of [signal, place.ending]) other.addEventListener('abort', abort, { once: true });
    if (signal.aborted || place.ending.aborted) abort();
    try {
      for (let from = since; ; ) {
        const page = await this.page(project, from, filter, limits);
        if (page.events.length > 0 || page.more || stop.signal.aborted) return page;
        from = { position: page.position, horizon: page.horizon };
        places?.leave();
        await this.#options.instances.waitForChange(project, from.position, stop.signal);
        await places?.enter();
        await requireAllowed();
      }
    } finally {
      clearTimeout(timer);
      for (const other of [signal, place.ending]) other.removeEventListener('abort', abort);
    }
  }

  /**
   * Takes a place for a waiting reader, until it is disposed.
   *
   * @throws AppError `rate_limited` when the token or the project has used up its share, `overloaded` when
   *   all places are taken.
   */
  reserve(project: string): Disposable & { readonly ending: AbortSignal } {
    if (this.#isClosed) throw new AppError('overloaded', { detail: 'the server is stopping' });
    const feed = this.#feedOf(project);
    const key = shareIn(project);
    const hold = this.#streams.tryTake(key, 1);
    if (hold === undefined) throw this.#streams.refusal(key, 1);
    this.#projects.set(project, feed);
    feed.waiting++;
    let isHeld = true;
    return {
      ending: feed.ending.signal,
      [Symbol.dispose]: () => {
        if (!isHeld) return;
        isHeld = false;
        hold[Symbol.dispose]();
        if (--feed.waiting === 0 && this.#projects.get(project) === feed) this.#projects.delete(project);
      },
    };
  }

  /** The starting position of a stream, after a check that it is valid. @throws as {@link page}. */
  async begin(project: string, since: Since): Promise<FeedPlace> {
    return this.#withStore(project, async (store) => {
      const place = await resolvePlace(store, since);
      const { horizon } = await store.changes(place.position, 1, place.horizon);
      return { position: place.position, horizon };
    });
  }

  /**
   * Sends everything after its position to a follower. The stream ends when its sink is closed, its token
   * ends, the project's key is revoked or the service stops. The caller has {@link reserve}d a place, and
   * calls the returned function once the sink is closed.
   */
  follow(project: string, filter: FeedFilter, follower: Follower): () => void {
    const feed = this.#feedOf(project);
    const about = `${filter.documents ? 'doc' : 'rev'}/${filter.collection ?? ''}`;
    const broadcast = feed.broadcasts.get(about) ?? this.#broadcastOf(project, filter);
    feed.broadcasts.set(about, broadcast);
    broadcast.add(follower);
    return () => {
      broadcast.remove(follower);
      if (broadcast.isEmpty && feed.broadcasts.get(about) === broadcast) feed.broadcasts.delete(about);
    };
  }

  /** Ends all readers of a project whose key was revoked. They may reconnect, and then get the error. */
  end(project: string): void {
    const feed = this.#projects.get(project);
    if (feed === undefined) return;
    this.#projects.delete(project);
    feed.ending.abort();
    for (const broadcast of feed.broadcasts.values()) broadcast.end();
  }

  /** Ends everything. Call it before the listener closes, which would wait for the streams. */
  close(): void {
    this.#isClosed = true;
    this.endAll();
  }

  /** {@link end} for every project. */
  endAll(): void {
    for (const project of [...this.#projects.keys()]) this.end(project);
  }

  /**
   * Checks the streams: ends those with an expired token, and cuts off stalled ones. Call it about once a
   * second.
   */
  tick(): void {
    const nowMs = this.#options.clock.monotonic();
    const isHeartbeat = nowMs - this.#heartbeatAtMs >= HEARTBEAT_MS;
    if (isHeartbeat) this.#heartbeatAtMs = nowMs;
    const all = [...this.#projects.values()].flatMap(({ broadcasts }) =>
      [...broadcasts.values()].flatMap(({ followers }) => [...followers]),
    );
    for (const follower of all) this.#check(follower, nowMs);
    if (!isHeartbeat) return;
    for (const followers of Map.groupBy(all, ({ share }) => share.subject).values())
      void this.#sendHeartbeats(followers).catch(() => undefined);
  }

  /**
   * Sends a heartbeat to the readers of one subject, as one task of it. Rejects when there is no turn for it;
   * the next heartbeat follows.
   */
  async #sendHeartbeats(followers: readonly Follower[]): Promise<void> {
    using work = this.#options.scheduler.work((followers[0] as Follower).share, 'changes');
    for (const { sink, place } of followers) {
      const turn = work.pause();
      if (turn !== undefined) await turn;
      if (!sink.isClosed && !sink.needsDrain) sink.send(heartbeatOf(place));
    }
  }

  #check(follower: Follower, nowMs: number): void {
    const { sink, isAllowed } = follower;
    if (!isAllowed()) sink.end();
    if (!sink.needsDrain) {
      this.#slowSince.delete(follower);
      return;
    }
    const { sentBytes } = sink;
    const since = this.#slowSince.get(follower);
    if (since === undefined || sentBytes - since.sentBytes >= STALLED_BYTES)
      this.#slowSince.set(follower, { ms: nowMs, sentBytes });
    else if (nowMs - since.ms >= STALLED_MS) sink.cut();
  }

  #feedOf(project: string): ProjectFeed {
    const known = this.#projects.get(project);
    return known ?? { waiting: 0, broadcasts: new Map(), ending: new AbortController() };
  }

  #broadcastOf(project: string, filter: FeedFilter): ChangeBroadcast {
    const { instances, logger, scheduler } = this.#options;
    return new ChangeBroadcast(
      {
        read: (place, share) => runInShare(share, () => this.#batch(project, place, filter)),
        wait: ({ position }, signal, share) =>
          runInShare(share, () => instances.waitForChange(project, position, signal)),
        work: (share) => scheduler.work(share, 'changes'),
      },
      (error) => logger.info({ err: error, project }, 'the streams of changes of a project ended'),
    );
  }

  async #withStore<T>(project: string, action: (store: ProjectStore) => Promise<T>): Promise<T> {
    using lease = await this.#options.instances.acquire(project, 'existing');
    if (lease === undefined) throw new AppError('project_not_found');
    try {
      return await action(lease.store);
    } catch (error) {
      if (hasCode(error, 'position_gone'))
        throw new AppError('position_gone', { detail: RESTART_HINT, cause: error });
      throw error;
    }
  }
}

async function resolvePlace(store: ProjectStore, since: Since): Promise<FeedPlace> {
  if (since !== 'now') return since;
  const position: Position = await store.position();
  return { position, horizon: position };
}
