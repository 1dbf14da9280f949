import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import { type Clock, instant } from '@bundoc/shared/runtime/clock';
import type { Logger } from '@bundoc/shared/runtime/logger';
import { KeyedMutex } from '@bundoc/shared/runtime/mutex';
import type { Hold } from '@bundoc/shared/shares/hold';
import { shareIn } from '@bundoc/shared/shares/share-key';
import { type DefinedStore, openDefinedStore } from '../collections/defined-store.ts';
import type { CollectionStore } from '../collections/port.ts';
import type { KeyCache } from '../crypto/key-cache.ts';
import type { ExpiryMarks } from '../engine/expiry-marks.ts';
import type { Position, ProjectStore } from '../engine/port.ts';
import type { LeasedKeys } from '../engine/project-file.ts';
import type { OpenedProject, Projects } from '../engine/projects.ts';
import { createServiceShares, type ServiceShares } from '../work/service-shares.ts';
import type { OwnWork } from '../work/work.ts';
import { ClosingProjects } from './closing-projects.ts';
import type { Need } from './open-projects.ts';
import { OpenProjects, PROJECT_BYTES } from './open-projects.ts';
import { ProjectChangeWaiter } from './project-change-waiter.ts';
import { type InstanceLease, ProjectInstance } from './project-instance.ts';

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
  /** Begins work of the service itself for a project. */
  readonly ownWork?: (project: string) => OwnWork;
  /** Whether other processes write to the same storage, so that a project which is closed here may change. */
  readonly isShared?: boolean;
}

/** What was stored takes that many times its bytes in memory. */
const STORED_TO_MEMORY = 2;
/**
 * Beside the time that requests have to end, within that of an orderly stop (`STOP_TIMEOUT_MS`), with room
 * for a step that is under way.
 */
const PREPARE_WITHIN_MS = 3_000;

/**
 * Maps project ids to open projects. Opens lazily, one opening a project at a time. Keeps as many open as
 * have room in a bounded memory: those that were used once close first, then the ones used longest ago.
 * Closes what is idle, what failed, and what has lost its key.
 *
 * A new instance of a project is not opened before the old one is closed, so that there is one writer at any
 * time.
 *
 * One class, because it alone decides who may use an instance, and when that ends.
 */
export class InstanceManager implements AsyncDisposable {
  readonly #options: InstanceManagerOptions;
  readonly #idleTtlMs: number;
  readonly #open: OpenProjects;
  readonly #closing: ClosingProjects;
  readonly #openings = new KeyedMutex();
  readonly #shares: Pick<ServiceShares, 'lookups' | 'openings'>;
  readonly #changeWaits: ProjectChangeWaiter;
  #closed = false;

  constructor(options: InstanceManagerOptions) {
    this.#options = options;
    this.#shares = options.shares ?? createServiceShares();
    this.#closing = new ClosingProjects(options.keys, options.logger);
    this.#idleTtlMs = options.idleTtlMs ?? 600_000;
    const bytesMax = options.openBytesMax ?? Number.POSITIVE_INFINITY;
    this.#open = new OpenProjects(bytesMax, (instance) => this.#retire(instance), options.clock);
    this.#changeWaits = new ProjectChangeWaiter(this, options.isShared === true);
  }

  /** Number of open projects. */
  get size(): number {
    return this.#open.size;
  }

  /** Bytes of memory that open projects are taken to need, those being opened included. */
  get bytes(): number {
    return this.#open.slots.bytes;
  }

