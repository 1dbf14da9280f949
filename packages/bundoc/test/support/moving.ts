import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { AppError } from '@bundoc/shared/contract/app-error';
import { createLogger } from '@bundoc/shared/logs/logger';
import { type Clock, systemClock } from '@bundoc/shared/runtime/clock';
import { KeyCache } from '../../src/crypto/key-cache.ts';
import { type Disk, makeDirectoryDurably } from '../../src/engine/files/disk/disk.ts';
import { type NodeDisk, openNodeDisk } from '../../src/engine/files/disk/node-disk.ts';
import type { FilesEngine } from '../../src/engine/files/files-engine.ts';
import { identifyFolder } from '../../src/engine/files/identity-in-folder.ts';
import { FileProjects } from '../../src/engine/files/projects/file-projects.ts';
import { FilesMoveSource } from '../../src/engine/files/transfer/move-source.ts';
import { type StartedStorage, startStorage } from '../../src/engine/identity/started-storage.ts';
import type { StorageIdentity } from '../../src/engine/identity/storage-file.ts';
import { settleMove } from '../../src/engine/moves/judge-move-mark.ts';
import type { MarkSetAside } from '../../src/engine/moves/set-aside.ts';
import type { ProjectStore } from '../../src/engine/port/port.ts';
import { SEAL_LIMITS } from '../../src/engine/port/seal-budget.ts';
import { GroupCommitter } from '../../src/engine/postgres/commit/group-commit.ts';
import type { Database, Transaction } from '../../src/engine/postgres/database/database.ts';
import { PostgresStore } from '../../src/engine/postgres/postgres-store.ts';
import { PostgresProjects, whyGone } from '../../src/engine/postgres/projects/postgres-projects.ts';
import { SharedReads } from '../../src/engine/postgres/reads/shared-reads.ts';
import { removeRows, unfenceRows } from '../../src/engine/postgres/rows/fence.ts';
import { identifyDatabase } from '../../src/engine/postgres/rows/identity-in-rows.ts';
import { SnapshotConnections } from '../../src/engine/postgres/snapshots/snapshot-connections.ts';
import { moveTargetIn } from '../../src/engine/postgres/transfer/move-target.ts';
import type { OpenedProject, Projects } from '../../src/engine/projects/projects.ts';
import type { StorageCalls } from '../../src/kms/port.ts';
import { StorageKeys } from '../../src/kms/storage-keys.ts';
import { InstanceManager } from '../../src/projects/instance-manager.ts';
import { Moves, type MovesOptions } from '../../src/service/moves.ts';
import { FakeKeyService } from '../../src/testing/fake-key-service.ts';
import { NO_NEWS } from '../../src/testing/postgres-project.ts';
import { closeEngine, engineOn, openTestStore } from '../../src/testing/test-engine.ts';
import { put, ref, remove } from '../../src/testing/writes.ts';

const logger = createLogger({ service: 'bundoc', level: 'silent' });
/** Many pages and rounds with few documents. */
const SMALL = { limit: 20, bytesMax: 4_000, fewChanges: 10 };
const IDS = ['a', 'b', 'c', 'gone'];
export const HELD: readonly string[] = ['a', 'b', 'c'];
/** A clock after the time in which an opening still waits for an interrupted move. */
const LATER: Clock = { ...systemClock, now: () => systemClock.now() + 60_000 };

export type Place = 'rows' | 'files';

/** The ports through which a move takes its steps. */
export interface Ports {
  readonly database: Database;
  readonly disk: Disk;
  readonly calls: StorageCalls;
}

/**
 * A project that moves between a database and a data folder of the test, and the nodes that serve it at
 * either end.
 */
export class Moving implements AsyncDisposable {
  readonly database: Database;
  readonly folder = mkdtempSync(join(tmpdir(), 'bundoc-move-'));
  readonly service = new FakeKeyService(systemClock);
  readonly disk: NodeDisk = openNodeDisk(this.folder);
  readonly setAside: MarkSetAside[] = [];
  project: string;
  #nodes: { readonly place: Place; readonly node: InstanceManager }[] = [];

  constructor(database: Database, project: string) {
    this.database = database;
    this.project = project;
  }

  readonly #onSetAside = (mark: MarkSetAside) => void this.setAside.push(mark);

  get ports(): Ports {
    return { database: this.database, disk: this.disk, calls: this.service };
  }

  get directory(): string {
    return join(this.folder, 'projects', this.project);
  }

  get tmp(): string {
    return join(this.folder, 'tmp');
  }

