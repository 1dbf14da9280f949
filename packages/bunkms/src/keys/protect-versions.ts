import { setTimeout as delay } from 'node:timers/promises';
import { type AppError, hasCode } from '@bundoc/shared/contract/app-error';
import { OUTSIDE_FAULTS } from '@bundoc/shared/contract/keys';
import { backoffMs } from '@bundoc/shared/runtime/backoff';
import type { Caller } from '../records/caller.ts';
import type { ClusterStore } from '../store/cluster.ts';
import { allItems } from '../store/page.ts';
import { rewrapVersions } from './attach-key.ts';
import { versionsLeft } from './outside-state.ts';
import { allKeys } from './read-keys.ts';
import { type KeyDeps, readStoredKey } from './stored-key.ts';

export interface VersionProtectionDeps extends KeyDeps {
  readonly store: KeyDeps['store'] & ClusterStore;
  readonly caller: Caller;
  /** Id of this process among those that may do the same work. */
  readonly holder: string;
  /** Rest between steps, milliseconds; {@link REST_MS} unless a test sets it. */
  readonly restMs?: number;
}

const TASK = 'key-protection';
/** How long the claim of a silent process lasts, milliseconds: longer than a step with a slow outside key. */
const CLAIM_MS = 60_000;
/** Rest between steps: each has up to eight versions, and a record in the chain. */
const REST_MS = 250;
/** Wait after an outside key has failed. */
const BACKOFF = { firstMs: 120_000, maxMs: 3_600_000 };
/** Records and keys that are read at once. */
const PAGE = 500;
/** Changes after which older versions of a key may be protected otherwise than its new ones. */
const CHANGES: ReadonlySet<string> = new Set(['key.attach', 'key.detach', 'key.recover']);

/** An outside key, or a key, that has failed. */
interface Failure {
  readonly count: number;
  readonly untilMs: number;
}

/** The outside keys that each version needs which is left. */
type Needs = readonly (readonly string[])[];
const NOTHING: Needs = [];

/** A key that may have something left. */
interface Pending {
  /** Undefined while that is unknown. */
  readonly needs?: Needs;
  readonly failure?: Failure;
}

/**
 * Protects older versions of keys as their new ones are, in the background: after an attachment, a
 * detachment, and a move to another outside key. Only the stored data determine what is left, so any process
 * continues after an interruption; a claim lets one work at a time. It asks each outside key for one version
 * after another, so exports find places. Keys whose outside key fails wait, and stay as they are. One that
 * fails comes after all others, so that none waits for a key that can never be finished.
 */
export class VersionProtection {
  readonly #deps: VersionProtectionDeps;
  readonly #stopping = new AbortController();
  #running: Promise<void> | undefined;
  /** The last record of the chain that was looked at; undefined before all keys were. */
  #seen: number | undefined;
  /** By name, in the order of their turns. */
  readonly #pending = new Map<string, Pending>();
  /** By outside key. */
  readonly #failures = new Map<string, Failure>();

  constructor(deps: VersionProtectionDeps) {
    this.#deps = deps;
  }

