import assert from 'node:assert/strict';
import type { KeyObject } from 'node:crypto';
import { AppError } from '@bundoc/shared/contract/app-error';
import type { AuditRecord } from '@bundoc/shared/contract/audit';
import type { Logger } from '@bundoc/shared/logs/logger';
import { type ChainHead, GENESIS } from '../records/chain.ts';
import { isGenuine } from '../records/chain-walk.ts';
import { epochOf } from '../records/restore-record.ts';
import type { KmsStore } from '../store/port.ts';
import { LINKS_MAX } from '../store/trust.ts';
import { ChainMemory } from './chain-memory.ts';

/** How many changes a check reads at once. */
const PAGE = 500;
/** How far before its end the chain is verified at the start. */
const TAIL = 1_000;

export interface StoreTrustOptions {
  /** The store itself, without read-back. */
  readonly store: KmsStore;
  readonly logger: Logger;
  readonly metrics: {
    readonly sealed: { set(value: number): void };
    readonly storeFaults: { reset(): void; set(labels: { readonly fault: string }, value: number): void };
  };
}

/** The most faults that a metric and `/ready` name. */
const NAMED_MAX = 20;

/**
 * Whether this process trusts its database. It does not, from the moment that something contradicts what it
 * knows, until a {@link check} finds the schema as this release makes it and every known record in the chain.
 *
 * The states: trusted; sealed with one or more faults. Each check replaces the faults of the schema and of
 * the chain by those that it finds, and ends that of a write which came before it.
 */
export class StoreTrust {
  readonly #options: StoreTrustOptions;
  readonly memory = new ChainMemory();
  #chainKey: KeyObject | undefined;
  #epoch = 0;
  #restored: ChainHead = GENESIS;
  /** The latest epoch that a client knows. */
  #awaitedEpoch = 0;
  /** Up to here the chain was verified. */
  #verified: ChainHead | undefined;
  /** Whether what was written before the start of this process is verified. */
  #hasStarted = false;
  #schema: readonly string[] = [];
  #chain: readonly string[] = [];
  /** Records that were missed, by number. */
  readonly #missing = new Map<number, string>();
  #unbelieved: readonly string[] = [];
  #isSealed = false;
  #checking: Promise<unknown> = Promise.resolve();

  constructor(options: StoreTrustOptions) {
    this.#options = options;
  }

  /** Called with the key of the chain, before anything is written with it. */
  unlock(chainKey: KeyObject): void {
    this.#chainKey = chainKey;
  }

  /** The key of the chain; undefined before {@link unlock}. */
  get chainKey(): KeyObject | undefined {
    return this.#chainKey;
  }

  /** When the chain was last restored, milliseconds; 0 if never. Receipts from before it prove nothing. */
  get epoch(): number {
    return this.#epoch;
  }

