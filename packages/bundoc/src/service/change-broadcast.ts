import { setTimeout as sleep } from 'node:timers/promises';
import { hasCode } from '@bundoc/shared/contract/app-error';
import type { EventSink } from '@bundoc/shared/http/event-stream';
import type { ShareKey } from '@bundoc/shared/shares/share-key';
import type { Position } from '../engine/port/port.ts';
import type { Work } from '../work/work.ts';
import { cursorOf, type EventBatch, heartbeatOf } from './change-text.ts';
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
 * Minimum time between two pages for the readers that are up to date, milliseconds. The first page after a
 * pause is read at once. Each page costs a write for every reader, which is most of a reader's cost. So
 * expensive pages are less frequent.
 */
const GATHER_MS = 10;
/** Maximum time between them, milliseconds. */
const GATHER_MS_MAX = 25;
/** After a page, this multiple of its duration is left for other work, up to that maximum. */
const SHARE = 4;
/** Time that the next page waits while subjects get their turns for this one, milliseconds. */
const TURNS_MS_MAX = 1_000;
/** Pause before a retry after a lack of capacity, milliseconds. */
const RETRY_MS = 1_000;

/** Followers at one place, which share the page after it. */
interface Group {
  readonly key: string;
  readonly place: FeedPlace;
  /** Whether there may be changes that need not be waited for. */
  readonly isBehind: boolean;
  readonly followers: Set<Follower>;
}

/**
 * Sends the changes of one source to all followers. Those at the same place share the page after it; while
 * they are behind, only those of one subject do. The page is read, decrypted and encoded once. A follower
 * gets the next page once it has taken the one before. So only one page is held for it. All that are up to
 * date are soon at the same place.
 *
 * Sending is charged to the reader's share, in its turn of the processor. Subjects take turns to pay for the
 * pages of followers that are up to date.
 */
export class ChangeBroadcast {
  readonly #source: ChangeSource;
  readonly #onFailure: (error: unknown) => void;
  readonly #pause: (ms: number) => Promise<unknown>;
  /** The subject that pays for the next page comes first. */
  readonly #followers = new Set<Follower>();
  /** Those that had not all changes when they last got a page. */
  readonly #behind = new Set<Follower>();
  readonly #stopping = new AbortController();
  readonly #groups = new Map<string, Group>();
  /** The end of the last page for the followers that are up to date. */
  #position: Position = 0;
  /** Resolves when the next such page may be read. */
  #mayRead: Promise<unknown> = Promise.resolve();

