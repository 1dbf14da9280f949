import { setTimeout as delay } from 'node:timers/promises';
import { hasCode } from '@bundoc/shared/contract/app-error';
import { type AttachedKey, OUTSIDE_FAULTS } from '@bundoc/shared/contract/keys';
import { backoffMs } from '@bundoc/shared/runtime/backoff';
import type { Caller } from '../records/caller.ts';
import type { ClusterStore } from '../store/cluster.ts';
import { allItems } from '../store/page.ts';
import { rewrapVersions } from './attach-key.ts';
import { otherVersions, outsideNames } from './outside-state.ts';
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

/** An outside key that has failed. */
interface Failure {
  readonly count: number;
  readonly untilMs: number;
}

/**
 * Protects older versions of keys as their new ones are, in the background: after an attachment, a
 * detachment, and a move to another outside key. Only the stored data determine what is left, so any process
 * continues after an interruption; a claim lets one work at a time. It asks each outside key for one version
 * after another, so exports find places. Keys whose outside key fails wait, and stay as they are.
 */
export class VersionProtection {
  readonly #deps: VersionProtectionDeps;
  readonly #stopping = new AbortController();
  #running: Promise<void> | undefined;
  /** The last record of the chain that was looked at; undefined before all keys were. */
  #seen: number | undefined;
  /** Keys that may have something left, with the outside keys that it needs; empty while that is unknown. */
  readonly #pending = new Map<string, ReadonlySet<string>>();
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
        for (const [name, needed] of [...this.#pending]) {
          signal.throwIfAborted();
          if (this.#mustWait(needed)) continue;
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
    this.#pending.set(name, new Set());
  }

  /** @returns whether nothing of the key is left to do. */
  async #protect(name: string): Promise<boolean> {
    const { caller, logger, restMs = REST_MS } = this.#deps;
    const { signal } = this.#stopping;
    let needed: ReadonlySet<string> = new Set();
    try {
      needed = await this.#neededFor(name);
      if (needed.size === 0) return true;
      this.#pending.set(name, needed);
      if (this.#mustWait(needed)) return false;
      for (let key: AttachedKey | undefined; key === undefined || key.other_versions.length > 0; ) {
        if (!(await this.#claim())) return false;
        key = await rewrapVersions(this.#deps, { name }, caller, signal);
        await delay(restMs, undefined, { signal });
      }
      for (const outside of needed) this.#failures.delete(outside);
      logger.info({ keyName: name }, 'the older versions of a key are protected as its new ones are');
      return true;
    } catch (error) {
      if (hasCode(error, ...OUTSIDE_FAULTS)) this.#fail(needed, error.code);
      else if (hasCode(error, 'key_destroyed', 'key_not_found', 'key_damaged')) return true;
      else throw error;
      return false;
    }
  }

  /** The outside keys that the rest needs; empty when nothing is left. */
  async #neededFor(name: string): Promise<ReadonlySet<string>> {
    const key = await readStoredKey(this.#deps, name, 'all');
    if (key.record.state === 'destroyed') return new Set();
    const names = outsideNames(this.#deps, key);
    const others = otherVersions(this.#deps, key, names);
    if (others.length === 0) return new Set();
    const former = others.flatMap(({ version }) => names.get(version) ?? []);
    return new Set([...(key.record.outside === null ? [] : [key.record.outside.key]), ...former]);
  }

  #mustWait(needed: ReadonlySet<string>): boolean {
    const nowMs = this.#deps.clock.monotonic();
    return [...needed].some((outside) => nowMs < (this.#failures.get(outside)?.untilMs ?? 0));
  }

  /** One of them has failed. Nobody knows which, so all of them rest. */
  #fail(needed: ReadonlySet<string>, code: string): void {
    const { clock, logger } = this.#deps;
    for (const outside of needed) {
      const count = (this.#failures.get(outside)?.count ?? 0) + 1;
      this.#failures.set(outside, { count, untilMs: clock.monotonic() + backoffMs(BACKOFF, count) });
      if (count === 1) logger.warn({ outside, code }, 'older versions of keys wait for their outside key');
    }
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
