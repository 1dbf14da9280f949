import { setTimeout as sleep } from 'node:timers/promises';
import { hasCode } from '@bundoc/shared/contract/app-error';
import type { EventSink } from '@bundoc/shared/http/event-stream';
import type { ShareKey } from '@bundoc/shared/shares/share-key';
import type { Work } from '../work/work.ts';
import { type EventBatch, heartbeatOf } from './change-text.ts';
import type { FeedPlace } from './read-changes.ts';

/** An encoded page; it ends at its position. */
export interface SourcePage extends FeedPlace {
  readonly batch: EventBatch;
  /** Whether the feed's page has more. */
  readonly more: boolean;
}

/** The source of a broadcast: one project's feed with one filter. */
export interface ChangeSource {
  /**
   * Reads a page after a position, charged to a share. Throws when the feed is over: the project is gone or
   * its key revoked.
   */
  read(place: FeedPlace, share: ShareKey): Promise<SourcePage>;
  /** Resolves once there is a change after a position. @returns false when the signal was aborted. */
  wait(place: FeedPlace, signal: AbortSignal, share: ShareKey): Promise<boolean>;
  /** Returns work that is charged to a share. */
  work(share: ShareKey): Work;
}

/** One reader of a stream. */
export interface Follower {
  readonly sink: EventSink;
  /** The share that pays for its own reads, and for sending to it. */
  readonly share: ShareKey;
  /** False once its token has ended. */
  readonly isAllowed: () => boolean;
  /** The position up to which everything was sent. */
  place: FeedPlace;
}

/**
 * Minimum time to gather changes before the next batch, milliseconds. The first batch after a pause is sent
 * at once. Each batch costs a write for every reader, which is most of a reader's cost. So expensive batches
 * are less frequent.
 */
const GATHER_MS = 10;
/** Maximum time to gather changes, milliseconds. */
const GATHER_MS_MAX = 25;
/** Pause before a retry after a lack of capacity, milliseconds. */
const RETRY_MS = 1_000;
/** After a batch, this multiple of its duration is left for other work, up to that maximum. */
const SHARE = 4;
/**
 * Time that the next batch waits while subjects get their turns for this one, milliseconds. Readers without a
 * turn by then catch up separately.
 */
const TURNS_MS_MAX = 1_000;

/**
 * Sends the changes of one source to all followers. Followers that are up to date share each batch, which is
 * read, decrypted and encoded once. A follower that is behind reads separate pages, each after the previous
 * one was sent, until it has caught up. So only one page is held for it.
 *
 * Sending is charged to the reader's share, in its turn of the processor. Readers take turns to pay for the
 * shared batches.
 */
export class ChangeBroadcast {
  readonly #source: ChangeSource;
  readonly #onFailure: (error: unknown) => void;
  readonly #pause: (ms: number, signal?: AbortSignal) => Promise<void>;
  /** All followers, and those that have everything up to `#place` or more. */
  readonly #followers = new Set<Follower>();
  readonly #live = new Set<Follower>();
  readonly #stopping = new AbortController();
  #place: FeedPlace | undefined;

  constructor(
    source: ChangeSource,
    onFailure: (error: unknown) => void,
    pause: (ms: number, signal?: AbortSignal) => Promise<void> = pauseFor,
  ) {
    this.#source = source;
    this.#onFailure = onFailure;
    this.#pause = pause;
  }

  get isEmpty(): boolean {
    return this.#followers.size === 0;
  }

  get followers(): Iterable<Follower> {
    return this.#followers;
  }

  /** The {@link followers} that are up to date. */
  get live(): Iterable<Follower> {
    return this.#live;
  }

  /** Sends everything after the follower's position, until its sink is closed. */
  add(follower: Follower): void {
    this.#followers.add(follower);
    void this.#catchUp(follower);
  }

  remove(follower: Follower): void {
    this.#followers.delete(follower);
    this.#live.delete(follower);
    if (this.isEmpty) this.#stopping.abort();
  }

