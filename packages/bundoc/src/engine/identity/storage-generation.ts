import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import type { StorageInfo } from '@bundoc/shared/contract/storages';
import type { Logger } from '@bundoc/shared/logs/logger';
import { StartRefused } from '@bundoc/shared/process/lifecycle';
import type { ActingStorage, StorageCalls } from '../../kms/port.ts';
import type { ConfirmedGeneration } from '../../kms/storage-keys.ts';
import {
  ADVANCE_TRIES_MAX,
  generationsOf,
  type StorageFile,
  type StorageIdentity,
  withCandidate,
  withConfirmed,
} from './storage-file.ts';

/**
 * `unconfirmed`: BunKMS has not answered yet. `superseded`: it knows another generation, so another copy of
 * this storage is in use.
 */
export type GenerationState = 'unconfirmed' | 'confirmed' | 'superseded';

export interface StorageGenerationOptions {
  readonly id: string;
  readonly identity: StorageIdentity;
  readonly calls: Pick<StorageCalls, 'advanceStorage' | 'storageInfo'>;
  /** Where BunKMS is asked; for the log. */
  readonly kmsUrl: string;
  /** Why BunKMS is not reachable; undefined when it is. */
  readonly outage: () => Promise<unknown>;
  readonly logger: Logger;
  /**
   * Called when BunKMS knows of a take-over that the storage does not know, before the generation is
   * confirmed. A failure is retried.
   *
   * @param before the last one that the storage knows. @param takenOverMs the last one.
   */
  readonly onTakenOver?: (before: number, takenOverMs: number, signal: AbortSignal) => Promise<void>;
  /** Called when a generation was confirmed, so that waiting work can continue. */
  readonly onConfirmed?: () => void;
  /** Called when this storage must not be served any more. */
  readonly onSuperseded?: () => void;
  /** Waits; replaced in tests. */
  readonly pause?: (ms: number, signal: AbortSignal) => Promise<void>;
}

/** Interval of attempts to reach BunKMS, which may be starting, too. */
const WAIT_MS = 500;
/** Attempts after which BunKMS no longer counts as starting. */
const WAITS_WARN = 10;
/** Interval of attempts after a refusal or a failure. */
const RETRY_MS = 3_000;
/** The first interval when this copy was in use and another was let in: the other one goes first. */
const STEP_BACK_MS = 15_000;
/** Time for BunKMS to say which copy is in use, before this one stops. */
const CHECK_WITHIN_MS = 700;
/** Time between BunKMS's answer to another node and that node's record of it. */
const OTHER_NODE_MS = 2_000;
const OTHER_NODE_PAUSE_MS = 100;
/** The `Retry-After` of a caller. */
const RETRY_AFTER_S = { unconfirmed: 2, superseded: 30 } as const;

/**
 * The generation of this storage, new for each start, which lets BunKMS distinguish a storage from its
 * copies. Before BunKMS has confirmed one, and after it has refused it, {@link acting} throws, so no key is
 * available.
 *
 * A generation is durable here, as a candidate, before it is sent to BunKMS. So after a lost answer, the next
 * attempt names it.
 *
 * One class, because every step of the protocol with BunKMS changes one state.
 */
export class StorageGeneration implements ConfirmedGeneration, AsyncDisposable {
  readonly #options: StorageGenerationOptions;
  readonly #stopping = new AbortController();
  #state: GenerationState = 'unconfirmed';
  #confirmed: string | undefined;
  /** From BunKMS: the storage can neither trigger rotations of keys nor hide a take-over. */
  #takenOverMs = 0;
  /** Recorded, and not confirmed yet. */
  #candidate: string | undefined;
  #advancing: Promise<void> | undefined;
  #settling: Promise<void> | undefined;
  /** Ends the current pause. */
  #wake = () => {};
  #hasLogged = false;
  /** Attempts to reach BunKMS since it last answered. */
  #waits = 0;
  /** Incremented when another copy takes over, which makes earlier answers outdated. */
  #epoch = 0;
  readonly #answered = Promise.withResolvers<void>();

