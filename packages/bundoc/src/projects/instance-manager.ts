import type { Hold, Pool } from '@bundoc/shared/admission/pool';
import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import type { Logger } from '@bundoc/shared/logs/logger';
import { type Clock, instant } from '@bundoc/shared/runtime/clock';
import { KeyedMutex } from '@bundoc/shared/runtime/mutex';
import { away, currentShare, shareIn } from '@bundoc/shared/shares/share-key';
import { type DefinedStore, openDefinedStore } from '../collections/defined-store.ts';
import type { CollectionStore } from '../collections/port.ts';
import type { KeyCache } from '../crypto/key-cache.ts';
import type { Position, ProjectStore } from '../engine/port/port.ts';
import type { ExpiryMarks } from '../engine/projects/expiry-marks.ts';
import type { LeasedKeys } from '../engine/projects/project-file.ts';
import type { OpenedProject, Projects } from '../engine/projects/projects.ts';
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
  /** Opens the store of an intact project with its key. */
  readonly openStore: (project: string, opened: OpenedProject) => Promise<ProjectStore>;
  /** Throws an AppError while no project of this storage may be opened or changed. */
  readonly requireServed?: () => void;
  /** Records that documents of a project may expire. */
  readonly expiry?: Pick<ExpiryMarks, 'mark' | 'ensureMarked'>;
  /** Maximum memory of open projects, bytes. One project may always be open. */
  readonly openBytesMax?: number;
  readonly shares?: Pick<ServiceShares, 'openings'>;
  /** The stored bytes that an opened project loads into memory; 0 when unknown. */
  readonly storedBytes?: (project: string, entries?: readonly string[]) => Promise<number>;
  /** Time that an unused project stays open, milliseconds. */
  readonly idleTtlMs?: number;
  /** Starts work of the service itself for a project. */
  readonly ownWork?: (project: string) => OwnWork;
  /** Whether other processes write to the same storage, so that a closed project may change. */
  readonly isShared?: boolean;
}

/** Memory of an open project in relation to its stored bytes. */
const STORED_TO_MEMORY = 2;
/**
 * Maximum time of the preparations, milliseconds. With the time for running requests and for a running step,
 * it stays below `STOP_TIMEOUT_MS`.
 */
const PREPARE_WITHIN_MS = 3_000;

