import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '@bundoc/shared/clock';
import { hasCode } from '@bundoc/shared/errors';
import { createLogger } from '@bundoc/shared/logger';
import type { OpenFolder } from '../../src/move/folder-source.ts';
import type { MoveWatch } from '../../src/move/move-project.ts';
import { moveToDatabase } from '../../src/move/to-database.ts';
import { moveToFolder } from '../../src/move/to-folder.ts';
import { handOver } from '../../src/project/hand-over.ts';
import { type InstanceLease, InstanceManager } from '../../src/project/instance-manager.ts';
import { KeyCache } from '../../src/project/key-cache.ts';
import { halfMovedProjects, markMoved } from '../../src/project/moved-folder.ts';
import { formatProjectFile } from '../../src/project/project-file.ts';
import { ProjectFolders } from '../../src/project/project-folder.ts';
import { ProjectRows, whyGone } from '../../src/project/project-rows.ts';
import type { Projects } from '../../src/project/projects.ts';
import { Moves, type MovesOptions } from '../../src/service/moves.ts';
import { put, ref, remove } from '../../src/storage/conformance.ts';
import type { Disk } from '../../src/storage/embedded/disk.ts';
import { openNodeDisk } from '../../src/storage/embedded/node-disk.ts';
import { createEmbeddedStore } from '../../src/storage/embedded/recovery.ts';
import { SEAL_LIMITS } from '../../src/storage/embedded/seal-budget.ts';
import type { ProjectStore } from '../../src/storage/port.ts';
import type { Connections, Database, Transaction } from '../../src/storage/postgres/database.ts';
import { PostgresStore } from '../../src/storage/postgres/postgres-store.ts';
import { openTestStore } from '../../src/testing/embedded-project.ts';
import { FakeKeyService } from '../../src/testing/fake-key-service.ts';
import { NO_NEWS } from '../../src/testing/postgres-project.ts';

const logger = createLogger({ service: 'bundoc', level: 'silent' });
/** Many pages and rounds of few documents. */
const SMALL = { limit: 20, bytesMax: 4_000, fewChanges: 10 };
export const NOT_WATCHED: MoveWatch = { onCopied: () => undefined, onVerified: () => undefined };
const IDS = ['a', 'b', 'c', 'gone'];

/** What a move, or the end of one, does its steps by. */
export interface Ports {
  readonly database: Connections;
  readonly disk: Disk;
}

/** A project that is moved between a database and a data folder of the test's own, and the nodes that serve it at either end. */
export class Moving implements AsyncDisposable {
  readonly database: Database;
  readonly folder = mkdtempSync(join(tmpdir(), 'bundoc-move-'));
  readonly disk = openNodeDisk(this.folder);
  readonly service = new FakeKeyService(systemClock);
  project: string;
  readonly #ports: Ports;
  #nodes: InstanceManager[] = [];

  constructor(database: Database, project: string) {
    this.database = database;
    this.project = project;
    this.#ports = { database, disk: this.disk };
  }

  get directory(): string {
    return join(this.folder, this.project);
  }

  keys(): KeyCache {
    return new KeyCache({ keys: this.service.held, clock: systemClock, ttlMs: 900_000 });
  }

