import type { KeyObject } from 'node:crypto';
import { Pool } from '@bundoc/shared/admission/pool';
import type { AuditRecord } from '@bundoc/shared/contract/audit';
import { HEARTBEAT_MS, type KmsEvent } from '@bundoc/shared/contract/events';
import { mayUseKey } from '@bundoc/shared/contract/grants';
import { LEASE_TTL_MS } from '@bundoc/shared/contract/keys';
import type { Claims } from '@bundoc/shared/contract/tokens';
import type { EventSink } from '@bundoc/shared/http/event-stream';
import type { Logger } from '@bundoc/shared/logs/logger';
import { type Clock, earlierMs, type Instant, instant } from '@bundoc/shared/runtime/clock';
import { Mutex } from '@bundoc/shared/runtime/mutex';
import type { ChainHead } from '../records/chain.ts';
import { isGenuine } from '../records/chain-walk.ts';
import type { AuditStore } from '../store/audit.ts';
import type { RevocationPlace, TokenStore } from '../store/tokens.ts';
import { blockOf, eventOf, parsePlace } from './record-events.ts';

export interface EventFeedOptions {
  readonly store: AuditStore & TokenStore;
  /** Key of the audit chain: only genuine records are events. */
  readonly chainKey: KeyObject;
  /** While it is true, no subscriber gets events from the database. */
  readonly isSealed: () => boolean;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: {
    watchShares(shares: readonly Pool[]): void;
    readonly eventStreams: { set(count: number): void };
  };
}

export interface Subscription {
  readonly claims: Claims;
  readonly family: string;
  readonly sink: EventSink;
  /** The id of the subscriber's last event; undefined when it has none. */
  readonly lastEventId: string | undefined;
}

interface Subscriber extends Subscription {
  /**
   * False while the subscriber may lack earlier events. Until then no event has an id, because an id means
   * that all events up to it were sent.
   */
  isComplete: boolean;
}

/**
 * How often the chain is polled while there are subscribers, milliseconds: other processes append to it too.
 */
const POLL_MS = 200;
const PAGE = 500;
/** Maximum records to replay for a subscriber that resumes. Beyond it, a reset is cheaper. */
const REPLAY_MAX = 1_000;
/**
 * How old the changes of keys may be that a subscriber without a place receives, milliseconds: longer than
 * any key is kept, and more for the clocks of several nodes, which differ.
 */
const CHANGES_MS = LEASE_TTL_MS + 60_000;
/** Events that take no key away. All keys are fetched again after a reset anyway. */
const HARMLESS: ReadonlySet<KmsEvent['type']> = new Set(['key.rotate', 'key.enable']);
const SUBSCRIBERS_MAX = 256;
const SUBSCRIBERS_OF_SUBJECT_MAX = 16;

/**
 * Sends events of keys and tokens to services, derived from the audit chain. So every event is durable,
 * whichever process caused it, and a place in the chain is enough to resume. It skips the records of exports.
 *
 * A subscriber that names its place gets the events after it. Any other gets a `reset`, the changes of keys
 * that it may have missed while it had them, and the presently revoked tokens.
 */
export class EventFeed {
  readonly #options: EventFeedOptions;
  readonly #started: Instant;
  readonly #subscribers = new Set<Subscriber>();
  readonly #places: Pool;
  /** The place up to which all subscribers have the events; undefined without subscribers. */
  #position: ChainHead | undefined;
  #heartbeatAtMs = 0;
  #timer: NodeJS.Timeout | undefined;
  /** Serializes polls and new subscriptions, so that each subscriber gets each event once. */
  readonly #turns = new Mutex();
  #failing = false;

