import { setTimeout as sleep } from 'node:timers/promises';
import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import type { ProjectFile } from '@bundoc/shared/contract/project-file';
import { type Clock, instant } from '@bundoc/shared/runtime/clock';
import type { Logger } from '@bundoc/shared/runtime/logger';
import { KeyedMutex } from '@bundoc/shared/runtime/mutex';
import { shareIn } from '@bundoc/shared/shares/share-key';
import { type DefinedStore, openDefinedStore } from '../collections/defined-store.ts';
import type { CollectionStore } from '../collections/port.ts';
import type { KeyCache } from '../crypto/key-cache.ts';
import type { ProjectCipher } from '../crypto/project-cipher.ts';
import type { Cursors } from '../crypto/sealed-cursor.ts';
import type { ExpiryMarks } from '../engine/expiry-marks.ts';
import type { Position, ProjectStore } from '../engine/port.ts';
import type { LeasedKeys } from '../engine/project-file.ts';
import type { OpenedProject, Projects } from '../engine/projects.ts';
import type { OwnWork } from '../work/scheduler.ts';
import { createServiceShares, type ServiceShares } from '../work/service-shares.ts';
import { ProjectChangeWaiter } from './project-change-waiter.ts';
import { ProjectInstance } from './project-instance.ts';
import { SegmentedLru } from './segmented-lru.ts';
import { SlotPool } from './slot-pool.ts';

export interface InstanceManagerOptions {
  readonly projects: Projects;
  readonly keys: KeyCache;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Makes the store of a project that was found in order, and whose key was. */
  readonly openStore: (project: string, opened: OpenedProject) => Promise<ProjectStore>;
  /** Throws an AppError while nothing of this storage may be opened or changed. */
  readonly requireServed?: () => void;
  /** What keeps that documents of a project may expire. */
  readonly expiry?: Pick<ExpiryMarks, 'mark' | 'ensureMarked'>;
  /** Bytes of memory that open projects take at most; one project may be open in any case. */
  readonly openBytesMax?: number;
  readonly shares?: Pick<ServiceShares, 'lookups' | 'openings'>;
  /** Bytes in which the storage keeps what an open project has in memory; 0 where that is not known. */
  readonly storedBytes?: (project: string, entries?: readonly string[]) => Promise<number>;
  /** How long a project stays open unused, milliseconds. */
  readonly idleTtlMs?: number;
  /** How long projects that are closed at the end may take to prepare for it, milliseconds. */
  readonly prepareWithinMs?: number;
  /** Begins work of the service itself for a project. */
  readonly ownWork?: (project: string) => OwnWork;
  /** Whether other processes write to the same storage, so that a project which is closed here may change. */
  readonly isShared?: boolean;
}

/** An open project, held until disposed: `using lease = await manager.acquire(…)`. */
export interface InstanceLease extends Disposable {
  readonly store: CollectionStore;
  readonly cipher: ProjectCipher;
  /** `project.json` as it is now. */
  readonly file: ProjectFile;
  readonly cursors: Cursors;
}

/** What every open project takes at least: keys, ciphers, and the store itself. */
const PROJECT_BYTES = 32_768;
/** What it takes beyond that counts in steps: most commits change nothing of it. */
const CHARGE_STEP_BYTES = 4_096;
/** What was stored takes that many times its bytes in memory. */
const STORED_TO_MEMORY = 2;
/** Sweeps within which each open project is looked at, and how many are looked at in each sweep at least. */
const SWEEPS_A_ROUND = 60;
const LOOKS_A_SWEEP_MIN = 16;
/** How long the users of a project have to leave it. */
const WAIT_FOR_USERS_MS = 4_500;
/**
 * Beside the time that requests have to end, within that of an orderly stop (`STOP_TIMEOUT_MS`), with room
 * for a step that is under way.
 */
const PREPARE_WITHIN_MS = 3_000;

/** What open projects may be in need of, beside requests. */
export type Need = 'reseal' | 'definitions' | 'expiry';

/**
 * Maps project ids to open projects. Opens lazily, one opening a project at a time. Keeps as many open as
 * have room in a bounded memory: those that were used once close first, then the ones used longest ago.
 * Closes what is idle, what failed, and what has lost its key.
 *
 * A new instance of a project is not opened before the old one is closed, so that there is one writer at any
 * time.
 */