  /** A node on the database. */
  nodeOnRows(): InstanceManager {
    const { database } = this;
    const keys = this.keys();
    return this.#nodeOf(keys, this.rows(keys), (of, cipher) =>
      new PostgresStore({
        ...{ project: of, database, cipher, clock: systemClock, news: NO_NEWS },
        sealLimits: { ...SEAL_LIMITS, reserve: 1_000 },
        onIntegrityError: () => undefined,
        onFailure: () => undefined,
        whyGone: () => whyGone({ database, clock: systemClock }, of),
        onRotationDue: () => undefined,
      }).begin(),
    );
  }

  rows(keys: KeyCache = this.keys()): ProjectRows {
    return new ProjectRows({ database: this.database, keys, clock: systemClock });
  }

  folders(keys: KeyCache = this.keys(), disk: Disk = this.disk): ProjectFolders {
    return new ProjectFolders({
      ...{ disk, keys, directory: this.folder, clock: systemClock },
      createStore: (of, directory, cipher) => createEmbeddedStore({ project: of, directory, disk, cipher }),
    });
  }

  /** The service on files. */
  nodeOnFiles(): InstanceManager {
    const keys = this.keys();
    return this.#nodeOf(keys, this.folders(keys), (of, cipher) =>
      openTestStore(of, join(this.folder, of), this.disk, cipher, systemClock),
    );
  }

  async withStore<T>(node: InstanceManager, action: (store: ProjectStore) => Promise<T>): Promise<T> {
    using lease = await node.acquire(this.project, 'create');
    return await action(lease.store);
  }

  toFolder(ports: Ports = this.#ports, watch: MoveWatch = NOT_WATCHED): Promise<void> {
    const { project, directory, service: keys } = this;
    return moveToFolder({ project, directory, keys, ...ports }, (reserve) => reserve(), watch, SMALL);
  }

  /** As the service does. */
  toDatabase(node: InstanceManager, ports: Ports = this.#ports, watch: MoveWatch = NOT_WATCHED) {
    const { project, directory, folder } = this;
    const withOpen = async <T>(action: (open: OpenFolder) => Promise<T>) => {
      using lease = await node.acquire(project, 'create');
      return await action(openOf(lease));
    };
    return moveToDatabase(
      {
        ...{ project, directory, keptIn: join(folder, 'kept'), ...ports },
        source: {
          withOpen,
          switchOver: (mark, action) =>
            handOver(
              node,
              project,
              (lease) => action(openOf(lease)),
              () => markMoved(ports.disk, directory, mark),
            ),
        },
      },
      watch,
      SMALL,
    );
  }

  /** The moves of a service on files. */
  moves(
    node: InstanceManager,
    ports: Ports = this.#ports,
    options: Partial<Pick<MovesOptions, 'feed' | 'logger'>> & { readonly open?: () => Promise<void> } = {},
  ): Moves {
    const { folder } = this;
    const { database, disk } = ports;
    return new Moves({
      ...{ instances: node, keys: this.keys(), logger, feed: { end: () => undefined }, ...options },
      folders: {
        placeOf: (of) => ({
          ...{ directory: join(folder, of), keptIn: join(folder, 'kept'), disk },
          forget: () => undefined,
        }),
        halfMoved: () => halfMovedProjects(disk, folder),
      },
      target: {
        place: 'there',
        open: async () => {
          await options.open?.();
          return {
            query: (...args) => database.query(...args),
            run: (text) => database.run(text),
            transaction: (begin, action) => database.transaction(begin, action),
            [Symbol.asyncDispose]: async () => undefined,
          };
        },
      },
    });
  }

  async fill(node: InstanceManager): Promise<void> {
    await this.withStore(node, async (store) => {
      for (const id of IDS) await store.commit([put(id, '{}')]);
      await store.commit([remove('gone')]);
    });
  }

  /** What a new node has of the project that was filled; undefined where it is not. The node is closed. */
  async held(node: InstanceManager): Promise<readonly string[] | undefined> {
    try {
      using lease = await node.acquire(this.project, 'existing');
      if (lease === undefined) return undefined;
      const { store } = lease;
      const found = await Promise.all(IDS.map(async (id) => ((await store.get(ref(id))) ? [id] : [])));
      return found.flat();
    } catch (error) {
      if (hasCode(error, 'project_moved', 'project_moving')) return undefined;
      throw error;
    } finally {
      await node[Symbol.asyncDispose]();
    }
  }

  /** Ends all nodes, and goes on with another project. */
  async next(project: string): Promise<void> {
    for (const node of this.#nodes) await node[Symbol.asyncDispose]();
    this.#nodes = [];
    rmSync(this.directory, { recursive: true, force: true });
    this.project = project;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const node of this.#nodes) await node[Symbol.asyncDispose]();
    await this.disk[Symbol.asyncDispose]();
    rmSync(this.folder, { recursive: true });
  }

  #nodeOf(
    keys: KeyCache,
    projects: Projects,
    openStore: ConstructorParameters<typeof InstanceManager>[0]['openStore'],
  ): InstanceManager {
    const node = new InstanceManager({ projects, keys, clock: systemClock, logger, openStore });
    this.#nodes.push(node);
    return node;
  }
}

function openOf({ store, cipher, file }: InstanceLease): OpenFolder {
  return { store, cipher, file: formatProjectFile(file).toString() };
}

/** Ends a process before one of the steps that it takes outside of itself: nothing happens from there on. */
export class CutShort {
  readonly #at: number;
  #steps = 0;

  constructor(at: number) {
    this.#at = at;
  }

  get isCut(): boolean {
    return this.#steps >= this.#at;
  }

  ports({ database, disk }: Moving): Ports {
    return { database: this.#database(database), disk: this.#disk(disk) };
  }

  async #step<T>(action: () => Promise<T>): Promise<T> {
    if (++this.#steps >= this.#at) throw new Error('cut short');
    return await action();
  }

  #disk(disk: Disk): Disk {
    const changing = ['makeDirectory', 'createFile', 'rename', 'remove', 'removeTree', 'writeFiles'];
    return new Proxy(disk, {
      get: (target, name) => {
        const method = Reflect.get(target, name) as (...args: unknown[]) => Promise<unknown>;
        return changing.includes(String(name))
          ? (...args: unknown[]) => this.#step(() => method.apply(target, args))
          : method;
      },
    });
  }

  #database(database: Database): Connections {
    return {
      run: (text) => this.#step(() => database.run(text)),
      query: (statement, values) => this.#step(() => database.query(statement, values)),
      transaction: (begin, action) =>
        this.#step(() =>
          database.transaction(begin, (transaction, begun) => {
            const stepped: Transaction = {
              ...transaction,
              query: (statement, values) => this.#step(() => transaction.query(statement, values)),
            };
            return action(stepped, begun);
          }),
        ),
    };
  }
}
