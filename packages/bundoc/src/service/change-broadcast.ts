import { setTimeout as sleep } from 'node:timers/promises';
import { hasCode } from '@bundoc/shared/contract/app-error';
import type { EventSink } from '@bundoc/shared/http/event-stream';
import type { ShareKey } from '@bundoc/shared/shares/share-key';
import type { Work } from '../work/work.ts';
import { type EventBatch, heartbeatOf } from './change-text.ts';
import type { FeedPlace } from './read-changes.ts';

/** A page as it is sent: it ends at its place. */
export interface SourcePage extends FeedPlace {
  readonly batch: EventBatch;
  /** As of a page of the feed. */
  readonly more: boolean;
}

/** What a broadcast takes its changes from: one project's feed, by one filter. */
export interface ChangeSource {
  /**
   * A page behind a place, read in a share. Throws when there can be no more of it: the project gone, its key
   * withdrawn.
   */
  read(place: FeedPlace, share: ShareKey): Promise<SourcePage>;
  /** Resolves once there is something behind a place. @returns false when the signal was aborted. */
  wait(place: FeedPlace, signal: AbortSignal, share: ShareKey): Promise<boolean>;
  /** Work that is charged to a share. */
  work(share: ShareKey): Work;
}

/** One reader of a stream. */
export interface Follower {
  readonly sink: EventSink;
  /** Whose share pays for what is read for it alone, and for what is sent to it. */
  readonly share: ShareKey;
  /** False once its token allows no more. */
  readonly isAllowed: () => boolean;
  /** Up to where everything was sent. */
  place: FeedPlace;
}

/**
 * How long changes are gathered before the next batch at least, milliseconds. The first one after a silence
 * goes at once. Each batch costs a write for every reader, which is most of what a reader costs; so where
 * batches take long, they come less often.
 */
const GATHER_MS = 10;
/** The longest gathering, milliseconds. */
const GATHER_MS_MAX = 25;
/** Before something is tried again that there was no room for, milliseconds. */
const AGAIN_MS = 1_000;
/** So many times what a batch takes is left for all else, up to that. */
const SHARE = 4;
/**
 * How long the next batch waits until subjects had their turns to be sent this one, milliseconds. Readers of
 * those that had none by then catch up by themselves.
 */
const TURNS_MS_MAX = 1_000;

/**
 * Sends the changes that one source has to all who follow it. Those that have caught up share each batch:
 * read, opened and written as bytes once. Anyone who is behind, because it begins long ago or reads slowly,
 * reads pages of its own, one when the last is on its way, until it has caught up; so nothing is held for it
 * but one page.
 *
 * What is sent to a reader is charged to its share, in its turn of the processor. Readers pay in turn for the
 * batches that they share.
 *
 * One class, because a reader moves between the shared batches and pages of its own.
 */
export class ChangeBroadcast {
  readonly #source: ChangeSource;
  readonly #onFailure: (error: unknown) => void;
  readonly #pause: (ms: number, signal?: AbortSignal) => Promise<void>;
  /** All that follow, and of these the ones that have everything up to `#place`, or more. */
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

  /** Those of {@link followers} that have everything. */
  get live(): Iterable<Follower> {
    return this.#live;
  }

  /** Sends everything behind the follower's place, from now on until its sink is closed. */
  add(follower: Follower): void {
    this.#followers.add(follower);
    void this.#catchUp(follower);
  }

  remove(follower: Follower): void {
    this.#followers.delete(follower);
    this.#live.delete(follower);
    if (this.isEmpty) this.#stopping.abort();
  }

  /** Ends all streams in order. */
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
        const page = await this.#whereRoom(() => this.#source.read(follower.place, follower.share));
        await this.#whereRoom(() => this.#sendTo([follower], page.batch, page));
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
        const isMore = await this.#whereRoom(() => this.#source.wait(place, signal, this.#payer()));
        if (!isMore || this.#live.size === 0) return;
        const page = await this.#whereRoom(() => {
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

  /** Whose turn it is, of those that are up to date, to pay for what all of them read. */
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

  /** Does it as soon as there is room for it: scarce room does not end streams. */
  async #whereRoom<T>(action: () => Promise<T>): Promise<T> {
    for (;;) {
      try {
        return await action();
      } catch (error) {
        if (this.#stopping.signal.aborted || !hasCode(error, 'rate_limited', 'overloaded')) throw error;
        await this.#pause(AGAIN_MS);
      }
    }
  }

  /** Sends a batch to all that have what is before it. Subjects do not wait for each other's turns. */
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

  /** Sends the events up to a place to followers of one share that have all before these. */
  #sendTo(followers: readonly Follower[], batch: EventBatch, place: FeedPlace): Promise<void> {
    return this.#inTurns(followers, (follower) => {
      // It may have caught up by itself while it waited for its turn.
      if (follower.place.position > place.position) return;
      const blocks = batch.after(follower.place.position);
      if (blocks.length > 0) follower.sink.send(blocks);
      follower.place = { position: place.position, horizon: place.horizon };
    });
  }

  /**
   * Sends something to each follower of one share that takes it, in turns of the processor of that share.
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

  /** What goes wrong for one goes wrong for all: they come back, and get the error. */
  #fail(error: unknown): void {
    if (this.#stopping.signal.aborted) return;
    this.#onFailure(error);
    this.end();
  }
}

/** Of work that nobody waits for any more. */
const OWN: ShareKey = { subject: '', project: '' };

export function bySubject(followers: Iterable<Follower>): (readonly Follower[])[] {
  return [...Map.groupBy(followers, ({ share }) => share.subject).values()];
}

async function pauseFor(ms: number, signal?: AbortSignal): Promise<void> {
  // It ends early where nobody waits for it any more.
  await sleep(ms, undefined, { ref: false, ...(signal && { signal }) }).catch(() => undefined);
}
