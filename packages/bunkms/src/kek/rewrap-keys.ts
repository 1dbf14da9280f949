import assert from 'node:assert/strict';
import { setImmediate as turn } from 'node:timers/promises';
import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import { requireOpens } from '../keys/open-dek.ts';
import { rewrapDek, rewrapSecret } from '../keys/rewrap-dek.ts';
import { authenticate, stampOf } from '../keys/stored-key.ts';
import type { Caller } from '../records/caller.ts';
import { draftNow } from '../records/draft-now.ts';
import type { WrappedSecrets } from '../records/installation.ts';
import type { KekState } from '../records/kek-state.ts';
import { type KeyVersionRecord, keyChangeDraft, type NamedKey, withDigests } from '../records/key-record.ts';
import { kekIdOf } from '../records/wrapped-key.ts';
import type { KeyUpdate } from '../store/keys.ts';
import type { KekDeps } from './kek-rotation.ts';

export interface RewrapDeps extends KekDeps {
  readonly caller: Caller;
  /** Id of this process among those that may do the same work. */
  readonly holder: string;
  /** Versions per transaction; {@link BATCH} unless a test sets it. */
  readonly batch?: number;
}

/**
 * Versions per transaction. Exports wait for a transaction, so it is small. Each needs a sync, so it is not
 * too small.
 */
const BATCH = 40;
/** Versions that are wrapped in one turn of the event loop. */
const AT_ONCE = 8;
const TASK = 'kek-rotation';
/** How long the claim of a silent process lasts, milliseconds. */
const CLAIM_MS = 15_000;
const CLAIM_AGAIN_MS = 5_000;
/** Maximum passes. Keys that others change during a pass are left for another pass. */
const PASSES_MAX = 32;

/** The outcome of a run. */
export type RewrapOutcome = 'nothing to do' | 'others are working' | 'stopped' | 'done';

/**
 * After a rotation, rewraps everything under other KEKs with the current one: first all versions of all keys,
 * then the service's own secrets. A transaction covers some keys, with an audit record for each. Only the
 * stored data determine the remaining work, so any process can continue after an interruption. After each
 * step everything is readable with a ring that has both KEKs.
 *
 * A key keeps its revision, because none of its public facts change. Versions that do not open are not
 * changed.
 */
export class KeyRewrap {
  readonly #deps: RewrapDeps;
  #running: Promise<RewrapOutcome> | undefined;
  #claimedAtMs = 0;
  #isStopped = false;
  #wrapped = 0;
  /** How many versions the last complete run left, because they do not open. */
  #left = -1;

  constructor(deps: RewrapDeps) {
    this.#deps = deps;
  }