  constructor(options: EventFeedOptions) {
    this.#options = options;
    this.#started = instant(options.clock);
    this.#places = new Pool({
      name: 'event streams',
      capacity: SUBSCRIBERS_MAX,
      subjectMax: SUBSCRIBERS_OF_SUBJECT_MAX,
      clock: options.clock,
      waitMs: 0,
    });
    options.metrics.watchShares([this.#places]);
  }

  /**
   * Reserves a slot for a subscriber before any work is done for it. Disposing releases the slot.
   *
   * @param subject the root of the token.
   * @throws AppError `rate_limited` when the subject has used its share, `overloaded` when all slots are
   *   taken.
   */
  reserve(subject: string): Disposable {
    const key = { subject, project: '' };
    const hold = this.#places.tryTake(key, 1);
    if (hold === undefined) throw this.#places.refusal(key, 1);
    return hold;
  }

  /** Sends events to the subscriber from now on, until its sink is closed. @throws AppError of the store. */
  async subscribe(subscription: Subscription): Promise<void> {
    const subscriber: Subscriber = { ...subscription, isComplete: false };
    let reached = 0;
    await this.#turns.run(async () => {
      const { store } = this.#options;
      this.#position ??= await store.auditHead();
      const position = this.#position;
      reached = position.seq;
      // A revocation before this place would no longer be sent.
      if ((await store.findActiveTokenFamily(subscription.claims.jti)) === undefined)
        return subscriber.sink.end();
      subscriber.isComplete = await this.#replay(subscriber, position);
      if (!subscriber.isComplete) subscriber.sink.send(blockOf({ type: 'reset' }));
      this.#subscribers.add(subscriber);
      this.#observe();
    });
    this.#schedule();
    // Outside the mutex, so that others do not wait for this subscriber.
    if (!subscriber.isComplete && !subscriber.sink.isClosed) {
      await this.#sendChanges(subscriber, reached);
      await this.#sendRevoked(subscriber);
      subscriber.isComplete = true;
    }
    if (this.#position !== undefined) subscriber.sink.send(blockOf({ type: 'heartbeat' }, this.#position));
  }

  /** Reads the new records once and sends their events. Never rejects. */
  async poll(): Promise<void> {
    try {
      await this.#turns.run(() => this.#sendNew());
      this.#failing = false;
    } catch (error) {
      if (!this.#failing)
        this.#options.logger.warn({ err: error }, 'the audit chain cannot be read: events are delayed');
      this.#failing = true;
    }
  }

  #schedule(): void {
    if (this.#timer !== undefined) return;
    this.#timer = setTimeout(() => {
      void this.poll().then(() => {
        this.#timer = undefined;
        if (this.#subscribers.size > 0) this.#schedule();
      });
    }, POLL_MS).unref();
  }

  async #sendNew(): Promise<void> {
    // Subscribers come back, and get what they missed, once the service answers again.
    if (this.#options.isSealed()) for (const { sink } of this.#subscribers) sink.end();
    this.#dropEnded();
    for (let more = true; more && this.#position !== undefined; ) {
      const { seq } = this.#position;
      const page = await this.#options.store.listAudit({ after: seq, bulk: false, limit: PAGE });
      for (const record of page.items) {
        this.#position = { seq: record.seq, hash: record.hash };
        const event = this.#eventOf(record);
        if (event !== undefined) this.#send(event, this.#position);
      }
      more = page.more;
    }
    // Only now has everything up to the place been read.
    const nowMs = this.#options.clock.monotonic();
    if (this.#position === undefined || nowMs - this.#heartbeatAtMs < HEARTBEAT_MS) return;
    this.#heartbeatAtMs = nowMs;
    for (const { sink, isComplete } of this.#subscribers)
      sink.send(blockOf({ type: 'heartbeat' }, isComplete ? this.#position : undefined));
  }

  /** The event of a record; undefined for one that somebody has planted or changed. */
  #eventOf(record: AuditRecord): KmsEvent | undefined {
    return isGenuine(this.#options.chainKey, record) ? eventOf(record) : undefined;
  }

  #send(event: KmsEvent, place: ChainHead): void {
    for (const subscriber of this.#subscribers) {
      if (!concerns(event, subscriber)) continue;
      subscriber.sink.send(blockOf(event, subscriber.isComplete ? place : undefined));
      if (event.type === 'token.revoke' && event.family === subscriber.family) subscriber.sink.end();
    }
  }

  /** Removes subscribers that have gone or whose token has expired. */
  #dropEnded(): void {
    const nowS = this.#options.clock.now() / 1_000;
    for (const subscriber of this.#subscribers) {
      if (subscriber.claims.exp <= nowS) subscriber.sink.end();
      if (subscriber.sink.isClosed) this.#subscribers.delete(subscriber);
    }
    if (this.#subscribers.size === 0) this.#position = undefined;
    this.#observe();
  }

  #observe(): void {
    this.#options.metrics.eventStreams.set(this.#subscribers.size);
  }

  /** @returns false when the subscriber's place is unknown or too old. */
  async #replay(subscriber: Subscriber, position: ChainHead): Promise<boolean> {
    const { store } = this.#options;
    const place = parsePlace(subscriber.lastEventId);
    if (place === undefined || place.seq > position.seq) return false;
    // The hash shows that the place belongs to this chain, and not to one that a backup has replaced.
    const [record] = (await store.listAudit({ after: place.seq - 1, limit: 1 })).items;
    if (record?.seq !== place.seq || record.hash !== place.hash) return false;
    const missed = await store.listAudit({ after: place.seq, bulk: false, limit: REPLAY_MAX });
    if (missed.more) return false;
    for (const { seq, hash, ...record } of missed.items) {
      if (seq > position.seq) break;
      const event = this.#eventOf({ seq, hash, ...record });
      if (event !== undefined && concerns(event, subscriber))
        subscriber.sink.send(blockOf(event, { seq, hash }));
    }
    return true;
  }

  /**
   * Sends the changes that withdrew keys lately, up to that place: a reader without them would use such keys
   * until it has fetched all others again.
   */
  async #sendChanges(subscriber: Subscriber, until: number): Promise<void> {
    const { clock, store } = this.#options;
    const { sink } = subscriber;
    const from = new Date(clock.now() - CHANGES_MS).toISOString();
    for (let after = await this.#placeBefore(from, until), more = true; more && !sink.isClosed; ) {
      const page = await store.listAudit({ after, bulk: false, limit: PAGE });
      for (const record of page.items) {
        after = record.seq;
        const event = this.#eventOf(record);
        if (event === undefined || !('name' in event) || HARMLESS.has(event.type)) continue;
        if (record.seq <= until && concerns(event, subscriber)) sink.send(blockOf(event));
      }
      await sink.drained();
      more = page.more && after < until;
    }
  }

  /** A place before all records of that time or later. Records have the order of their times. */
  async #placeBefore(time: string, until: number): Promise<number> {
    let [low, high] = [0, until];
    while (low < high) {
      const middle = Math.floor((low + high) / 2);
      const [next] = (await this.#options.store.listAudit({ after: middle, bulk: false, limit: 1 })).items;
      if (next === undefined || next.time >= time) high = middle;
      else low = next.seq;
    }
    return low;
  }

  async #sendRevoked(subscriber: Subscriber): Promise<void> {
    // A subscriber gets them once: a clock that is set forward must leave none out.
    const now = new Date(earlierMs(this.#options.clock, this.#started)).toISOString();
    const { sink } = subscriber;
    for (let after: RevocationPlace | undefined, more = true; more && !sink.isClosed; ) {
      const page = await this.#options.store.listRevoked(now, { after, limit: PAGE });
      for (const record of page.items) {
        const event = this.#eventOf(record);
        if (event !== undefined) sink.send(blockOf(event));
        after = { expiresAt: String(record.detail?.['expires_at']), seq: record.seq };
      }
      await sink.drained();
      more = page.more;
    }
  }
}

function concerns(event: KmsEvent, { claims }: Subscriber): boolean {
  return !('name' in event) || mayUseKey(claims, event.name);
}