  constructor(
    source: ChangeSource,
    onFailure: (error: unknown) => void,
    pause: (ms: number) => Promise<unknown> = (ms) => sleep(ms, undefined, { ref: false }),
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

  /** Sends everything after the follower's position, until its sink is closed. */
  add(follower: Follower): void {
    this.#followers.add(follower);
    this.#behind.add(follower);
    this.#enter(follower);
  }

  remove(follower: Follower): void {
    this.#followers.delete(follower);
    this.#behind.delete(follower);
    // A group may wait for long.
    for (const { followers } of this.#groups.values()) followers.delete(follower);
    if (this.isEmpty) this.#stopping.abort();
  }

  /** Ends all streams regularly. */
  end(): void {
    this.#stopping.abort();
    for (const { sink } of this.#followers) sink.end();
  }

  #isServed(follower: Follower): boolean {
    return !follower.sink.isClosed && this.#followers.has(follower) && !this.#stopping.signal.aborted;
  }

  /** Takes a follower into the group at its place, once it has taken what was sent. */
  #enter(follower: Follower): void {
    if (!this.#isServed(follower)) return;
    const { place, sink } = follower;
    if (sink.needsDrain) {
      const enter = () => this.#enter(follower);
      sink.drained().then(enter, () => sink.cut());
      return;
    }
    const isBehind = this.#behind.has(follower) || place.position < this.#position;
    // A subject that gets no capacity must not delay others that are behind.
    const key = `${cursorOf(place)} ${isBehind ? `behind ${follower.share.subject}` : ''}`;
    const group = this.#groups.get(key);
    if (group !== undefined) group.followers.add(follower);
    else {
      const begun = { key, place, isBehind, followers: new Set([follower]) };
      this.#groups.set(key, begun);
      void this.#serve(begun);
    }
  }

  async #serve(group: Group): Promise<void> {
    const { followers, isBehind, key } = group;
    try {
      const page = await this.#read(group).finally(() => this.#groups.delete(key));
      if (page === undefined) return;
      const begunMs = performance.now();
      const bySubject = Map.groupBy(followers, ({ share }) => share.subject);
      const sent = Promise.all([...bySubject.values()].map((some) => this.#send(some, page)));
      if (isBehind) return;
      this.#position = page.position;
      // Readers of other subjects may wait at another place.
      const isDone = Promise.race([sent, this.#pause(TURNS_MS_MAX)]);
      this.#mayRead = isDone.then(async () => {
        const tookMs = performance.now() - begunMs;
        if (!page.more) await this.#pause(Math.min(GATHER_MS_MAX, Math.max(GATHER_MS, SHARE * tookMs)));
      });
    } catch (error) {
      await this.#retry([...followers], error);
    }
  }

  /** The page after a group's place; undefined once all followers have left. */
  async #read({ place, isBehind, followers }: Group): Promise<SourcePage | undefined> {
    const [{ share } = { share: OWN }] = followers;
    if (isBehind) return await this.#source.read(place, share);
    if (!(await this.#source.wait(place, this.#stopping.signal, share))) return undefined;
    await this.#mayRead;
    if (followers.size === 0) return undefined;
    return await this.#source.read(place, this.#payer());
  }

  /** The share that pays for a page: each subject in turn, however many readers it has. */
  #payer(): ShareKey {
    const [{ share } = { share: OWN }] = this.#followers;
    for (const follower of [...this.#followers].filter((one) => one.share.subject === share.subject)) {
      this.#followers.delete(follower);
      this.#followers.add(follower);
    }
    return share;
  }

  /**
   * Sends a page to followers of one subject, in its turns of the processor. Each enters its next group.
   *
   * @throws AppError `rate_limited`, `overloaded` when it gets none.
   */
  async #send(followers: readonly Follower[], page: SourcePage): Promise<void> {
    const { batch, position, horizon, more } = page;
    let sent = 0;
    try {
      using work = this.#source.work((followers[0] as Follower).share);
      for (const follower of followers) {
        const turn = work.pause();
        if (turn !== undefined) await turn;
        sent++;
        const { sink } = follower;
        // If bytes of a heartbeat wait for the reader, it reads the page again later.
        if (this.#isServed(follower) && !sink.needsDrain) {
          const blocks = batch.after(follower.place.position);
          if (blocks.length > 0) sink.send(blocks);
          // At the end, the horizon has no meaning. One that a client made up must not make a group.
          follower.place = { position, horizon: more ? horizon : 0 };
          if (more) this.#behind.add(follower);
          else if (this.#behind.delete(follower) && !sink.needsDrain) sink.send(heartbeatOf(follower.place));
        }
        this.#enter(follower);
      }
    } catch (error) {
      await this.#retry(followers.slice(sent), error);
    }
  }

  /** A lack of capacity does not end streams. */
  async #retry(followers: readonly Follower[], error: unknown): Promise<void> {
    if (hasCode(error, 'position_gone')) {
      // Readers at other places may continue.
      for (const { sink } of followers) sink.end();
      return;
    }
    if (!hasCode(error, 'rate_limited', 'overloaded')) {
      this.#fail(error);
      return;
    }
    await this.#pause(RETRY_MS);
    // The first one has asked. Its subject may lack capacity for long, so that of another asks next.
    const subject = followers[0]?.share.subject;
    const byAsked = Map.groupBy(followers, ({ share }) => share.subject === subject);
    for (const follower of [...(byAsked.get(false) ?? []), ...(byAsked.get(true) ?? [])])
      this.#enter(follower);
  }

  /** Any other error concerns all: they reconnect, and get the error. */
  #fail(error: unknown): void {
    if (this.#stopping.signal.aborted) return;
    this.#onFailure(error);
    this.end();
  }
}

/** For work that no reader waits for. */
const OWN: ShareKey = { subject: '', project: '' };