/**
 * Opens projects on demand, one opening for each project at a time. Keeps as many open as fit in a bounded
 * memory: those that were used once close first, then the least recently used ones. Closes projects that are
 * idle, that failed, or whose key is gone.
 *
 * A new instance of a project is opened only after the old one is closed, so that there is one writer at any
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
  /** The last failure of a project, while requests wait that came before it. */
  readonly #failures = new Map<string, Failure>();
  readonly #places: Pool;
  readonly #changeWaits: ProjectChangeWaiter;
  #closed = false;

  constructor(options: InstanceManagerOptions) {
    this.#options = options;
    this.#places = (options.shares ?? createServiceShares()).openings;
    this.#closing = new ClosingProjects(options.keys, options.logger);
    this.#idleTtlMs = options.idleTtlMs ?? 600_000;
    const bytesMax = options.openBytesMax ?? Number.POSITIVE_INFINITY;
    const turns = { accounts: this.#places.accounts, clock: options.clock };
    this.#open = new OpenProjects(bytesMax, (instance) => this.#retire(instance), turns);
    this.#changeWaits = new ProjectChangeWaiter(this, options.isShared === true);
  }

  /** Number of open projects. */
  get size(): number {
    return this.#open.size;
  }

  /** Estimated memory of the projects that are open or opening, bytes. */
  get bytes(): number {
    return this.#open.slots.bytes;
  }

  /** Projects that wait for their opening, or for memory. */
  get openingsWaiting(): number {
    return this.#places.waiting + this.#open.slots.waiting;
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
    const before = this.#failures.get(project);
    return away(() =>
      this.#openings.run(project, async () => {
        this.#options.requireServed?.();
        const instance = this.#usable(project);
        if (instance !== undefined) return this.#lease(instance);
        const failure = this.#failures.get(project);
        if (failure !== before && failure !== undefined && concerns(failure, mode)) throw failure.error;
        try {
          return await this.#openProject(project, mode);
        } catch (error) {
          this.#keepFailure(project, { error, mode, subject: currentShare().subject });
          throw error;
        }
      }),
    );
  }

  /**
   * Requests that have waited for a failed opening fail with it. Otherwise each would try again in its turn,
   * and the last of many would wait for long.
   */
  #keepFailure(project: string, failure: Failure): void {
    this.#failures.set(project, failure);
    void this.#openings.settled(project)?.then(() => {
      if (this.#failures.get(project) === failure) this.#failures.delete(project);
    });
  }

  /**
   * The store of a project that is open and usable. It has no lease, so it may be used in this turn of the
   * event loop only. `undefined` means “unknown”, not “absent”: call {@link acquire}.
   */
  peekStore(project: string): CollectionStore | undefined {
    const instance = this.#usable(project);
    if (instance === undefined) return undefined;
    instance.wasUsed = true;
    return instance.store;
  }

  /** Leases an open project, usable or not, for a caller of {@link peekStore}. */
  leaseIfOpen(project: string): InstanceLease | undefined {
    const instance = this.#open.get(project);
    return instance && this.#lease(instance);
  }

  /** An open project, usable or not. It does not count as used, and is not leased. */
  instanceIfOpen(project: string): Pick<ProjectInstance, 'store' | 'file'> | undefined {
    return this.#open.get(project);
  }

  /** Ids of the open projects with this need. */
  projectsInNeed(need: Need): readonly string[] {
    return Array.from(this.#open.inNeed(need), ({ project }) => project);
  }

  /**
   * The usable open projects with this need. Each is leased until the next one is requested.
   *
   * @param projects restricts them; all by default.
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
   * Runs `action` while the project cannot be opened. `action` receives a function that closes the project
   * once its last user has left. That function throws `overloaded` when this takes too long.
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

  /** Whether a project is open, and whether its key is cached. This does not count as a use. */
  stateOf(project: string): { readonly isOpen: boolean; readonly keyUntilMs: number | undefined } {
    return {
      isOpen: this.#open.get(project) !== undefined,
      keyUntilMs: this.#options.keys.usableUntil(project),
    };
  }

  /**
   * Waits for a commit after `after` in a project. It neither keeps the project open nor prevents closing.
   *
   * @returns false when the signal was aborted.
   * @throws AppError as {@link acquire}, where others write and the project can no longer be opened.
   */
  waitForChange(project: string, after: Position, signal: AbortSignal): Promise<boolean> {
    return this.#changeWaits.wait(project, after, signal);
  }

  /**
   * Closes projects that have lost their key. Of the idle projects it checks a part, so that each has its
   * turn within a minute. Call it about once a second.
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
   * Opens a closed project for `action` only. It evicts no other project, and closes this one afterwards
   * unless it is in use by then.
   *
   * @returns `done`, or why nothing was done.
   * @throws AppError as {@link acquire}, and the error of `action`.
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

  /** Refuses new leases, waits for the current ones and closes all projects. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    await this.#openings.drained();
    for (const instance of this.#open.all()) this.#retire(instance);
    await this.#closing.within(PREPARE_WITHIN_MS);
  }

  /** The open instance, if its key is still usable and the same. */
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
    const key = shareIn(project);
    let slot: Hold | undefined;
    let lease: InstanceLease | undefined;
    try {
      using place = await this.#places.take(key, 1);
      // A customer's service may hang, and others shall not wait for it.
      const leave = () => place[Symbol.dispose]();
      const opened =
        mode === 'create' ? await projects.openOrCreate(project, leave) : await projects.open(project, leave);
      // It takes no slot and evicts no project.
      if (opened === undefined) return undefined;
      keys.hold(project);
      const taken = await this.#open.slots.acquire(key, await this.#bytesToReserve(project, opened.entries));
      slot = taken;
      lease = await this.#load(project, opened, taken);
      return lease;
    } catch (error) {
      // A request for a deleted project is not a fault of the service.
      const isDestroyed = hasCode(error, 'project_destroyed');
      logger[isDestroyed ? 'debug' : 'warn']({ err: error, project }, 'a project cannot be opened');
      // Another node may have deleted it, and this node may not have the event from BunKMS yet.
      if (isDestroyed) keys.evict(project);
      throw error;
    } finally {
      if (lease === undefined) {
        if (slot !== undefined) this.#open.slots.release(slot);
        keys.release(project);
      }
    }
  }

  /** Opens the store of an existing project. */
  async #load(project: string, opened: OpenedProject, slot: Hold): Promise<InstanceLease> {
    const { clock, openStore, expiry, ownWork } = this.#options;
    // Closes the store after a failure, until it belongs to an instance. Otherwise it would keep its files
    // and its writer forever.
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
    // In the same turn, because an instance without users may be evicted at once.
    const lease = this.#lease(instance);
    this.#open.noteNeeds(instance);
    this.#changeWaits.turned(project);
    this.#open.charge(instance);
    // The opening may have waited for long, so the key may have been withdrawn since the look-up.
    if (!instance.hasKeys(this.#options.keys)) this.#retire(instance);
    return lease;
  }

  /** Estimated memory of a project until it is open, bytes. */
  async #bytesToReserve(project: string, entries?: readonly string[]): Promise<number> {
    const { storedBytes } = this.#options;
    return PROJECT_BYTES + STORED_TO_MEMORY * ((await storedBytes?.(project, entries)) ?? 0);
  }

  /** A project that was restored, or moved here, comes without its marker. It can be used nevertheless. */
  async #keepMark(project: string): Promise<void> {
    try {
      await this.#options.expiry?.ensureMarked(project);
    } catch (error) {
      this.#options.logger.warn({ err: error, project }, 'failed to store the expiry marker of a project');
    }
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
    // Commits and built indexes may have made it larger.
    if (isOpen) this.#open.charge(instance);
    if (isOpen && instance.store.failed) this.#retire(instance);
    else if (instance.users > 0) return;
    else if (isOpen) this.#open.slots.notify();
    else void this.#closing.close(instance);
  }

  /** Retires the instance; it closes once its last user has left. */
  #retire(instance: ProjectInstance): void {
    if (!this.#open.has(instance)) return;
    this.#open.delete(instance);
    this.#changeWaits.turned(instance.project);
    this.#closing.add(instance);
    if (instance.users === 0) void this.#closing.close(instance);
  }
}

/** Why a project was not opened, and for whom. */
interface Failure {
  readonly error: unknown;
  readonly mode: 'existing' | 'create';
  readonly subject: string;
}

/**
 * Whether a failure also concerns this request. A refusal of a share only concerns its own subject. A project
 * that cannot be created may just be absent for a reader.
 */
function concerns({ error, mode, subject }: Failure, of: 'existing' | 'create'): boolean {
  if (mode === 'create' && of === 'existing') return false;
  return !hasCode(error, 'rate_limited', 'overloaded') || subject === currentShare().subject;
}