  /** Ends all streams regularly. */
  end(): void {
    this.#stopping.abort();
    for (const { sink } of this.#followers) sink.end();
  }

  async #catchUp(follower: Follower): Promise<void> {
    const { sink } = follower;
    try {
      for (;;) {
        await sink.drained().catch(() => sink.cut());
        if (sink.isClosed || this.#stopping.signal.aborted) return;
        if (this.#place !== undefined && follower.place.position >= this.#place.position) break;
        const page = await this.#retryWithoutCapacity(() =>
          this.#source.read(follower.place, follower.share),
        );
        await this.#retryWithoutCapacity(() => this.#sendTo([follower], page.batch, page));
        // If no reader is up to date, the first one leads.
        if (!page.more && this.#place === undefined && !sink.needsDrain) break;
      }
    } catch (error) {
      this.#fail(error);
      return;
    }
    if (sink.isClosed) return;
    sink.send(heartbeatOf(follower.place));
    this.#live.add(follower);
    if (this.#place !== undefined) return;
    this.#place = follower.place;
    void this.#broadcast(this.#place);
  }

  async #broadcast(from: FeedPlace): Promise<void> {
    const { signal } = this.#stopping;
    try {
      for (let place = from; this.#live.size > 0; ) {
        const isMore = await this.#retryWithoutCapacity(() =>
          this.#source.wait(place, signal, this.#payer()),
        );
        if (!isMore || this.#live.size === 0) return;
        const page = await this.#retryWithoutCapacity(() => {
          const payer = this.#payer();
          this.#paid();
          return this.#source.read(place, payer);
        });
        const begunMs = performance.now();
        const before = place;
        place = { position: page.position, horizon: page.horizon };
        this.#place = place;
        await this.#deliver(page.batch, before, place);
        const tookMs = performance.now() - begunMs;
        if (!page.more) await this.#pause(Math.min(GATHER_MS_MAX, Math.max(GATHER_MS, SHARE * tookMs)));
      }
    } catch (error) {
      this.#fail(error);
    } finally {
      this.#place = undefined;
    }
  }

  /** The reader that pays for the next shared read. */
  #payer(): ShareKey {
    const [next] = this.#live;
    return next?.share ?? OWN;
  }

  #paid(): void {
    const [first] = this.#live;
    if (first === undefined) return;
    // The next subject pays, however many readers this one has.
    for (const follower of [...this.#live].filter(({ share }) => share.subject === first.share.subject)) {
      this.#live.delete(follower);
      this.#live.add(follower);
    }
  }

  /** Retries until there is capacity: a lack of it does not end streams. */
  async #retryWithoutCapacity<T>(action: () => Promise<T>): Promise<T> {
    for (;;) {
      try {
        return await action();
      } catch (error) {
        if (this.#stopping.signal.aborted || !hasCode(error, 'rate_limited', 'overloaded')) throw error;
        await this.#pause(RETRY_MS);
      }
    }
  }

  /**
   * Sends a batch to all followers that have everything before it. Subjects do not wait for each other's
   * turns.
   */
  async #deliver(batch: EventBatch, before: FeedPlace, place: FeedPlace): Promise<void> {
    const ready: Follower[] = [];
    for (const follower of this.#live) {
      if (follower.place.position >= place.position) continue;
      if (follower.place.position < before.position || follower.sink.needsDrain) this.#fallBehind(follower);
      else ready.push(follower);
    }
    const sent = bySubject(ready).map(async (followers) => {
      try {
        await this.#sendTo(followers, batch, place);
      } catch (error) {
        if (!hasCode(error, 'rate_limited', 'overloaded')) this.#fail(error);
      }
      for (const follower of followers)
        if (this.#live.has(follower) && follower.place.position < place.position) this.#fallBehind(follower);
    });
    if (sent.length < 2) await sent[0];
    else await this.#within(TURNS_MS_MAX, Promise.all(sent));
  }

  async #within(ms: number, done: Promise<unknown>): Promise<void> {
    const isDone = new AbortController();
    await Promise.race([done, this.#pause(ms, isDone.signal)]);
    isDone.abort();
  }

  #fallBehind(follower: Follower): void {
    this.#live.delete(follower);
    void this.#catchUp(follower);
  }

  /** Sends the events up to a position to followers of one share that have all earlier ones. */
  #sendTo(followers: readonly Follower[], batch: EventBatch, place: FeedPlace): Promise<void> {
    return this.#inTurns(followers, (follower) => {
      // It may have caught up while it waited for its turn.
      if (follower.place.position > place.position) return;
      const blocks = batch.after(follower.place.position);
      if (blocks.length > 0) follower.sink.send(blocks);
      follower.place = { position: place.position, horizon: place.horizon };
    });
  }

  /**
   * Sends to each ready follower of one share, in turns of the processor for that share.
   *
   * @throws AppError `rate_limited`, `overloaded` when it gets none.
   */
  async #inTurns(followers: readonly Follower[], send: (follower: Follower) => void): Promise<void> {
    const [first] = followers;
    if (first === undefined) return;
    using work = this.#source.work(first.share);
    for (const follower of followers) {
      const turn = work.pause();
      if (turn !== undefined) await turn;
      if (this.#followers.has(follower) && !follower.sink.needsDrain) send(follower);
    }
  }

  /** An error for one reader concerns all: they reconnect, and get the error. */
  #fail(error: unknown): void {
    if (this.#stopping.signal.aborted) return;
    this.#onFailure(error);
    this.end();
  }
}

/** For work that no reader waits for. */
const OWN: ShareKey = { subject: '', project: '' };

export function bySubject(followers: Iterable<Follower>): (readonly Follower[])[] {
  return [...Map.groupBy(followers, ({ share }) => share.subject).values()];
}

async function pauseFor(ms: number, signal?: AbortSignal): Promise<void> {
  // It ends early when nobody waits for it any more.
  await sleep(ms, undefined, { ref: false, ...(signal && { signal }) }).catch(() => undefined);
}