  /**
   * Does all pending work. Concurrent calls share one run. Never rejects: failures are logged, and the next
   * call retries.
   */
  run(): Promise<RewrapOutcome> {
    this.#running ??= this.#run().finally(() => {
      this.#running = undefined;
    });
    return this.#running;
  }

  /** Stops a run after its present step. Later calls do nothing. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    await this.#running;
  }

  async #run(): Promise<RewrapOutcome> {
    const { store, logger, holder } = this.#deps;
    try {
      if (this.#isStopped || !(await this.#hasWork())) return 'nothing to do';
      if (!(await this.#claim())) return 'others are working';
      try {
        // The former holder of the claim may have finished before this process got it.
        return (await this.#hasWork()) ? await this.#rewrapAll() : 'nothing to do';
      } finally {
        await store.release({ task: TASK, holder });
      }
    } catch (error) {
      logger.warn({ err: error }, 'the rewrapping of keys was interrupted and continues later');
      return 'stopped';
    }
  }

  async #hasWork(): Promise<boolean> {
    const { store, keks } = this.#deps;
    const { rotation, current } = await keks.refresh();
    if (rotation === undefined) return false;
    if (rotation.completedAt === undefined) return true;
    const left = await store.countNotWrappedBy(current);
    return left > 0 && left !== this.#left;
  }

  /** Claims the work for this process, or extends its claim. @returns false when another process has it. */
  async #claim(): Promise<boolean> {
    const { store, clock, holder } = this.#deps;
    this.#claimedAtMs = clock.monotonic();
    const nowMs = clock.now();
    const until = new Date(nowMs + CLAIM_MS).toISOString();
    return store.claim({ task: TASK, holder, now: new Date(nowMs).toISOString(), until });
  }

  async #rewrapAll(): Promise<RewrapOutcome> {
    const { store, keks, logger, clock } = this.#deps;
    const begunMs = clock.monotonic();
    for (let pass = 0; pass < PASSES_MAX; pass++) {
      const state = await keks.refresh();
      const overtaken = await this.#pass(state);
      if (overtaken === 'stopped') return 'stopped';
      if (overtaken > 0 || !(await this.#rewrapSecrets(state))) continue;
      const left = await store.countNotWrappedBy(state.current);
      if (!(await this.#recordEnd(state, left))) continue;
      this.#left = left;
      const ms = Math.round(clock.monotonic() - begunMs);
      logger.info({ kekId: state.current, ms, left }, 'everything is wrapped with the current KEK');
      return 'done';
    }
    throw new AppError('overloaded');
  }

  /**
   * Makes one pass over everything under other KEKs. @returns how many keys others changed in the meantime.
   */
  async #pass({ current }: KekState): Promise<number | 'stopped'> {
    const { store, batch = BATCH } = this.#deps;
    let overtaken = 0;
    for (const { kekId, versions } of await store.kekUses()) {
      if (kekId === current || versions === 0) continue;
      let next = store.listWrapped(kekId, { limit: batch });
      for (let more = true; more; ) {
        const page = await next;
        more = page.more;
        // Read the next page while this one is wrapped and written.
        if (more) next = store.listWrapped(kekId, { after: idOf(page.items.at(-1)), limit: batch });
        // If this page fails, nobody awaits the next one.
        next.catch(() => undefined);
        if (this.#isStopped || !(await this.#isOurs())) return 'stopped';
        overtaken += await this.#rewrapBatch(page.items);
      }
    }
    return overtaken;
  }

  async #isOurs(): Promise<boolean> {
    const isFresh = this.#deps.clock.monotonic() - this.#claimedAtMs < CLAIM_AGAIN_MS;
    return isFresh || (await this.#claim());
  }

  /** @returns how many of the keys others changed in the meantime. */
  async #rewrapBatch(keys: readonly NamedKey[]): Promise<number> {
    const { store, batch = BATCH } = this.#deps;
    let overtaken = 0;
    let changes: KeyUpdate[] = [];
    let versions = 0;
    const write = async (): Promise<void> => {
      const receipts = await store.updateKeys(changes);
      overtaken += receipts.filter((receipt) => receipt === undefined).length;
      changes = [];
      versions = 0;
    };
    for (const key of keys) {
      const change = await this.#rewrapped(key);
      if (change === undefined) continue;
      changes.push(change);
      versions += change.versions.length;
      if (versions >= batch) await write();
    }
    if (versions > 0) await write();
    return overtaken;
  }

  /**
   * The key with all versions that open wrapped with the current KEK; undefined when there is nothing to
   * rewrap.
   */
  async #rewrapped(stored: NamedKey): Promise<KeyUpdate | undefined> {
    const deps = this.#deps;
    const key = authenticate(deps, stored.name, stored);
    if (key === undefined) return undefined;
    const { record: previous } = key;
    const versions: KeyVersionRecord[] = [];
    for (const version of key.versions) {
      if (++this.#wrapped % AT_ONCE === 0) await turn();
      const renewed = rewrappedVersion(deps, previous.name, version);
      if (renewed !== undefined) versions.push(renewed);
    }
    if (versions.length === 0) return undefined;
    // From the bytes: the current KEK may have changed during this; then the store refuses the update.
    const kekId = kekIdOf(versions.at(-1)?.wrapped ?? new Uint8Array()) ?? '';
    const record = {
      ...previous,
      kekIds: previous.kekIds.includes(kekId) ? previous.kekIds : [...previous.kekIds, kekId],
      versionDigests: withDigests(previous.versionDigests, versions),
    };
    const { caller, clock } = deps;
    const origin = { caller, time: new Date(clock.now()).toISOString(), action: 'kek.rewrap' };
    const audit = keyChangeDraft(origin, record, { detail: { kek_id: kekId } });
    return { record, versions, previous: stampOf(previous), audit };
  }

  /**
   * The last step. So a service whose former KEK is removed from the ring too early stays sealed, and never
   * runs with only some of its keys.
   */
  async #rewrapSecrets({ current }: KekState): Promise<boolean> {
    const { store, vault, caller } = this.#deps;
    const installation = await store.readInstallation();
    assert(installation !== undefined, 'an unsealed store has an installation');
    const { chainKeyWrapped, signingSeedWrapped } = installation;
    if (kekIdOf(chainKeyWrapped) === current && kekIdOf(signingSeedWrapped) === current) return true;
    const secrets: WrappedSecrets = {
      chainKeyWrapped: rewrapSecret(vault, chainKeyWrapped, 'audit-chain-key'),
      signingSeedWrapped: rewrapSecret(vault, signingSeedWrapped, 'token-signing-seed'),
    };
    const detail = { kek_id: kekIdOf(secrets.chainKeyWrapped) ?? '' };
    const draft = draftNow(this.#deps, caller, 'kek.rewrap_secrets', { detail });
    return store.replaceSecrets(secrets, installation, draft);
  }

  /** @returns false when an administrator has rotated, staged or retired a KEK in the meantime. */
  async #recordEnd({ current, rotation, seq }: KekState, left: number): Promise<boolean> {
    const { store, caller, keks } = this.#deps;
    if (rotation === undefined || rotation.completedAt !== undefined) return true;
    const detail = { kek_id: current, rotation: rotation.seq, damaged: left };
    const draft = draftNow(this.#deps, caller, 'kek.rewrapped', { detail });
    const [receipt] = await store.appendAudit([draft], [{ kekRecord: seq }]);
    await keks.refresh();
    return receipt !== undefined && typeof receipt !== 'string';
  }
}

function idOf(key: NamedKey | undefined): string {
  // A version without a key has the id as its name.
  return key?.record?.id ?? key?.name ?? '';
}

/** The version wrapped with the current KEK; undefined when it already is, has no bytes, or does not open. */
function rewrappedVersion(
  deps: RewrapDeps,
  name: string,
  version: KeyVersionRecord,
): KeyVersionRecord | undefined {
  const { vault } = deps;
  if (version.state === 'destroyed' || kekIdOf(version.wrapped) === vault.currentKekId) return undefined;
  try {
    // This also compares the check value, which a rewrap alone does not.
    requireOpens(deps, name, version);
    return { ...version, wrapped: rewrapDek(vault, name, version) };
  } catch (error) {
    if (hasCode(error, 'key_damaged')) return undefined;
    throw error;
  }
}