export class InstanceManager implements AsyncDisposable {
  readonly #options: InstanceManagerOptions;
  readonly #idleTtlMs: number;
  /** Open projects. */
  readonly #hot = new Map<string, ProjectInstance>();
  /** In which order they make room. */
  readonly #order: SegmentedLru<ProjectInstance>;
  /** Those that need something. */
  readonly #inNeed: Readonly<Record<Need, Set<ProjectInstance>>> = {
    reseal: new Set(),
    definitions: new Set(),
    expiry: new Set(),
  };
  /** Where the next sweep goes on, and how many projects it looks at. */
  #round: Iterator<ProjectInstance> = this.#hot.values();
  #looks = 0;
  #sweeps = 0;
  /** Projects that are closing, with the end of it. */
  readonly #closing = new Map<string, PromiseWithResolvers<void>>();
  readonly #openings = new KeyedMutex();
  readonly #shares: Pick<ServiceShares, 'lookups' | 'openings'>;
  /** One for each project that is open or being opened. */
  readonly #slots: SlotPool;
  readonly #changeWaits: ProjectChangeWaiter;
  /** Rejects when the end has no time left for what projects would do before they close. */
  readonly #outOfTime = Promise.withResolvers<never>();
  #closed = false;

  constructor(options: InstanceManagerOptions) {
    this.#options = options;
    this.#shares = options.shares ?? createServiceShares();
    this.#outOfTime.promise.catch(() => undefined);
    this.#idleTtlMs = options.idleTtlMs ?? 600_000;
    const bytesMax = options.openBytesMax ?? Number.POSITIVE_INFINITY;
    this.#order = new SegmentedLru(bytesMax);
    this.#slots = new SlotPool(bytesMax, () => this.#retireUnused());
    this.#changeWaits = new ProjectChangeWaiter(this, options.isShared === true);
  }

  /** Number of open projects. */
  get size(): number {
    return this.#hot.size;
  }

  /** Bytes of memory that open projects are taken to need, those being opened included. */
  get bytes(): number {
    return this.#slots.bytes;
  }

  /** Projects that wait to be looked for, for room, or to be opened. */
  get openingsWaiting(): number {
    const { lookups, openings } = this.#shares;
    return lookups.waiting + this.#slots.waiting + openings.waiting;
  }

  /**
   * @returns the open project; undefined when it does not exist and `mode` is `existing`.
   * @throws AppError `key_missing`, `key_mismatch`, `project_damaged`, `kms_unavailable`, `overloaded` and
   * the errors of the disk.
   */
  acquire(project: string, mode: 'create'): Promise<InstanceLease>;
  acquire(project: string, mode: 'existing'): Promise<InstanceLease | undefined>;
  async acquire(project: string, mode: 'existing' | 'create'): Promise<InstanceLease | undefined> {
    const hot = this.#usable(project);
    if (hot !== undefined) return this.#lease(hot);
    return this.#openings.run(project, async () => {
      this.#options.requireServed?.();
      const instance = this.#usable(project);
      return instance === undefined ? this.#open(project, mode) : this.#lease(instance);
    });
  }

  /**
   * The store of a project that is open already and may be used: without a lease, so for this turn of the
   * event loop alone. Undefined says nothing; {@link acquire} opens it, and tells what is wrong.
   */
  peekStore(project: string): CollectionStore | undefined {
    const instance = this.#usable(project);
    if (instance === undefined) return undefined;
    instance.wasUsed = true;
    return instance.store;
  }

  /** The store of a project that is open, whether it may be used or not. This does not count as a use. */
  storeIfOpen(project: string): DefinedStore | undefined {
    return this.#hot.get(project)?.store;
  }

  /** Ids of open projects that are in need of something. */
  projectsInNeed(need: Need): readonly string[] {
    return Array.from(this.#inNeed[need], ({ project }) => project);
  }

  /**
   * Open projects that are in need of something and may be used; each is held until the next one is asked
   * for.
   *
   * @param projects only those; all that are in need by default.
   */
  *eachInNeed(
    need: Need,
    projects: readonly string[] = this.projectsInNeed(need),
  ): Generator<{ readonly project: string; readonly store: DefinedStore }> {
    for (const project of projects) {
      const instance = this.#hot.get(project);
      if (instance === undefined || !this.#inNeed[need].has(instance)) continue;
      if (instance.store.failed || !instance.hasKeys(this.#options.keys)) continue;
      instance.users++;
      try {
        yield instance;
      } finally {
        this.#noteNeeds(instance);
        this.#release(instance);
      }
    }
  }

  /**
   * Runs `action` while nobody opens the project. What it is given takes the project out of use, and resolves
   * when its last user has left; its error is `overloaded` when that takes too long.
   */
  async exclusively<T>(project: string, action: (close: () => Promise<void>) => Promise<T>): Promise<T> {
    if (this.#closed) throw new AppError('overloaded', { detail: 'the server is stopping' });
    this.#options.requireServed?.();
    const close = async () => {
      const instance = this.#hot.get(project);
      if (instance !== undefined) this.#retire(instance);
      await Promise.race([
        this.#closing.get(project)?.promise,
        sleep(WAIT_FOR_USERS_MS, undefined, { ref: false }),
      ]);
      if (this.#closing.has(project))
        throw new AppError('overloaded', { detail: 'requests to the project are under way', retryAfterS: 2 });
    };
    return this.#openings.run(project, () => action(close));
  }

  /** Whether a project is open, and its key in memory. This does not count as a use. */
  stateOf(project: string): { readonly isOpen: boolean; readonly isKeyCached: boolean } {
    return { isOpen: this.#hot.has(project), isKeyCached: this.#options.keys.has(project) };
  }

  /**
   * Waits until something behind `after` is committed in a project. No project is kept open, or kept from
   * closing, by it.
   *
   * @returns false when the signal was aborted.
   * @throws AppError of {@link acquire} where others write and the project cannot be opened any more.
   */
  waitForChange(project: string, after: Position, signal: AbortSignal): Promise<boolean> {
    return this.#changeWaits.wait(project, after, signal);
  }

  /**
   * Closes what has lost its key, and what is idle among some of the open projects: within a minute, among
   * all. To be called every second or so.
   */
  sweep(): void {
    this.#sweeps++;
    const { clock, keys } = this.#options;
    keys.sweep();
    for (const project of keys.takeLost()) {
      const instance = this.#hot.get(project);
      if (instance?.hasKeys(keys) === false) this.#retire(instance);
    }
    // Not fewer as projects are closed: the round is to end in time.
    this.#looks = Math.max(this.#looks, LOOKS_A_SWEEP_MIN, Math.ceil(this.#hot.size / SWEEPS_A_ROUND));
    for (let left = Math.min(this.#looks, this.#hot.size); left > 0; left--) {
      const instance = this.#nextInRound();
      if (instance === undefined) return;
      if (instance.isIdle(clock, this.#idleTtlMs) || !instance.hasKeys(keys)) this.#retire(instance);
    }
  }

  #nextInRound(): ProjectInstance | undefined {
    const next = this.#round.next();
    if (next.done !== true) return next.value;
    this.#round = this.#hot.values();
    this.#looks = 0;
    return this.#round.next().value;
  }

  /**
   * Opens a project that nobody has open, for `action` alone: it makes no other one close, and is closed
   * again unless somebody has come meanwhile.
   *
   * @returns `done`, or why nothing was done.
   * @throws AppError as {@link acquire}, and what `action` throws.
   */
  async visit(
    project: string,
    action: (store: DefinedStore) => Promise<void>,
  ): Promise<'done' | 'open' | 'no-room' | 'absent'> {
    if (this.#hot.has(project)) return 'open';
    if (!this.#slots.hasRoomFor(await this.#bytesToReserve(project))) return 'no-room';
    const lease = await this.acquire(project, 'existing');
    if (lease === undefined) return 'absent';
    const instance = this.#hot.get(project);
    const lastUsed = instance?.lastUsed;
    try {
      // Its key may have been withdrawn since.
      if (instance === undefined) return 'no-room';
      await action(instance.store);
      return 'done';
    } finally {
      lease[Symbol.dispose]();
      if (instance?.users === 0 && !instance.wasUsed && instance.lastUsed === lastUsed)
        this.#retire(instance);
    }
  }

  /** Documents of open projects that are sealed under a former key version. */
  get pendingReencryption(): number {
    return this.#inNeed.reseal.values().reduce((sum, { store }) => sum + store.pendingReencryption, 0);
  }

  /** Refuses new leases, waits for the running ones and closes everything. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    await this.#openings.drained();
    const { prepareWithinMs = PREPARE_WITHIN_MS } = this.#options;
    const timer = setTimeout(
      () => this.#outOfTime.reject(new Error('no time was left for it')),
      prepareWithinMs,
    );
    using _timer = { [Symbol.dispose]: () => clearTimeout(timer) };
    for (const instance of [...this.#hot.values()]) this.#retire(instance);
    await Promise.all([...this.#closing.values()].map(({ promise }) => promise));
  }

  /** The open instance, if its key may still be used and is the same key. */
  #usable(project: string): ProjectInstance | undefined {
    if (this.#closed) throw new AppError('overloaded', { detail: 'the server is stopping' });
    const instance = this.#hot.get(project);
    if (instance === undefined) return undefined;
    const keys = instance.store.failed ? undefined : instance.peekKeys(this.#options.keys);
    if (keys === undefined) {
      this.#retire(instance);
      return undefined;
    }
    if (keys !== instance.keys) this.#takeRefreshed(instance, keys);
    // Once between two sweeps: with a thousand projects, to move it up takes as long as to find its document.
    if (instance.countedInSweep !== this.#sweeps) {
      instance.countedInSweep = this.#sweeps;
      this.#order.used(project);
    }
    return instance;
  }

  /** The same DEKs on new leases; only their wrappings may have changed. */
  #takeRefreshed(instance: ProjectInstance, keys: LeasedKeys): void {
    instance.keys = keys;
    const { project } = instance;
    void this.#openings
      .run(project, async () => {
        instance.file = await this.#options.projects.keepWrappings(project, instance.file, keys);
      })
      .catch((error: unknown) => {
        this.#options.logger.warn({ err: error, project }, 'failed to store the new wrapping of a key');
      });
  }

  async #open(project: string, mode: 'existing' | 'create'): Promise<InstanceLease | undefined> {
    await this.#closing.get(project)?.promise;
    const { projects, logger, keys } = this.#options;
    const { lookups, openings } = this.#shares;
    const key = shareIn(project);
    let reserved: number | undefined;
    let lease: InstanceLease | undefined;
    try {
      const opened = await lookups.run<OpenedProject | undefined>(key, () =>
        mode === 'create' ? projects.openOrCreate(project) : projects.open(project),
      );
      // It takes no place, and makes no other one close.
      if (opened === undefined) return undefined;
      keys.hold(project);
      const bytes = await this.#bytesToReserve(project, opened.entries);
      await this.#slots.acquire(bytes);
      reserved = bytes;
      lease = await openings.run(key, () => this.#load(project, opened, bytes));
      return lease;
    } catch (error) {
      logger.warn({ err: error, project }, 'a project cannot be opened');
      // Another node may have deleted it, and this one not have heard so from BunKMS.
      if (hasCode(error, 'project_destroyed')) keys.evict(project);
      throw error;
    } finally {
      if (lease === undefined) {
        if (reserved !== undefined) this.#slots.release(reserved);
        keys.release(project);
      }
    }
  }

  /** Opens the store of a project that was found. */
  async #load(project: string, opened: OpenedProject, reserved: number): Promise<InstanceLease> {
    const { clock, openStore, expiry, ownWork } = this.#options;
    // Until it belongs to an instance: a store that nobody closes would keep its files, and its writer, for
    // good.
    await using stack = new AsyncDisposableStack();
    const beforeExpiring = async () => {
      await expiry?.mark(project);
      const instance = this.#hot.get(project);
      if (instance !== undefined) this.#inNeed.expiry.add(instance);
    };
    const opening = stack.use(await openStore(project, opened));
    const store = await openDefinedStore(opening, clock, beforeExpiring, ownWork?.(project));
    if (store.mayExpire) await this.#keepMark(project);
    if (this.#closed) throw new AppError('overloaded', { detail: 'the server is stopping' });
    stack.move();
    const instance = new ProjectInstance(project, opened, store, instant(clock), reserved);
    this.#hot.set(project, instance);
    this.#order.add(project, instance, reserved);
    // In the same turn: an instance without users gives up its memory.
    const lease = this.#lease(instance);
    this.#noteNeeds(instance);
    this.#changeWaits.turned(project);
    this.#charge(instance);
    // It may have waited for long: its key may have been withdrawn since it was found.
    if (!instance.hasKeys(this.#options.keys)) this.#retire(instance);
    return lease;
  }

  /** Bytes of memory that a project is taken to need until it is open. */
  async #bytesToReserve(project: string, entries?: readonly string[]): Promise<number> {
    const { storedBytes } = this.#options;
    return PROJECT_BYTES + STORED_TO_MEMORY * ((await storedBytes?.(project, entries)) ?? 0);
  }

  /** Has an open project count with the bytes that it takes now. */
  #charge(instance: ProjectInstance): void {
    const bytes =
      PROJECT_BYTES + Math.ceil(instance.store.memoryBytes / CHARGE_STEP_BYTES) * CHARGE_STEP_BYTES;
    const more = bytes - instance.bytes;
    if (more === 0) return;
    instance.bytes = bytes;
    this.#order.resize(instance.project, bytes);
    this.#slots.grow(more);
  }

  #noteNeeds(instance: ProjectInstance): void {
    const { store } = instance;
    const needs: Record<Need, boolean> = {
      reseal: store.pendingReencryption > 0,
      definitions: store.isShared,
      expiry: store.mayExpire,
    };
    const isHot = this.#hot.get(instance.project) === instance;
    for (const need of Object.keys(needs) as Need[]) {
      if (isHot && needs[need]) this.#inNeed[need].add(instance);
      else this.#inNeed[need].delete(instance);
    }
  }

  /** A project that was restored, or moved here, comes without its mark. It can be used all the same. */
  async #keepMark(project: string): Promise<void> {
    try {
      await this.#options.expiry?.ensureMarked(project);
    } catch (error) {
      this.#options.logger.warn({ err: error, project }, 'failed to store the expiry mark of a project');
    }
  }

  /** Takes the unused project of longest ago out of use, if there is one. */
  #retireUnused(): boolean {
    const unused = this.#order.next(({ users }) => users === 0);
    if (unused !== undefined) this.#retire(unused);
    return unused !== undefined;
  }

  #lease(instance: ProjectInstance): InstanceLease {
    instance.users++;
    instance.lastUsed = instant(this.#options.clock);
    let released = false;
    const { store, cursors, cipher, file } = instance;
    return {
      store,
      cursors,
      cipher,
      file,
      [Symbol.dispose]: () => {
        if (released) return;
        released = true;
        this.#release(instance);
      },
    };
  }

  #release(instance: ProjectInstance): void {
    instance.users--;
    const isHot = this.#hot.get(instance.project) === instance;
    // What was committed, or built, may have made it larger.
    if (isHot) this.#charge(instance);
    if (isHot && instance.store.failed) this.#retire(instance);
    else if (instance.users > 0) return;
    else if (isHot) this.#slots.notify();
    else this.#close(instance);
  }

  /** Takes the instance out of use; it closes when its last user has left. */
  #retire(instance: ProjectInstance): void {
    if (this.#hot.get(instance.project) !== instance) return;
    this.#hot.delete(instance.project);
    this.#order.delete(instance.project);
    for (const needy of Object.values(this.#inNeed)) needy.delete(instance);
    this.#slots.release(instance.bytes);
    this.#changeWaits.turned(instance.project);
    this.#closing.set(instance.project, Promise.withResolvers());
    if (instance.users === 0) this.#close(instance);
  }

  /** As long as its key may be used, a store may prepare to be closed. */
  async #closeStore(instance: ProjectInstance): Promise<void> {
    const { project, store } = instance;
    const { keys, logger } = this.#options;
    try {
      if (!store.failed && instance.hasKeys(keys))
        await Promise.race([store.prepareClose(), this.#outOfTime.promise]);
    } catch (error) {
      logger.warn({ err: error, project }, 'closed a project before its preparation had ended');
    }
    await store[Symbol.asyncDispose]();
  }

  #close(instance: ProjectInstance): void {
    const closing = this.#closing.get(instance.project);
    void this.#closeStore(instance)
      .catch((error: unknown) => {
        this.#options.logger.error(
          { err: error, project: instance.project },
          'a project did not close in order',
        );
      })
      .then(() => {
        this.#options.keys.release(instance.project);
        this.#closing.delete(instance.project);
        closing?.resolve();
      });
  }
}
