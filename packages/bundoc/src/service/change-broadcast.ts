import { hasCode } from '@bundoc/shared/contract/app-error';
import type { EventSink } from '@bundoc/shared/http/event-stream';
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
  /** A page behind a place. Throws when there can be no more of it: the project gone, its key withdrawn. */
  read(place: FeedPlace): Promise<SourcePage>;
  /** Resolves once there is something behind a place. @returns false when the signal was aborted. */
  wait(place: FeedPlace, signal: AbortSignal): Promise<boolean>;
}

/** One reader of a stream. */
export interface Follower {
  readonly sink: EventSink;
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
/** Before a page is read that there was no room for, milliseconds. */
const READ_AGAIN_MS = 1_000;
/** So many times what a batch takes is left for all else, up to that. */
const SHARE = 4;

/**
 * Sends the changes that one source has to all who follow it. Those that have caught up share each batch:
 * read, opened and written as bytes once. Anyone who is behind, because it begins long ago or reads slowly,
 * reads pages of its own, one when the last is on its way, until it has caught up; so nothing is held for it
 * but one page.
 */
export class ChangeBroadcast {
  readonly #source: ChangeSource;
  readonly #onFailure: (error: unknown) => void;
  readonly #pause: (ms: number) => Promise<void>;
  /** All that follow, and of these the ones that have everything up to `#place`, or more. */
  readonly #followers = new Set<Follower>();
  readonly #live = new Set<Follower>();
  readonly #stopping = new AbortController();
  #place: FeedPlace | undefined;

  constructor(
    source: ChangeSource,
    onFailure: (error: unknown) => void,
    pause: (ms: number) => Promise<void> = (ms) => new Promise((resolve) => setTimeout(resolve, ms)),
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

  /** Tells those that have everything so. */
  heartbeat(): void {
    for (const { sink, place } of this.#live) if (!sink.needsDrain) sink.send(heartbeatOf(place));
  }

  async #catchUp(follower: Follower): Promise<void> {
    const { sink } = follower;
    try {
      for (;;) {
        await sink.drained().catch(() => sink.cut());
        if (sink.isClosed || this.#stopping.signal.aborted) return;
        if (this.#place !== undefined && follower.place.position >= this.#place.position) break;
        const page = await this.#read(follower.place);
        const blocks = page.batch.after(follower.place.position);
        if (blocks.length > 0) sink.send(blocks);
        follower.place = { position: page.position, horizon: page.horizon };
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
        if (!(await this.#source.wait(place, signal)) || signal.aborted) return;
        const page = await this.#read(place);
        const begunMs = performance.now();
        place = { position: page.position, horizon: page.horizon };
        this.#place = place;
        this.#deliver(page.batch, place);
        const tookMs = performance.now() - begunMs;
        if (!page.more) await this.#pause(Math.min(GATHER_MS_MAX, Math.max(GATHER_MS, SHARE * tookMs)));
      }
    } catch (error) {
      this.#fail(error);
    } finally {
      this.#place = undefined;
    }
  }

  /** A page, as soon as there is room to read it: scarce room does not end streams. */
  async #read(place: FeedPlace): Promise<SourcePage> {
    for (;;) {
      try {
        return await this.#source.read(place);
      } catch (error) {
        if (this.#stopping.signal.aborted || !hasCode(error, 'rate_limited', 'overloaded')) throw error;
        await this.#pause(READ_AGAIN_MS);
      }
    }
  }

  #deliver(batch: EventBatch, place: FeedPlace): void {
    for (const follower of this.#live) {
      const { sink } = follower;
      if (follower.place.position >= place.position) continue;
      if (sink.needsDrain) {
        this.#live.delete(follower);
        void this.#catchUp(follower);
        continue;
      }
      const blocks = batch.after(follower.place.position);
      if (blocks.length > 0) sink.send(blocks);
      follower.place = place;
    }
  }

  /** What goes wrong for one goes wrong for all: they come back, and get the error. */
  #fail(error: unknown): void {
    if (this.#stopping.signal.aborted) return;
    this.#onFailure(error);
    this.end();
  }
}
