import { setTimeout as sleep } from 'node:timers/promises';
import { ageMs, type Clock, type Instant, instant } from '@bundoc/shared/clock';
import type { ProjectFile } from '@bundoc/shared/contract/project-file';
import { AppError, hasCode } from '@bundoc/shared/errors';
import type { Logger } from '@bundoc/shared/logger';
import type { ProjectCipher } from '../cipher/project-cipher.ts';
import { type Cursors, cursorsOf } from '../cipher/sealed-cursor.ts';
import { KeyedMutex } from '../keyed-mutex.ts';
import type { LeasedKey } from '../kms/port.ts';
import { type DefinedStore, openDefinedStore } from '../storage/collections/defined-store.ts';
import type { CollectionStore } from '../storage/collections/port.ts';
import type { Position, ProjectStore } from '../storage/port.ts';
import type { ExpiryMarks } from './expiry-marks.ts';
import type { KeyCache } from './key-cache.ts';
import type { OpenedProject, Projects } from './projects.ts';

export interface InstanceManagerOptions {
  readonly projects: Projects;
  readonly keys: KeyCache;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Makes the store of a project that was found in order, and whose key was. */
  readonly openStore: (project: string, cipher: ProjectCipher) => Promise<ProjectStore>;
  /** What keeps that documents of a project may expire. */
  readonly expiry?: Pick<ExpiryMarks, 'mark' | 'ensureMarked'>;
  /** Projects that are open at most. */
  readonly hotMax?: number;
  /** How long a project stays open unused, milliseconds. */
  readonly idleTtlMs?: number;
  /** Whether other processes write to the same storage, so that a project which is closed here may change. */
  readonly othersWrite?: boolean;
}

/** An open project, held until disposed: `using lease = await manager.acquire(…)`. */
export interface InstanceLease extends Disposable {
  readonly store: CollectionStore;
  readonly cipher: ProjectCipher;
  /** `project.json` as it is now. */
  readonly file: ProjectFile;
  readonly cursors: Cursors;
}

/** How long a caller waits for room among the open projects. */
const WAIT_FOR_ROOM_MS = 4_500;
/** How long a project that others may write to stays closed while somebody waits for its changes. */
const REOPEN_MS = 1_000;

/** One open project. It is retired as soon as its key may not be used any more, and closed when its last user left. */
class ProjectInstance {
  readonly project: string;
  readonly store: DefinedStore;
  readonly cipher: ProjectCipher;
  readonly cursors: Cursors;
  file: ProjectFile;
  /** The current version; replaced when its lease is. */
  key: LeasedKey;
  /** The other versions that the project uses; replaced when their leases are. */
  others: readonly LeasedKey[];
  users = 0;
  lastUsed: Instant;
  /** Used without a lease since it was last looked at for being idle: two clocks are too much for each read. */
  wasUsed = false;
  /** Ends the waits for a change when the instance is retired. */
  readonly waits = new Set<() => void>();

  constructor(project: string, opened: OpenedProject, store: DefinedStore, now: Instant) {
    this.project = project;
    this.store = store;
    this.cipher = opened.cipher;
    this.cursors = cursorsOf(project, opened.cipher);
    this.file = opened.file;
    const [current, ...others] = opened.keys;
    this.key = current;
    this.others = others;
    this.lastUsed = now;
  }
}

/**
 * Maps project ids to open projects. Opens lazily, one opening a project at a time; keeps a bounded number open, the
 * ones used longest ago closing first; closes what is idle, what failed, and what has lost its key.
 *
 * A new instance of a project is not opened before the old one is closed, so that there is one writer at any time.
 */
export class InstanceManager implements AsyncDisposable {
  readonly #options: InstanceManagerOptions;
  readonly #hotMax: number;
  readonly #idleTtlMs: number;
  /** Open projects, the one used longest ago first. */
  readonly #hot = new Map<string, ProjectInstance>();
  /** The last of them. */
  #latest: ProjectInstance | undefined;
  /** Projects that are closing, with the end of it. */
  readonly #closing = new Map<string, PromiseWithResolvers<void>>();
  readonly #openings = new KeyedMutex();
  readonly #waitingForRoom = new Set<() => void>();
  /** Those that wait until a project is opened. */
  readonly #waitingToOpen = new Map<string, Set<() => void>>();
  #opening = 0;
  #closed = false;

  constructor(options: InstanceManagerOptions) {
    this.#options = options;
    this.#hotMax = options.hotMax ?? 100;
    this.#idleTtlMs = options.idleTtlMs ?? 600_000;
  }

  /** Number of open projects. */
  get size(): number {
    return this.#hot.size;
  }