  /** Projects that wait to be looked for, for room, or to be opened. */
  get openingsWaiting(): number {
    const { lookups, openings } = this.#shares;
    return lookups.waiting + this.#open.slots.waiting + openings.waiting;
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
      return instance === undefined ? this.#openProject(project, mode) : this.#lease(instance);
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

  /** Holds a project that is open, whether it may be used or not: for what {@link peekStore} was used for. */
  leaseIfOpen(project: string): InstanceLease | undefined {
    const instance = this.#open.get(project);
    return instance && this.#lease(instance);
  }

  /** An open project, whether it may be used or not. This does not count as a use, and no hold on it. */
  instanceIfOpen(project: string): Pick<ProjectInstance, 'store' | 'file'> | undefined {
    return this.#open.get(project);
  }

  /** Ids of open projects that are in need of something. */
  projectsInNeed(need: Need): readonly string[] {
    return Array.from(this.#open.inNeed(need), ({ project }) => project);
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
      const instance = this.#open.get(project);
      if (instance === undefined || !this.#open.inNeed(need).has(instance)) continue;
      if (instance.store.failed || !instance.hasKeys(this.#options.keys)) continue;
      instance.users++;
      try {
        yield instance;
      } finally {
        this.#open.noteNeeds(instance);
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
      const instance = this.#open.get(project);
      if (instance !== undefined) this.#retire(instance);
      await this.#closing.endSoon(project);
    };
    return this.#openings.run(project, () => action(close));
  }

  /** Whether a project is open, and its key in memory. This does not count as a use. */
  stateOf(project: string): { readonly isOpen: boolean; readonly keyUntilMs: number | undefined } {
    return {
      isOpen: this.#open.get(project) !== undefined,
      keyUntilMs: this.#options.keys.usableUntil(project),
    };
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
    const { clock, keys } = this.#options;
    keys.sweep();
    for (const project of keys.takeLost()) {
      const instance = this.#open.get(project);
      if (instance?.hasKeys(keys) === false) this.#retire(instance);
    }
    for (const instance of this.#open.sweep())
      if (instance.isIdle(clock, this.#idleTtlMs) || !instance.hasKeys(keys)) this.#retire(instance);
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
    if (this.#open.get(project) !== undefined) return 'open';
    if (!this.#open.slots.hasSpare(await this.#bytesToReserve(project))) return 'no-room';
    const lease = await this.acquire(project, 'existing');
    if (lease === undefined) return 'absent';
    const instance = this.#open.get(project);
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
    const stores = Array.from(this.#open.inNeed('reseal'), ({ store }) => store);
    return stores.reduce((sum, { pendingReencryption }) => sum + pendingReencryption, 0);
  }

  /** Refuses new leases, waits for the running ones and closes everything. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    await this.#openings.drained();
    for (const instance of this.#open.all()) this.#retire(instance);
    await this.#closing.within(PREPARE_WITHIN_MS);
  }

  /** The open instance, if its key may still be used and is the same key. */
  #usable(project: string): ProjectInstance | undefined {
    if (this.#closed) throw new AppError('overloaded', { detail: 'the server is stopping' });
    const instance = this.#open.get(project);
    if (instance === undefined) return undefined;
    const keys = instance.store.failed ? undefined : instance.peekKeys(this.#options.keys);
    if (keys === undefined) {
      this.#retire(instance);
      return undefined;
    }
    if (keys !== instance.keys) this.#takeRefreshed(instance, keys);
    this.#open.used(instance);
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

  async #openProject(project: string, mode: 'existing' | 'create'): Promise<InstanceLease | undefined> {
    await this.#closing.end(project);
    const { projects, logger, keys } = this.#options;
    const { lookups, openings } = this.#shares;
    const key = shareIn(project);
    let slot: Hold | undefined;
    let lease: InstanceLease | undefined;
    try {
      const opened = await lookups.run<OpenedProject | undefined>(key, () =>
        mode === 'create' ? projects.openOrCreate(project) : projects.open(project),
      );
      // It takes no place, and makes no other one close.
      if (opened === undefined) return undefined;
      keys.hold(project);
      const taken = await this.#open.slots.acquire(key, await this.#bytesToReserve(project, opened.entries));
      slot = taken;
      lease = await openings.run(key, () => this.#load(project, opened, taken));
      return lease;
    } catch (error) {
      logger.warn({ err: error, project }, 'a project cannot be opened');
      // Another node may have deleted it, and this one not have heard so from BunKMS.
      if (hasCode(error, 'project_destroyed')) keys.evict(project);
      throw error;
    } finally {
      if (lease === undefined) {
        if (slot !== undefined) this.#open.slots.release(slot);
        keys.release(project);
      }
    }
  }

  /** Opens the store of a project that was found. */
  async #load(project: string, opened: OpenedProject, slot: Hold): Promise<InstanceLease> {
    const { clock, openStore, expiry, ownWork } = this.#options;
    // Until it belongs to an instance: a store that nobody closes would keep its files, and its writer, for
    // good.
    await using stack = new AsyncDisposableStack();
    const beforeExpiring = async () => {
      await expiry?.mark(project);
      this.#open.mayExpire(project);
    };
    const opening = stack.use(await openStore(project, opened));
    const store = await openDefinedStore(opening, clock, beforeExpiring, ownWork?.(project));
    if (store.mayExpire) await this.#keepMark(project);
    if (this.#closed) throw new AppError('overloaded', { detail: 'the server is stopping' });
    stack.move();
    const instance = new ProjectInstance(project, opened, store, instant(clock), slot);
    this.#open.add(instance);
    // In the same turn: an instance without users makes room for anyone who wants it.
    const lease = this.#lease(instance);
    this.#open.noteNeeds(instance);
    this.#changeWaits.turned(project);
    this.#open.charge(instance);
    // It may have waited for long: its key may have been withdrawn since it was found.
    if (!instance.hasKeys(this.#options.keys)) this.#retire(instance);
    return lease;
  }

  /** Bytes of memory that a project is taken to need until it is open. */
  async #bytesToReserve(project: string, entries?: readonly string[]): Promise<number> {
    const { storedBytes } = this.#options;
    return PROJECT_BYTES + STORED_TO_MEMORY * ((await storedBytes?.(project, entries)) ?? 0);
  }

  /** A project that was restored, or moved here, comes without its mark. It can be used all the same. */
  async #keepMark(project: string): Promise<void> {
    try {
      await this.#options.expiry?.ensureMarked(project);
    } catch (error) {
      this.#options.logger.warn({ err: error, project }, 'failed to store the expiry mark of a project');
    }
  }

  #lease(instance: ProjectInstance): InstanceLease {
    instance.users++;
    instance.lastUsed = instant(this.#options.clock);
    let released = false;
    const { store, cursors, cipher, file } = instance;
    return {
      ...{ store, cursors, cipher, file },
      isUsable: () => this.#open.slots.waiting === 0 && this.#usable(instance.project) === instance,
      [Symbol.dispose]: () => {
        if (released) return;
        released = true;
        this.#release(instance);
      },
    };
  }

  #release(instance: ProjectInstance): void {
    instance.users--;
    const isOpen = this.#open.has(instance);
    // What was committed, or built, may have made it larger.
    if (isOpen) this.#open.charge(instance);
    if (isOpen && instance.store.failed) this.#retire(instance);
    else if (instance.users > 0) return;
    else if (isOpen) this.#open.slots.notify();
    else void this.#closing.close(instance);
  }

  /** Takes the instance out of use; it closes when its last user has left. */
  #retire(instance: ProjectInstance): void {
    if (!this.#open.has(instance)) return;
    this.#open.delete(instance);
    this.#changeWaits.turned(instance.project);
    this.#closing.add(instance);
    if (instance.users === 0) void this.#closing.close(instance);
  }
}