  /** Does what is left. Concurrent calls share one run. Never rejects: failures are logged, and retried. */
  run(): Promise<void> {
    this.#running ??= this.#run().finally(() => {
      this.#running = undefined;
    });
    return this.#running;
  }

  /** Stops a run after its present version. Later calls do nothing. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { store, logger, holder } = this.#deps;
    const { signal } = this.#stopping;
    try {
      if (signal.aborted) return;
      await this.#look();
      if (this.#pending.size === 0 || !(await this.#claim())) return;
      try {
        for (const [name, pending] of [...this.#pending]) {
          signal.throwIfAborted();
          if (this.#mustWait(pending)) continue;
          if (await this.#protect(name)) this.#pending.delete(name);
        }
      } finally {
        await store.release({ task: TASK, holder });
      }
    } catch (error) {
      if (!signal.aborted)
        logger.warn({ err: error }, 'the protection of older versions was interrupted; trying again');
    }
  }

  /** Finds the keys that may have something left: at first among all, later by the changes of keys. */
  async #look(): Promise<void> {
    const { store } = this.#deps;
    if (this.#seen === undefined) {
      const { seq } = await store.auditHead();
      for await (const { name, record } of allKeys(this.#deps)) {
        this.#stopping.signal.throwIfAborted();
        // One version is protected as it was made.
        if (record !== undefined && record.state !== 'destroyed' && record.version > 1) this.#note(name);
      }
      this.#seen = seq;
      return;
    }
    const read = (after = this.#seen) => store.listAudit({ after, bulk: false, limit: PAGE });
    for await (const { seq, action, key } of allItems(read, (record) => record.seq)) {
      if (CHANGES.has(action) && key !== undefined) this.#note(key);
      this.#seen = seq;
    }
  }

  #note(name: string): void {
    this.#pending.set(name, {});
  }

  /** @returns whether nothing of the key is left to do. */
  async #protect(name: string): Promise<boolean> {
    const { caller, logger, restMs = REST_MS } = this.#deps;
    const { signal } = this.#stopping;
    const inTurn = { until: signal, rests: (outside: string) => this.#rests(outside) };
    try {
      for (let before = NOTHING, needs = NOTHING; ; before = needs) {
        needs = await this.#needsOf(name);
        for (const outside of new Set(before.flat()).difference(new Set(needs.flat())))
          this.#failures.delete(outside);
        if (needs.length === 0) {
          if (before.length > 0)
            logger.info({ keyName: name }, 'the older versions of a key are protected as its new ones are');
          return true;
        }
        const pending = { ...this.#pending.get(name), needs };
        this.#pending.set(name, pending);
        if (this.#mustWait(pending) || !(await this.#claim())) return false;
        const { outside } = await rewrapVersions(this.#deps, { name }, caller, inTurn);
        if (outside !== undefined) this.#failures.delete(outside.key);
        await delay(restMs, undefined, { signal });
      }
    } catch (error) {
      if (hasCode(error, ...OUTSIDE_FAULTS, 'key_damaged')) this.#fail(name, error);
      else if (hasCode(error, 'key_destroyed', 'key_not_found')) return true;
      else throw error;
      return false;
    }
  }

  async #needsOf(name: string): Promise<Needs> {
    const key = await readStoredKey(this.#deps, name, 'all');
    if (key.record.state === 'destroyed') return [];
    return versionsLeft(this.#deps, key).map(({ needs }) => needs);
  }

  #rests(outside: string): boolean {
    return this.#isFresh(this.#failures.get(outside));
  }

  #isFresh(failure: Failure | undefined): boolean {
    return failure !== undefined && this.#deps.clock.monotonic() < failure.untilMs;
  }

  /** Whether the key has just failed, or all that is left of it needs an outside key that has. */
  #mustWait({ needs, failure }: Pending): boolean {
    if (this.#isFresh(failure)) return true;
    return needs?.every((names) => names.some((outside) => this.#rests(outside))) ?? false;
  }

  /** The outside key that has failed rests, or all when nobody knows which. The key has its turn last. */
  #fail(name: string, { code, outsideKey }: AppError): void {
    const pending = this.#pending.get(name);
    const isOutside = OUTSIDE_FAULTS.some((fault) => fault === code);
    const unknown = isOutside ? new Set(pending?.needs?.flat()) : [];
    for (const outside of outsideKey === undefined ? unknown : [outsideKey]) {
      const failure = this.#next(this.#failures.get(outside));
      this.#failures.set(outside, failure);
      if (failure.count === 1)
        this.#deps.logger.warn({ outside, code }, 'older versions of keys wait for their outside key');
    }
    this.#pending.delete(name);
    this.#pending.set(name, { ...pending, failure: this.#next(pending?.failure) });
  }

  #next(last: Failure | undefined): Failure {
    const count = (last?.count ?? 0) + 1;
    return { count, untilMs: this.#deps.clock.monotonic() + backoffMs(BACKOFF, count) };
  }

  async #claim(): Promise<boolean> {
    const { store, clock, holder } = this.#deps;
    const nowMs = clock.now();
    const [now, until] = [nowMs, nowMs + CLAIM_MS].map((ms) => new Date(ms).toISOString()) as [
      string,
      string,
    ];
    return store.claim({ task: TASK, holder, now, until });
  }
}