  /**
   * @returns the open project; undefined when it does not exist and `mode` is `existing`.
   * @throws AppError `key_missing`, `key_mismatch`, `project_damaged`, `kms_unavailable`, `overloaded` and the errors
   * of the disk.
   */
  acquire(project: string, mode: 'create'): Promise<InstanceLease>;
  acquire(project: string, mode: 'existing'): Promise<InstanceLease | undefined>;
  async acquire(project: string, mode: 'existing' | 'create'): Promise<InstanceLease | undefined> {
    const hot = this.#usable(project);
    if (hot !== undefined) return this.#lease(hot);
    return this.#openings.run(project, async () => {
      const instance = this.#usable(project) ?? (await this.#open(project, mode));
      return instance === undefined ? undefined : this.#lease(instance);
    });
  }

  /**
   * The store of a project that is open already and may be used: without a lease, so for this turn of the event loop alone. Undefined
   * says nothing; {@link acquire} opens it, and tells what is wrong.
   */
  storeAtHand(project: string): CollectionStore | undefined {
    const instance = this.#usable(project);
    if (instance === undefined) return undefined;
    instance.wasUsed = true;
    return instance.store;
  }

  /**
   * Runs `action` while nobody opens the project. What it is given takes the project out of use, and resolves when its last user has left;
   * its error is `overloaded` when that takes too long.
   */
  async exclusively<T>(project: string, action: (close: () => Promise<void>) => Promise<T>): Promise<T> {
    if (this.#closed) throw new AppError('overloaded', { detail: 'the server is stopping' });
    const close = async () => {
      const instance = this.#hot.get(project);
      if (instance !== undefined) this.#retire(instance);
      await Promise.race([
        this.#closing.get(project)?.promise,
        sleep(WAIT_FOR_ROOM_MS, undefined, { ref: false }),
      ]);
      if (this.#closing.has(project))
        throw new AppError('overloaded', { detail: 'requests to the project are under way', retryAfterS: 2 });
    };
    return this.#openings.run(project, () => action(close));
  }

  /**
   * Gives a project away: runs `action` with it open while nobody writes to it, then takes it out of use and, before anybody opens it again, runs
   * `mark`. If any of it fails, the project is in use as before.
   *
   * @throws AppError `project_not_found`; `overloaded` when its users do not leave.
   */
  async handOver(
    project: string,
    action: (lease: InstanceLease) => Promise<void>,
    mark: () => Promise<void>,
  ): Promise<void> {
    const lease = await this.acquire(project, 'existing');
    if (lease === undefined) throw new AppError('project_not_found');
    using _lease = lease;
    const { movable } = lease.store;
    if (movable === undefined) throw new Error('the storage gives no projects away');
    // Held by the lease as well: without it a new instance, which knows of no fence, might be opened.
    using _fence = await movable.fence();
    await action(lease);
    await this.exclusively(project, async (close) => {
      lease[Symbol.dispose]();
      await close();
      await mark();
    });
  }

  /** Whether a project is open, and its key in memory. This is no use of them. */
  stateOf(project: string): { readonly isOpen: boolean; readonly isKeyCached: boolean } {
    return { isOpen: this.#hot.has(project), isKeyCached: this.#options.keys.has(project) };
  }

  /**
   * Waits until something behind `after` is committed in a project. No project is kept open, or kept from closing, by it: while it is
   * closed, whoever opens it ends the wait.
   *
   * @returns false when the signal was aborted.
   * @throws AppError of {@link acquire} where others write and the project cannot be opened any more.
   */
  async waitForChange(project: string, after: Position, signal: AbortSignal): Promise<boolean> {
    while (!signal.aborted) {
      const instance = this.#hot.get(project);
      if (instance !== undefined) {
        const position = await this.#waitInStore(instance, after, signal);
        if (position !== undefined) return true;
      } else await this.#waitToOpen(project, signal);
    }
    return false;
  }

  /** Closes what is idle or has lost its key. To be called every second or so. */
  sweep(): void {
    const { clock, keys } = this.#options;
    keys.sweep();
    for (const instance of [...this.#hot.values()]) {
      if (instance.wasUsed) {
        instance.wasUsed = false;
        instance.lastUsed = instant(clock);
      }
      const idle = instance.users === 0 && ageMs(clock, instance.lastUsed) >= this.#idleTtlMs;
      if (idle || !this.#hasKeys(instance)) this.#retire(instance);
    }
  }

  /**
   * Seals some documents of each open project anew whose key was rotated; `limit` a project. To be called every second or so,
   * which bounds the rate.
   */
  async resealSome(limit: number): Promise<void> {
    for (const instance of [...this.#hot.values()]) {
      if (instance.store.toReseal === 0 || instance.store.failed || !this.#hasKeys(instance)) continue;
      instance.users++;
      try {
        const resealed = await instance.store.reseal(limit);
        const { project, store } = instance;
        if (resealed > 0)
          this.#options.logger.info(
            { project, resealed, left: store.toReseal },
            'documents were sealed under the new key version',
          );
      } catch (error) {
        this.#options.logger.warn(
          { err: error, project: instance.project },
          'documents could not be sealed anew',
        );
      } finally {
        this.#release(instance);
      }
    }
  }

  /**
   * Takes up what other processes defined collections to be, and removes some expired documents, of each open project. To be called every second
   * or so, which bounds how late either is.
   */
  async keepDefinitions(): Promise<void> {
    for (const instance of [...this.#hot.values()]) {
      const { project, store } = instance;
      const isIdle = store.defined.length === 0 && !store.isShared;
      if (isIdle || store.failed || !this.#hasKeys(instance)) continue;
      instance.users++;
      try {
        if (store.isShared) await store.load();
        const removed = await store.removeExpired();
        if (removed > 0) this.#options.logger.debug({ project, removed }, 'expired documents were removed');
      } catch (error) {
        this.#options.logger.warn({ err: error, project }, 'definitions could not be kept');
      } finally {
        this.#release(instance);
      }
    }
  }

  /**
   * Opens a project that nobody has open, for `action` alone: it makes no other one close, and is closed again unless somebody has come
   * meanwhile.
   *
   * @returns `done`, or why nothing was done.
   * @throws AppError as {@link acquire}, and what `action` throws.
   */
  async visit(
    project: string,
    action: (store: DefinedStore) => Promise<void>,
  ): Promise<'done' | 'open' | 'no-room' | 'absent'> {
    if (this.#hot.has(project)) return 'open';
    if (this.#hot.size + this.#opening >= this.#hotMax) return 'no-room';
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
  get toReseal(): number {
    return this.#hot.values().reduce((sum, { store }) => sum + store.toReseal, 0);
  }

  /** Refuses new leases, waits for the running ones and closes everything. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    await this.#openings.drained();
    for (const instance of [...this.#hot.values()]) this.#retire(instance);
    await Promise.all([...this.#closing.values()].map(({ promise }) => promise));
  }

  /** The open instance, if its key may still be used and is the same key. */
  #usable(project: string): ProjectInstance | undefined {
    if (this.#closed) throw new AppError('overloaded', { detail: 'the server is stopping' });
    const instance = this.#hot.get(project);
    if (instance === undefined) return undefined;
    const { keys } = this.#options;
    const key = keys.peek(project);
    const others = instance.others.map(({ version }) => keys.peek(project, version));
    if (key === undefined || !isComplete(others) || instance.store.failed || !isSameKey(key, instance.key)) {
      this.#retire(instance);
      return undefined;
    }
    if (key !== instance.key || others.some((other, at) => other !== instance.others[at]))
      this.#takeRefreshed(instance, key, others);
    if (this.#latest !== instance) {
      this.#hot.delete(project);
      this.#hot.set(project, instance);
      this.#latest = instance;
    }
    return instance;
  }

  /** The same DEKs on new leases; only their wrappings may have changed. */
  #takeRefreshed(instance: ProjectInstance, key: LeasedKey, others: readonly LeasedKey[]): void {
    instance.key = key;
    instance.others = others;
    const { project } = instance;
    void this.#openings
      .run(project, async () => {
        instance.file = await this.#options.projects.keepWrappings(project, instance.file, [key, ...others]);
      })
      .catch((error: unknown) => {
        this.#options.logger.warn(
          { err: error, project: instance.project },
          'the new wrapping of a key was not kept',
        );
      });
  }

  async #open(project: string, mode: 'existing' | 'create'): Promise<ProjectInstance | undefined> {
    await this.#closing.get(project)?.promise;
    const { projects, clock, openStore, logger, expiry } = this.#options;
    await this.#takeRoom();
    try {
      const opened = mode === 'create' ? await projects.openOrCreate(project) : await projects.open(project);
      if (opened === undefined) return undefined;
      // Until it belongs to an instance: a store that nobody closes would keep its files, and its writer, for good.
      await using stack = new AsyncDisposableStack();
      const store = await openDefinedStore(
        stack.use(await openStore(project, opened.cipher)),
        clock,
        async () => expiry?.mark(project),
      );
      if (store.mayExpire) await this.#keepMark(project);
      if (this.#closed) throw new AppError('overloaded', { detail: 'the server is stopping' });
      stack.move();
      const instance = new ProjectInstance(project, opened, store, instant(clock));
      this.#hot.set(project, instance);
      this.#latest = instance;
      for (const wake of this.#waitingToOpen.get(project) ?? []) wake();
      return instance;
    } catch (error) {
      logger.warn({ err: error, project }, 'a project cannot be opened');
      // Another node may have deleted it, and this one not have heard so from BunKMS.
      if (hasCode(error, 'project_destroyed')) this.#options.keys.evict(project);
      throw error;
    } finally {
      this.#opening--;
      this.#announceRoom();
    }
  }

  /** A project that was restored, or moved here, comes without its mark. It can be used all the same. */
  async #keepMark(project: string): Promise<void> {
    try {
      await this.#options.expiry?.ensureMarked(project);
    } catch (error) {
      this.#options.logger.warn(
        { err: error, project },
        'it could not be kept that documents of a project expire',
      );
    }
  }

  /** Until there is a change, the signal is aborted, or the instance is retired. */
  async #waitInStore(
    { store, waits }: ProjectInstance,
    after: Position,
    signal: AbortSignal,
  ): Promise<Position | undefined> {
    const stop = new AbortController();
    const end = () => stop.abort();
    waits.add(end);
    signal.addEventListener('abort', end);
    try {
      return await store.waitForChange(after, stop.signal);
    } finally {
      waits.delete(end);
      signal.removeEventListener('abort', end);
    }
  }

  /** Until somebody opens the project, or the signal is aborted. Where others write, it is opened after a pause. */
  async #waitToOpen(project: string, signal: AbortSignal): Promise<void> {
    const opened = Promise.withResolvers<void>();
    const wake = () => opened.resolve();
    const waiting = this.#waitingToOpen.get(project) ?? new Set();
    this.#waitingToOpen.set(project, waiting.add(wake));
    signal.addEventListener('abort', wake);
    const timer = this.#options.othersWrite === true ? setTimeout(wake, REOPEN_MS) : undefined;
    try {
      await opened.promise;
    } finally {
      clearTimeout(timer);
      waiting.delete(wake);
      if (waiting.size === 0) this.#waitingToOpen.delete(project);
      signal.removeEventListener('abort', wake);
    }
    if (timer === undefined || signal.aborted || this.#hot.has(project)) return;
    using lease = await this.acquire(project, 'existing');
    if (lease === undefined) throw new AppError('project_not_found');
  }

  /** Takes one of the places for open projects: closes the unused one of longest ago, or waits until there is one. */
  async #takeRoom(): Promise<void> {
    const signal = AbortSignal.timeout(WAIT_FOR_ROOM_MS);
    while (this.#hot.size + this.#opening >= this.#hotMax) {
      const unused = this.#hot.values().find(({ users }) => users === 0);
      if (unused !== undefined) {
        this.#retire(unused);
        continue;
      }
      if (signal.aborted) throw new AppError('overloaded');
      await new Promise<void>((resolve) => {
        const wake = () => {
          this.#waitingForRoom.delete(wake);
          signal.removeEventListener('abort', wake);
          resolve();
        };
        this.#waitingForRoom.add(wake);
        signal.addEventListener('abort', wake);
      });
    }
    this.#opening++;
  }

  #announceRoom(): void {
    for (const wake of this.#waitingForRoom) wake();
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
    if (isHot && instance.store.failed) this.#retire(instance);
    else if (instance.users > 0) return;
    else if (isHot) this.#announceRoom();
    else this.#close(instance);
  }

  /** Takes the instance out of use; it closes when its last user has left. */
  #retire(instance: ProjectInstance): void {
    if (this.#hot.get(instance.project) !== instance) return;
    this.#hot.delete(instance.project);
    if (this.#latest === instance) this.#latest = undefined;
    for (const end of instance.waits) end();
    this.#closing.set(instance.project, Promise.withResolvers());
    if (instance.users === 0) this.#close(instance);
  }

  /** Whether all its keys may still be used. This is no use of them. */
  #hasKeys({ project, others }: ProjectInstance): boolean {
    const { keys } = this.#options;
    return keys.has(project) && others.every(({ version }) => keys.has(project, version));
  }

  /** As long as its key may be used, a store is closed so that it opens fast the next time. */
  async #closeStore(instance: ProjectInstance): Promise<void> {
    const { project, store } = instance;
    const { logger } = this.#options;
    try {
      if (!store.failed && this.#hasKeys(instance)) await store.checkpoint();
    } catch (error) {
      logger.warn({ err: error, project }, 'a project was closed without a checkpoint');
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
        this.#closing.delete(instance.project);
        closing?.resolve();
        this.#announceRoom();
      });
  }
}

function isComplete(keys: readonly (LeasedKey | undefined)[]): keys is readonly LeasedKey[] {
  return keys.every((key) => key !== undefined);
}

function isSameKey(a: LeasedKey, b: LeasedKey): boolean {
  if (a === b) return true;
  return a.keyId === b.keyId && a.version === b.version && a.kcv === b.kcv;
}