  constructor(options: StorageGenerationOptions) {
    this.#options = { ...options, identity: guardIdentity(options.identity) };
  }

  get id(): string {
    return this.#options.id;
  }

  get state(): GenerationState {
    return this.#state;
  }

  /** The confirmed generation; undefined in any other state. */
  get generation(): string | undefined {
    return this.#state === 'confirmed' ? this.#confirmed : undefined;
  }

  /** When an administrator last let a copy of this storage take over; 0 for never. */
  get takenOverMs(): number {
    return this.#takenOverMs;
  }

  /** Resolves when BunKMS is reachable for the first time. */
  get answered(): Promise<void> {
    return this.#answered.promise;
  }

  /**
   * Starts the confirmation of a generation. Never rejects; resolves when it is confirmed, or refused for the
   * first time.
   */
  start(): Promise<void> {
    return this.#settle(0);
  }

  acting(): ActingStorage {
    const { id } = this;
    if (this.#state === 'confirmed' && this.#confirmed !== undefined)
      return { storage: id, generation: this.#confirmed };
    if (this.#state === 'superseded')
      throw new AppError('storage_superseded', {
        storage: id,
        retryAfterS: RETRY_AFTER_S.superseded,
        // Clients with any token read this, so it does not name the generation.
        detail:
          'another copy of this storage is in use: stop it, then let an administrator take over (the log has the command)',
      });
    throw new AppError('kms_unavailable', {
      retryAfterS: RETRY_AFTER_S.unconfirmed,
      detail: 'BunKMS has not confirmed the generation of this storage yet',
    });
  }

  async refused({ generation }: ActingStorage): Promise<ActingStorage> {
    if (generation === this.#confirmed) {
      this.#advancing ??= this.#catchUp(generation).finally(() => {
        this.#advancing = undefined;
      });
      await this.#advancing;
    }
    return this.acting();
  }

  /**
   * Starts a new generation. Once resolved, earlier unanswered calls can no longer take effect.
   *
   * @throws AppError `storage_superseded`; `kms_unavailable`, and those of the storage: then the current
   *   generation stays.
   */
  async advance(): Promise<void> {
    this.acting();
    this.#advancing ??= this.#advance().finally(() => {
      this.#advancing = undefined;
    });
    try {
      await this.#advancing;
    } catch (error) {
      if (hasCode(error, 'storage_superseded')) this.#supersede();
      throw error;
    }
    this.acting();
  }

  /**
   * Handles an event: another copy of this storage has `generation`; undefined when an administrator lets the
   * next one that asks take over.
   */
  tookOver(generation: string | undefined): void {
    if (this.#state !== 'confirmed') this.#wake();
    else if (generation === undefined || ![this.#confirmed, this.#candidate].includes(generation))
      void this.#check(generation);
  }

  /**
   * Stops serving within a second, unless `generation`, or the one that BunKMS has, belongs to a node of this
   * storage. An event may be older than the present generation: that of a take-over arrives beside the start
   * of the copy that was let in.
   */
  async #check(generation: string | undefined): Promise<void> {
    const { identity, logger } = this.#options;
    const epoch = this.#epoch;
    const isOurs = async () => {
      const present = await identity.read();
      // A node records its generation before BunKMS has it, so BunKMS need not be asked.
      if (generation !== undefined && generationsOf(present).includes(generation)) return true;
      return await this.#isNoted(present, this.#confirmed, this.#candidate);
    };
    try {
      const stopped = sleep(CHECK_WITHIN_MS, false, { ref: false });
      if (await Promise.race([isOurs(), stopped])) return;
    } catch (error) {
      logger.warn({ err: error }, 'failed to check whether another copy of the storage is in use');
    }
    // It may have been stopped, and let in again, meanwhile.
    if (this.#state === 'confirmed' && epoch === this.#epoch) this.#supersede();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopping.abort();
    await Promise.allSettled([this.#settling, this.#advancing]);
  }

  get #remedy(): string {
    const generation = this.#candidate ?? this.#confirmed;
    const named = generation === undefined ? '' : ` --generation ${generation}`;
    return `stop it, then let an administrator take over (bunkms storage take-over ${this.id}${named})`;
  }

  /** Stops serving synchronously. */
  #supersede(): void {
    if (this.#state === 'superseded') return;
    const wasServing = this.#state === 'confirmed';
    this.#epoch++;
    this.#state = 'superseded';
    this.#logSuperseded();
    this.#options.onSuperseded?.();
    if (wasServing) void this.#settle(STEP_BACK_MS);
  }

  #logSuperseded(): void {
    if (this.#hasLogged) return;
    this.#hasLogged = true;
    this.#options.logger.error(
      { storage: this.id, generation: this.#candidate ?? this.#confirmed },
      `another copy of this storage is in use, so nothing is served: ${this.#remedy}`,
    );
  }

  /** Tries until a generation is confirmed. Only one such loop runs at a time. */
  #settle(firstPauseMs: number): Promise<void> {
    const known = Promise.withResolvers<void>();
    const { signal } = this.#stopping;
    const run = async () => {
      let pauseMs = firstPauseMs;
      while (!signal.aborted) {
        if (pauseMs > 0) await this.#pause(pauseMs);
        if (signal.aborted) break;
        pauseMs = await this.#tryOnce();
        if (pauseMs === 0) break;
        if (this.#state === 'superseded') known.resolve();
      }
      known.resolve();
    };
    const before = this.#settling;
    this.#settling = (async () => {
      await before;
      await run();
    })();
    return known.promise;
  }

  /** @returns the pause before the next attempt; 0 once it is confirmed. */
  async #tryOnce(): Promise<number> {
    const { kmsUrl, logger, onConfirmed } = this.#options;
    if (this.#state === 'confirmed') return 0;
    const outage = await this.#options.outage();
    if (outage !== undefined) {
      this.#waits++;
      const level = this.#waits === 1 ? 'info' : this.#waits >= WAITS_WARN ? 'warn' : 'debug';
      // The logger repeats a warning once a minute.
      logger[level](
        { err: outage, url: kmsUrl },
        `waiting for BunKMS at ${kmsUrl} (BUNDOC_KMS_URL; see bundoc doctor)`,
      );
      return WAIT_MS;
    }
    this.#waits = 0;
    this.#answered.resolve();
    try {
      await this.#advance();
      // Another copy took over in the meantime.
      if (this.generation === undefined) return RETRY_MS;
      logger.info({ storage: this.id, generation: this.#confirmed }, 'BunKMS has confirmed this storage');
      this.#hasLogged = false;
      onConfirmed?.();
      return 0;
    } catch (error) {
      if (hasCode(error, 'storage_superseded')) {
        this.#supersede();
        return RETRY_MS;
      }
      logger.warn({ err: error }, 'the generation of the storage could not be advanced yet');
      return RETRY_MS;
    }
  }

  /** @throws AppError `storage_superseded`, those of the key service and of the storage. */
  async #advance(): Promise<void> {
    const { identity, calls } = this.#options;
    const epoch = this.#epoch;
    for (let tries = 1; ; tries++) {
      const file = await identity.change((present) => {
        // Another node has confirmed a later one: BunKMS must not go back to this candidate.
        if (this.#candidate === undefined || !present.candidates.includes(this.#candidate))
          this.#candidate = randomUUID();
        return withCandidate(present, this.#candidate);
      });
      const candidate = this.#candidate as string;
      try {
        // BunKMS must follow the order of the records. From a later one, it would move to a candidate that
        // the later one's confirmation removes.
        const noted = generationsOf(file);
        const from = noted.slice(0, noted.indexOf(candidate));
        const info = await calls.advanceStorage(this.id, from, candidate);
        // Durable before the time is: after a crash in between, the next start does it again.
        if (info.taken_over_ms !== file.takenOverMs)
          await this.#options.onTakenOver?.(file.takenOverMs, info.taken_over_ms, this.#stopping.signal);
        const confirmed = await identity.change((present) => ({
          ...withConfirmed(present, candidate),
          // A time that differs now is that of another node, which may be later.
          takenOverMs: present.takenOverMs === file.takenOverMs ? info.taken_over_ms : present.takenOverMs,
        }));
        this.#candidate = undefined;
        if (epoch === this.#epoch) this.#take(confirmed);
        this.#learn(info);
        return;
      } catch (error) {
        if (!hasCode(error, 'storage_superseded') || tries === ADVANCE_TRIES_MAX) throw error;
        // Another node was faster, and has recorded its generation after this one. A later candidate follows
        // it.
        if (!(await this.#isNoted(file))) throw error;
        this.#candidate = undefined;
      }
    }
  }

  /**
   * Whether BunKMS has a generation that is recorded here. @param before the earlier file. @param own other
   * generations of this process.
   */
  async #isNoted(before: StorageFile, ...own: readonly (string | undefined)[]): Promise<boolean> {
    const { identity, calls } = this.#options;
    for (let former = before; ; ) {
      const info = await calls.storageInfo(this.id);
      this.#learn(info);
      const { generation } = info;
      if (generation === undefined) return false;
      const present = await identity.read();
      // A generation is recorded before BunKMS has it, and stays until a later one is confirmed.
      const noted = [former, present].flatMap(generationsOf);
      if ([...own, ...noted].includes(generation)) return true;
      if (present.generation === former.generation) return false;
      former = present;
    }
  }

  /**
   * Finds the current generation after BunKMS has refused `generation`. Throws what {@link #advance} does.
   */
  async #catchUp(generation: string): Promise<void> {
    const { identity } = this.#options;
    for (let waitedMs = 0; ; waitedMs += OTHER_NODE_PAUSE_MS) {
      const file = await identity.read();
      if (this.#state !== 'confirmed') return;
      if (file.generation !== undefined && file.generation !== generation) {
        // The other node may know of a take-over.
        this.#learn(await this.#options.calls.storageInfo(this.id));
        return this.#take(file);
      }
      // Without candidates, no other node is advancing: another copy of the storage is in use.
      if (file.candidates.length === 0) return this.#supersede();
      if (waitedMs >= OTHER_NODE_MS) break;
      await sleep(OTHER_NODE_PAUSE_MS);
    }
    try {
      // The other node has died between BunKMS's answer and its record.
      await this.#advance();
    } catch (error) {
      if (!hasCode(error, 'storage_superseded')) throw error;
      this.#supersede();
    }
  }

  #learn({ taken_over_ms: takenOverMs }: StorageInfo): void {
    this.#takenOverMs = Math.max(this.#takenOverMs, takenOverMs);
  }

  #take({ generation }: StorageFile): void {
    this.#confirmed = generation;
    this.#state = 'confirmed';
  }

  async #pause(ms: number): Promise<void> {
    const { pause = wait } = this.#options;
    const woken = new AbortController();
    this.#wake = () => woken.abort();
    await pause(ms, AbortSignal.any([woken.signal, this.#stopping.signal])).catch(() => undefined);
  }
}

/**
 * After the start, a lost or damaged identity makes the storage unavailable, instead of refusing the start.
 */
function guardIdentity(identity: StorageIdentity): StorageIdentity {
  const guarded = async <T>(action: Promise<T>): Promise<T> => {
    try {
      return await action;
    } catch (error) {
      if (!(error instanceof StartRefused)) throw error;
      throw new AppError('storage_unavailable', { cause: error, retryAfterS: RETRY_AFTER_S.superseded });
    }
  };
  return {
    read: () => guarded(identity.read()),
    change: (change) => guarded(identity.change(change)),
    ageS: () => identity.ageS(),
  };
}

function wait(ms: number, signal: AbortSignal): Promise<void> {
  return sleep(ms, undefined, { signal, ref: false });
}