  /** Why the database is not trusted, for the operator's log: it may name a key or a token. */
  get faults(): readonly string[] {
    return [...this.#places, ...this.#unbelieved].slice(0, NAMED_MAX);
  }

  /** As {@link faults}, for everybody: a text for each object or record. */
  get publicFaults(): readonly string[] {
    const write = this.#unbelieved.length > 0 ? ['a write was not stored'] : [];
    return [...this.#places, ...write].slice(0, NAMED_MAX);
  }

  /** Objects and records. */
  get #places(): readonly string[] {
    const missing = [...this.#missing.keys()].map((seq) => `the audit chain lacks its record ${seq}`);
    const restore =
      this.#awaitedEpoch > this.#epoch
        ? [`the audit chain lacks the restore of ${new Date(this.#awaitedEpoch).toISOString()}`]
        : [];
    return [...this.#schema, ...missing, ...restore, ...this.#chain];
  }

  get isSealed(): boolean {
    return this.#isSealed;
  }

  /** @throws AppError `sealed` while the database is not trusted. */
  require(): void {
    if (this.#isSealed) throw this.#refusal();
  }

  /** Ends the trust after a write that the database reported as done, and that is not there. */
  disbelieve(what: string): AppError {
    this.#unbelieved = [what];
    this.#settle();
    return this.#refusal();
  }

  /**
   * Ends the trust, because the chain lacks a record that it had.
   *
   * @param epoch of the chain when the record was known. A restore since then has ended it: then the caller
   *   tries again.
   */
  lacks({ seq, hash }: ChainHead, epoch = this.#epoch): AppError {
    if (epoch < this.#epoch) return new AppError('sealed', { retryAfterS: 1 });
    this.#missing.set(seq, hash);
    this.#settle();
    return this.#refusal();
  }

  /**
   * Ends the trust, because a client knows a later restore: this database is older, or the client has asked
   * another copy of the installation.
   */
  lacksRestore(epoch: number): AppError {
    this.#awaitedEpoch = Math.max(this.#awaitedEpoch, epoch);
    this.#settle();
    return this.#refusal();
  }

  /**
   * Whether the chain has a record.
   *
   * @throws AppError of the store.
   */
  async has(place: ChainHead): Promise<boolean> {
    if (place.seq === GENESIS.seq || this.memory.knows(place)) return true;
    const [found] = await this.#options.store.recordsAt([place.seq]);
    return found !== undefined && found.hash === place.hash && this.#isGenuine(found);
  }

  /**
   * Looks at the schema and the chain. A call while another one runs looks again after that.
   *
   * @throws AppError of the store; then nothing changes.
   */
  check(): Promise<void> {
    const next = this.#checking.catch(() => undefined).then(() => this.#check());
    this.#checking = next;
    return next;
  }

  async #check(): Promise<void> {
    const before = this.#unbelieved;
    const schema = await this.#options.store.foreignObjects();
    const chain = this.#chainKey === undefined ? [] : await this.#checkChain();
    this.#schema = schema;
    this.#chain = chain;
    // Another write may have failed meanwhile: the next check decides about that.
    if (this.#unbelieved === before) this.#unbelieved = [];
    this.#settle();
  }

  /** Takes up the latest restore: everything that was known before it may be lost. */
  async #adoptRestore(): Promise<void> {
    const latest = await this.#options.store.latestRestore();
    const epoch = epochOf(latest);
    if (latest === undefined || epoch <= this.#epoch || !this.#isGenuine(latest)) return;
    this.#epoch = epoch;
    this.memory.clear();
    this.#missing.clear();
    this.#restored = { seq: latest.seq, hash: latest.hash };
    if (this.#verified !== undefined) this.#verified = this.#restored;
    await this.#options.store.expectHead(undefined);
    await this.#options.store.expectHead(this.#restored);
  }

  /** @returns the faults of the chain that are not missing records. */
  async #checkChain(): Promise<readonly string[]> {
    const { store } = this.#options;
    await this.#adoptRestore();
    const known = [...this.memory.receipts, ...[...this.#missing].map(([seq, hash]) => ({ seq, hash }))];
    const found = new Map((await store.recordsAt(known.map(({ seq }) => seq))).map((one) => [one.seq, one]));
    for (const { seq, hash } of known) {
      const record = found.get(seq);
      if (record?.hash === hash && this.#isGenuine(record)) this.#missing.delete(seq);
      else this.#missing.set(seq, hash);
    }
    return await this.#verifyNew();
  }

  /**
   * Verifies what was added to the chain since the last check, by any process: that each record continues the
   * one before, and that the changes of keys, tokens and storages are genuine. Releases and uses are genuine
   * as read back by the process that wrote them; there may be thousands a second.
   */
  async #verifyNew(): Promise<readonly string[]> {
    const { store } = this.#options;
    const head = await store.auditHead();
    this.#verified ??= await this.#firstPlace(head);
    if (this.#verified === undefined) return [`record ${head.seq - TAIL} of the audit chain is changed`];
    const { seq: after } = this.#verified;
    const upTo = Math.min(head.seq, after + LINKS_MAX);
    if (upTo <= after) return [];
    const broken = await store.brokenLink(after, upTo);
    if (broken !== undefined)
      return [`record ${broken} of the audit chain does not continue the one before it`];
    // Read after the links: a planted head that is gone since it was read must not be missed for good.
    const [last] = await store.recordsAt([upTo]);
    const fault = await this.#noteChanges(after, upTo);
    if (fault !== undefined || last === undefined || !this.#isGenuine(last))
      return [fault ?? `record ${upTo} of the audit chain is ${last === undefined ? 'missing' : 'changed'}`];
    this.#verified = { seq: upTo, hash: last.hash };
    this.memory.keep(this.#verified);
    if (upTo < head.seq) return [];
    this.#hasStarted = true;
    await store.expectHead(this.#verified);
    return [];
  }

  /**
   * Remembers changes in a part of the chain. What was written before the start must be genuine altogether: a
   * change that somebody made look like a release would not be remembered.
   *
   * @returns the first fault.
   */
  async #noteChanges(after: number, upTo: number): Promise<string | undefined> {
    for (let from = after; from < upTo; ) {
      const page = { after: from, limit: PAGE };
      const { items, more } = await this.#options.store.listAudit(
        this.#hasStarted ? { ...page, bulk: false } : page,
      );
      for (const record of items) {
        if (record.seq > upTo) return undefined;
        if (!this.#isGenuine(record)) return `record ${record.seq} of the audit chain is changed`;
        this.memory.note(record);
      }
      if (!more) return undefined;
      from = items.at(-1)?.seq ?? upTo;
    }
    return undefined;
  }

  /**
   * A genuine record near the end of the chain, or the latest restore: what was before it is accepted.
   *
   * @returns undefined if the record there is changed or missing.
   */
  async #firstPlace(head: ChainHead): Promise<ChainHead | undefined> {
    if (this.#restored.seq >= head.seq - TAIL) return this.#restored;
    const [first] = await this.#options.store.recordsAt([head.seq - TAIL]);
    return first !== undefined && this.#isGenuine(first) ? { seq: first.seq, hash: first.hash } : undefined;
  }

  #isGenuine(record: AuditRecord): boolean {
    return isGenuine(this.#key(), record);
  }

  #key(): KeyObject {
    assert(this.#chainKey !== undefined, 'the audit chain is unlocked');
    return this.#chainKey;
  }

  #refusal(): AppError {
    return new AppError('sealed', { retryAfterS: 1, cause: new Error(this.faults.join('; ')) });
  }

  #settle(): void {
    const { logger, metrics } = this.#options;
    metrics.storeFaults.reset();
    for (const fault of this.publicFaults) metrics.storeFaults.set({ fault }, 1);
    const isSealed = this.faults.length > 0;
    if (isSealed === this.#isSealed) return;
    this.#isSealed = isSealed;
    metrics.sealed.set(isSealed ? 1 : 0);
    if (isSealed) logger.error({ faults: this.faults }, 'sealed: the database is not trusted');
    else logger.warn('unsealed: the database is trusted again');
  }
}