  get #projectsDir(): string {
    return join(this.folder, 'projects');
  }

  /** The engine of the process that holds the folder. */
  async #engine(): Promise<FilesEngine> {
    await this.identity('files');
    await this.disk.makeDirectory(this.#projectsDir);
    return engineOn(this.disk, { dataDir: this.folder, projectsDir: this.#projectsDir });
  }

  identity(place: Place): Promise<StorageIdentity> {
    return place === 'rows'
      ? identifyDatabase(this.database, systemClock)
      : identifyFolder(this.disk, this.folder);
  }

  /** A process that starts on a storage. */
  async start(place: Place, calls: StorageCalls = this.service): Promise<StartedStorage> {
    return startStorage(await this.identity(place), calls);
  }

  async #keysOf(place: Place, storage: StartedStorage): Promise<KeyCache> {
    const identity = await this.identity(place);
    const refused = async () => {
      const { id, generation = '' } = await identity.read();
      return { storage: id, generation };
    };
    const keys = new StorageKeys(storage.calls, { acting: storage.acting, refused });
    return new KeyCache({ keys, clock: systemClock, ttlMs: 900_000 });
  }

  async projects(place: Place, storage: StartedStorage, keys?: KeyCache, clock = LATER): Promise<Projects> {
    const { database, disk, folder } = this;
    const { id, takenOverMs } = await (await this.identity(place)).read();
    const options = {
      clock,
      storage: { id, takenOverMs },
      keys: keys ?? (await this.#keysOf(place, storage)),
      settle: (of: string, move: string) => settleMove(storage, of, move),
      onSetAside: this.#onSetAside,
    };
    if (place === 'rows') return new PostgresProjects({ ...options, database });
    return new FileProjects({
      ...options,
      disk,
      directory: this.#projectsDir,
      setAside: join(folder, 'set-aside'),
      tmp: this.tmp,
      engine: await this.#engine(),
    });
  }

  /**
   * A node, or the service on files.
   *
   * @param isAlone false for another user of the process that holds the folder; otherwise that process ends
   *   first.
   */
  async node(
    place: Place,
    storage?: StartedStorage,
    clock?: Clock,
    isAlone = true,
  ): Promise<InstanceManager> {
    const { database, disk } = this;
    if (place === 'files' && isAlone) await this.#endFiles();
    const started = storage ?? (await this.start(place));
    const keys = await this.#keysOf(place, started);
    const projects = await this.projects(place, started, keys, clock);
    const committer = new GroupCommitter({ database, clock: systemClock });
    const reads = new SharedReads(database);
    const snapshots = new SnapshotConnections({ database, clock: systemClock });
    const onRows = (of: string, { cipher }: OpenedProject) =>
      new PostgresStore({
        project: of,
        database,
        reads,
        snapshots,
        cipher,
        clock: systemClock,
        news: NO_NEWS,
        sealLimits: SEAL_LIMITS,
        committer,
        onIntegrityError: () => undefined,
        onFailure: () => undefined,
        whyGone: () => whyGone({ database, clock: systemClock }, of),
        onRotationDue: () => undefined,
      }).begin();
    const node = new InstanceManager({
      projects,
      keys,
      clock: systemClock,
      logger,
      openStore: async (of, opened) =>
        place === 'rows'
          ? onRows(of, opened)
          : openTestStore(of, join(this.#projectsDir, of), disk, opened, systemClock),
    });
    this.#nodes.push({ place, node });
    return node;
  }

  /** Ends the process that holds the folder. */
  async #endFiles(): Promise<void> {
    const ended = this.#nodes.filter(({ place }) => place === 'files');
    this.#nodes = this.#nodes.filter(({ place }) => place !== 'files');
    for (const { node } of ended) await node[Symbol.asyncDispose]();
    await closeEngine(this.disk);
  }

  async withStore<T>(node: InstanceManager, action: (store: ProjectStore) => Promise<T>): Promise<T> {
    using lease = await node.acquire(this.project, 'create');
    return await action(lease.store);
  }

  /** The moves of a service on files. */
  async moves(
    node: InstanceManager,
    { database, disk, calls }: Ports = this.ports,
    options: Partial<Pick<MovesOptions, 'feed' | 'from'>> & { readonly open?: () => Promise<void> } = {},
  ): Promise<Moves> {
    const { folder } = this;
    return new Moves({
      onSetAside: this.#onSetAside,
      instances: node,
      logger,
      feed: { end: () => undefined },
      keys: { evict: () => undefined },
      from: options.from ?? (await this.start('files', calls)),
      limits: SMALL,
      ...options,
      ends: {
        source: (of, instances) =>
          new FilesMoveSource({
            project: of,
            instances,
            place: {
              directory: join(this.#projectsDir, of),
              keptIn: join(folder, 'moved'),
              disk,
              tmp: this.tmp,
              // A dead process writes nothing into the log.
              forget: async () => {
                await makeDirectoryDurably(disk, this.tmp);
                await (await this.#engine()).forget(of);
              },
            },
          }),
        target: {
          place: 'there',
          open: async () => {
            await options.open?.();
            const target = await moveTargetIn(database, systemClock);
            return { ...target, [Symbol.asyncDispose]: async () => undefined };
          },
        },
      },
    });
  }

  /** As the service on files does. */
  async toDatabase(node: InstanceManager, ports: Ports = this.ports, from?: StartedStorage): Promise<void> {
    const moves = await this.moves(node, ports, from === undefined ? {} : { from });
    await (await moves.begin(this.project)).outcome;
  }

  /** The folder's storage takes the key over, and the rows are removed, as after a restore from a backup. */
  async leaveRows(): Promise<void> {
    const { id } = await (await this.identity('files')).read();
    this.service.takeOverKey(`${this.project}-dek`, id);
    await removeRows((action) => this.database.transaction('', action), this.project, 'left');
    await unfenceRows(this.database, this.project, 'left');
  }

  /** Moves the project out of the folder, in a process that ends with it. */
  async move(ports: Ports = this.ports): Promise<void> {
    const node = await this.node('files', await this.start('files', ports.calls));
    try {
      await this.toDatabase(node, ports);
    } finally {
      await node[Symbol.asyncDispose]();
    }
  }

  async fill(place: Place): Promise<void> {
    await this.withStore(await this.node(place), async (store) => {
      for (const id of IDS) await store.commit([put(id, '{}')]);
      await store.commit([remove('gone')]);
    });
  }

  /** The content of the project on a new node, or its refusal. The node is closed. */
  async held(place: Place): Promise<readonly string[] | string> {
    const node = await this.node(place);
    try {
      using lease = await node.acquire(this.project, 'existing');
      if (lease === undefined) return 'project_not_found';
      const { store } = lease;
      const found = await Promise.all(IDS.map(async (id) => ((await store.get(ref(id))) ? [id] : [])));
      return found.flat();
    } catch (error) {
      if (error instanceof AppError) return error.code;
      throw error;
    } finally {
      await node[Symbol.asyncDispose]();
    }
  }

  /** Ends all nodes, and continues with another project. */
  async next(project: string): Promise<void> {
    await this.#endAll();
    this.project = project;
  }

  async #endAll(): Promise<void> {
    await this.#endFiles();
    for (const { node } of this.#nodes) await node[Symbol.asyncDispose]();
    this.#nodes = [];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#endAll();
    await this.disk[Symbol.asyncDispose]();
    rmSync(this.folder, { recursive: true });
  }
}

/** How a process ends at one of its outside steps, or the fault that it meets from there on. */
export type Cut = 'dead before it' | 'dead after it' | 'BunKMS away before it' | 'BunKMS away after it';

const CHANGING = ['makeDirectory', 'createFile', 'rename', 'remove', 'removeTree', 'writeFiles'];

/** Interrupts a move at one of its steps. */
export class CutShort {
  readonly #at: number;
  readonly #cut: Cut;
  #steps = 0;
  isCut = false;

  constructor(at: number, cut: Cut) {
    this.#at = at;
    this.#cut = cut;
  }

  ports({ database, disk, calls }: Ports): Ports {
    const ofBunkms = this.#cut.startsWith('BunKMS');
    return {
      calls: this.#wrapped(calls, () => true),
      disk: ofBunkms ? disk : this.#wrapped(disk, (name) => CHANGING.includes(name)),
      database: ofBunkms ? database : this.#database(database),
    };
  }

  async #step<T>(action: () => Promise<T>): Promise<T> {
    const isHere = ++this.#steps >= this.#at;
    this.isCut ||= isHere;
    if (isHere && (this.#steps > this.#at || this.#cut.endsWith('before it'))) throw this.#error();
    const result = await action();
    if (isHere) throw this.#error();
    return result;
  }

  #error(): Error {
    return this.#cut.startsWith('BunKMS') ? new AppError('kms_unavailable') : new Error('cut short');
  }

  #wrapped<T extends object>(port: T, isStep: (name: string) => boolean): T {
    return new Proxy(port, {
      get: (target, name) => {
        const method: unknown = Reflect.get(target, name);
        if (typeof method !== 'function') return method;
        const call = (...args: unknown[]): unknown => Reflect.apply(method, target, args);
        return isStep(String(name)) ? (...args: unknown[]) => this.#step(async () => call(...args)) : call;
      },
    });
  }

  #database(database: Database): Database {
    const transaction: Database['transaction'] = (begin, action) =>
      this.#step(() =>
        database.transaction(begin, (inner, begun) => {
          const stepped: Transaction = {
            ...inner,
            query: (statement, values) => this.#step(() => inner.query(statement, values)),
          };
          return action(stepped, begun);
        }),
      );
    return new Proxy(
      this.#wrapped(database, (name) => ['query', 'run'].includes(name)),
      {
        get: (target, name) => (name === 'transaction' ? transaction : Reflect.get(target, name)),
      },
    );
  }
}
