import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { systemClock } from '@bundoc/shared/clock';
import { AppError, hasCode } from '@bundoc/shared/errors';
import { createLogger } from '@bundoc/shared/logger';
import { PostgresServer } from '@bundoc/shared/testing/postgres-server';
import { describeWithPostgres } from '@bundoc/shared/testing/postgres-tests';
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest';
import type { OpenFolder } from '../src/move/folder-source.ts';
import type { MoveWatch } from '../src/move/move-project.ts';
import { moveToDatabase } from '../src/move/to-database.ts';
import { moveToFolder } from '../src/move/to-folder.ts';
import { handOver } from '../src/project/hand-over.ts';
import { type InstanceLease, InstanceManager } from '../src/project/instance-manager.ts';
import { KeyCache } from '../src/project/key-cache.ts';
import { formatProjectFile } from '../src/project/project-file.ts';
import { ProjectFolders } from '../src/project/project-folder.ts';
import { ProjectRows, whyGone } from '../src/project/project-rows.ts';
import type { Projects } from '../src/project/projects.ts';
import { Moves } from '../src/service/moves.ts';
import { put, ref, remove } from '../src/storage/conformance.ts';
import type { Disk } from '../src/storage/embedded/disk.ts';
import { nodeDisk } from '../src/storage/embedded/node-disk.ts';
import { createEmbeddedStore } from '../src/storage/embedded/recovery.ts';
import { SEAL_LIMITS } from '../src/storage/embedded/seal-budget.ts';
import type { ProjectStore } from '../src/storage/port.ts';
import {
  type Connections,
  type Database,
  OutcomeUnknown,
  type Transaction,
} from '../src/storage/postgres/database.ts';
import { migrate } from '../src/storage/postgres/migrate.ts';
import { PostgresStore } from '../src/storage/postgres/postgres-store.ts';
import { openTestStore } from '../src/testing/embedded-project.ts';
import { FakeKeyService } from '../src/testing/fake-key-service.ts';
import { NO_NEWS, openTestDatabase } from '../src/testing/postgres-project.ts';

const logger = createLogger({ service: 'bundoc', level: 'silent' });
/** Many pages and rounds of few documents. */
const SMALL = { limit: 20, bytesMax: 4_000, fewChanges: 10 };
const NOT_WATCHED: MoveWatch = { onCopied: () => undefined, onVerified: () => undefined };

describeWithPostgres('a project that is moved', () => {
  let server: PostgresServer;
  let database: Database;
  let folder: string;
  let service: FakeKeyService;
  let projects = 0;
  let project: string;
  let nodes: InstanceManager[];
  beforeAll(async () => {
    server = await PostgresServer.start();
    database = openTestDatabase((await server.createDatabase('bundoc')).url, { connectionsMax: 20 });
    await migrate(database);
  });
  afterAll(async () => {
    await database?.[Symbol.asyncDispose]();
    await server?.[Symbol.asyncDispose]();
  });
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'bundoc-move-'));
    service = new FakeKeyService(systemClock);
    project = `moved-${projects++}`;
    nodes = [];
  });
  afterEach(async () => {
    for (const node of nodes) await node[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true });
  });

  const keysOf = () => new KeyCache({ keys: service, clock: systemClock, ttlMs: 900_000 });
  const nodeOf = (
    keys: KeyCache,
    of: Projects,
    openStore: ConstructorParameters<typeof InstanceManager>[0]['openStore'],
  ) => {
    const node = new InstanceManager({ projects: of, keys, clock: systemClock, logger, openStore });
    nodes.push(node);
    return node;
  };
  /** A node on the database. */
  const nodeOnRows = () => {
    const keys = keysOf();
    return nodeOf(keys, new ProjectRows({ database, keys, clock: systemClock }), (of, cipher) =>
      new PostgresStore({
        ...{ project: of, database, cipher, clock: systemClock, news: NO_NEWS },
        sealLimits: { ...SEAL_LIMITS, reserve: 1_000 },
        onIntegrityError: () => undefined,
        onFailure: () => undefined,
        whyGone: () => whyGone({ database, clock: systemClock }, of),
        onRotationDue: () => undefined,
      }).begin(),
    );
  };
  const foldersOf = (keys: KeyCache, disk: Disk = nodeDisk) =>
    new ProjectFolders({
      ...{ disk, keys, directory: folder, clock: systemClock },
      createStore: (of, directory, cipher) => createEmbeddedStore({ project: of, directory, disk, cipher }),
    });
  /** The service on files. */
  const nodeOnFiles = () => {
    const keys = keysOf();
    const folders = foldersOf(keys);
    return nodeOf(keys, folders, (of, cipher) =>
      openTestStore(of, join(folder, of), nodeDisk, cipher, systemClock),
    );
  };
  const withStore = async <T>(node: InstanceManager, action: (store: ProjectStore) => Promise<T>) => {
    using lease = await node.acquire(project, 'create');
    return await action(lease.store);
  };

  const toFolder = (
    ports: { readonly database: Connections; readonly disk: Disk } = { database, disk: nodeDisk },
    watch = NOT_WATCHED,
  ) =>
    moveToFolder(
      { project, directory: join(folder, project), keys: service, ...ports },
      (reserve) => reserve(),
      watch,
      SMALL,
    );
  /** As the service does. */
  const toDatabase = (
    node: InstanceManager,
    ports: { readonly database: Connections; readonly disk: Disk } = { database, disk: nodeDisk },
    watch = NOT_WATCHED,
  ) => {
    const withOpen = async <T>(action: (open: OpenFolder) => Promise<T>) => {
      using lease = await node.acquire(project, 'create');
      return await action(openOf(lease));
    };
    return moveToDatabase(
      {
        project,
        directory: join(folder, project),
        keptIn: join(folder, 'kept'),
        ...ports,
        source: {
          withOpen,
          switchOver: (mark, action) =>
            handOver(
              node,
              project,
              (lease) => action(openOf(lease)),
              () => foldersOf(keysOf(), ports.disk).markMoved(project, mark),
            ),
        },
      },
      watch,
      SMALL,
    );
  };

  it.each([['out of PostgreSQL'], ['into PostgreSQL']] as const)(
    '%s is written to and read until it changes hands: nothing acknowledged is missing where it is then',
    async (direction) => {
      const isOut = direction === 'out of PostgreSQL';
      const from = isOut ? [nodeOnRows(), nodeOnRows()] : [nodeOnFiles()];
      const acknowledged = new Map<string, string | undefined>();
      let isMoved = false;
      let writes = 0;
      let reads = 0;
      const unexpected: unknown[] = [];
      const write = async (node: InstanceManager, id: string, isDelete: boolean) => {
        const value = `{"v":${writes++}}`;
        const [result] = await withStore(node, (store) =>
          store.commit([isDelete ? remove(id) : put(id, value)]),
        );
        acknowledged.set(id, result?.metadata?._rev);
      };
      for (let n = 0; n < 60; n++) await write(from[0] as InstanceManager, `before-${n}`, false);
      await withStore(from[0] as InstanceManager, (store) =>
        store.commit([put('keyed', '{"v":"once"}')], {
          idempotency: { key: 'a'.repeat(32), request: 'b'.repeat(32) },
        }),
      );

      const writer = async (worker: number) => {
        for (let step = 0; !isMoved; step++) {
          await setImmediate();
          const node = from[step % from.length] as InstanceManager;
          // Of each worker alone, so that what was answered last is what there must be.
          const id = `w${worker}-${step % 8}`;
          try {
            await write(node, id, step % 5 === 4 && acknowledged.get(id) !== undefined);
          } catch (error) {
            if (hasCode(error, 'project_moved')) return;
            // Not written, or not known to be: it is told to come back.
            if (hasCode(error, 'storage_unavailable')) acknowledged.delete(id);
            else if (!hasCode(error, 'project_moving', 'overloaded')) unexpected.push(error);
          }
        }
      };
      const reader = async (node: InstanceManager) => {
        while (!isMoved) {
          await setImmediate();
          try {
            const read = await withStore(node, (store) => store.get(ref(`before-${reads % 60}`)));
            if (read === undefined) unexpected.push(`before-${reads % 60} was not there`);
            reads++;
          } catch (error) {
            if (hasCode(error, 'project_moved')) return;
            if (!hasCode(error, 'storage_unavailable')) unexpected.push(error);
          }
        }
      };
      const busy = [0, 1, 2, 3].map(writer).concat(from.map(reader));
      let during = 0;
      const watch: MoveWatch = {
        ...NOT_WATCHED,
        onVerified: () => {
          during ||= writes;
        },
      };
      if (isOut) await toFolder(undefined, watch);
      else await toDatabase(from[0] as InstanceManager, undefined, watch);
      isMoved = true;
      await Promise.all(busy);
      expect(unexpected).toEqual([]);
      expect(during, 'written while it was copied').toBeGreaterThan(60);
      expect(reads).toBeGreaterThan(0);
      for (const node of from) {
        await expect(withStore(node, (store) => store.get(ref('before-0')))).rejects.toMatchObject({
          code: 'project_moved',
        });
        await expect(withStore(node, (store) => store.commit([put('late', '{}')]))).rejects.toMatchObject({
          code: 'project_moved',
        });
      }

      const there = isOut ? nodeOnFiles() : nodeOnRows();
      await withStore(there, async (store) => {
        for (const [id, rev] of acknowledged)
          expect([id, (await store.get(ref(id)))?.metadata._rev]).toEqual([id, rev]);
        const again = await store.commit([put('keyed', '{"v":"once"}')], {
          idempotency: { key: 'a'.repeat(32), request: 'b'.repeat(32) },
        });
        expect(again[0]?.metadata?._rev).toBe((await store.get(ref('keyed')))?.metadata._rev);
        await store.commit([put('goes-on', '{}')]);
      });
    },
  );

  it('follows a rotation of its key that comes while it is copied', async () => {
    const node = nodeOnRows();
    for (let n = 0; n < 20; n++) await withStore(node, (store) => store.commit([put(`a${n}`, '{}')]));
    let isRotated = false;
    await toFolder(undefined, {
      ...NOT_WATCHED,
      onVerified: () => undefined,
      onCopied: () => {
        if (isRotated) return;
        isRotated = true;
        void service.rotateKey(`${project}-dek`, 1);
      },
    });
    const there = nodeOnFiles();
    await withStore(there, async (store) => {
      for (let n = 0; n < 20; n++) expect(await store.get(ref(`a${n}`))).toBeDefined();
    });
  });

  it('is not deleted where it is not: its key would be destroyed', async () => {
    await withStore(nodeOnRows(), (store) => store.commit([put('a', '{}')]));
    await toFolder();
    const rows = new ProjectRows({ database, keys: keysOf(), clock: systemClock });
    await expect(rows.exists(project)).rejects.toMatchObject({ code: 'project_moved' });
    const mark = { deleted: project, format: 1, since: new Date().toISOString() } as const;
    await expect(rows.markDeletion(project, mark)).rejects.toMatchObject({ code: 'project_moved' });
    expect(await rows.names('', 1_000)).not.toContain(project);
    expect(await foldersOf(keysOf()).names('', 10)).toEqual([project]);
  });

  const ids = ['a', 'b', 'c', 'gone'];
  const fill = (node: InstanceManager) =>
    withStore(node, async (store) => {
      for (const id of ids) await store.commit([put(id, '{}')]);
      await store.commit([remove('gone')]);
    });
  /** What a new node has of the project; undefined where it is not. */
  const held = async (node: InstanceManager) => {
    try {
      using lease = await node.acquire(project, 'existing');
      if (lease === undefined) return undefined;
      const { store } = lease;
      const found = await Promise.all(ids.map(async (id) => ((await store.get(ref(id))) ? [id] : [])));
      return found.flat();
    } catch (error) {
      if (hasCode(error, 'project_moved', 'project_moving')) return undefined;
      throw error;
    } finally {
      await node[Symbol.asyncDispose]();
    }
  };

  it.each([['out of PostgreSQL'], ['into PostgreSQL']] as const)(
    '%s is in one place alone wherever the move is cut short, and gets there when it is begun again',
    async (direction) => {
      const isOut = direction === 'out of PostgreSQL';
      let cut = 0;
      for (let at = 1; ; at++) {
        project = `cut-${isOut ? 'out' : 'in'}-${at}`;
        const steps = new CutShort(at);
        const source = isOut ? nodeOnRows() : nodeOnFiles();
        await fill(source);
        const ports = { database: steps.database(database), disk: steps.disk(nodeDisk) };
        const outcome = await (isOut ? toFolder(ports) : toDatabase(source, ports)).catch(
          (error: unknown) => error,
        );
        await source[Symbol.asyncDispose]();
        const places = [await held(nodeOnRows()), await held(nodeOnFiles())];
        const serving = places.filter((place) => place !== undefined);
        expect([at, serving.length <= 1]).toEqual([at, true]);
        for (const place of serving) expect([at, place]).toEqual([at, ['a', 'b', 'c']]);
        if (steps.isCut) {
          cut++;
          expect(outcome).toBeInstanceOf(Error);
          const again = nodeOnFiles();
          await (isOut ? toFolder() : toDatabase(again));
          await again[Symbol.asyncDispose]();
        } else expect(outcome).not.toBeInstanceOf(Error);
        expect([at, await held(isOut ? nodeOnFiles() : nodeOnRows())]).toEqual([at, ['a', 'b', 'c']]);
        expect([at, await held(isOut ? nodeOnRows() : nodeOnFiles())]).toEqual([at, undefined]);
        nodes = [];
        rmSync(join(folder, project), { recursive: true, force: true });
        if (!steps.isCut) break;
      }
      expect(cut).toBeGreaterThan(15);
    },
  );

  it('out of PostgreSQL changes hands once, though the commit that it does by is not answered', async () => {
    await fill(nodeOnRows());
    let unknown = 0;
    const answerless: Connections = {
      query: (...args) => database.query(...args),
      run: (text) => database.run(text),
      transaction: async (begin, action) => {
        const result = await database.transaction(begin, action);
        if (!begin.includes('bundoc.heads')) return result;
        unknown++;
        throw new OutcomeUnknown();
      },
    };
    await toFolder({ database: answerless, disk: nodeDisk });
    expect(unknown).toBe(1);
    expect(await held(nodeOnFiles())).toEqual(['a', 'b', 'c']);
    expect(await held(nodeOnRows())).toBeUndefined();
  });

  it('by a service stops when it is told to, is made once at a time, goes on, and answers the same when it is over', async () => {
    const node = nodeOnFiles();
    await fill(node);
    const gate = Promise.withResolvers<void>();
    const ended: string[] = [];
    const moves = new Moves({
      ...{ instances: node, keys: keysOf(), logger, feed: { end: (of) => void ended.push(of) } },
      placeOf: (of) => ({
        ...{ directory: join(folder, of), keptIn: join(folder, 'kept'), disk: nodeDisk },
        forget: () => undefined,
      }),
      target: {
        place: 'there',
        open: async () => {
          await gate.promise;
          return {
            query: (...args) => database.query(...args),
            run: (text) => database.run(text),
            transaction: (begin, action) => database.transaction(begin, action),
            [Symbol.asyncDispose]: async () => undefined,
          };
        },
      },
    });
    await expect(moves.begin('none')).rejects.toMatchObject({ code: 'project_not_found' });
    const first = await moves.begin(project);
    await expect(moves.begin(project)).rejects.toMatchObject({ code: 'rate_limited' });
    expect(first.progress).toEqual({ step: 'copying', documents: 0, of: 0 });
    first.stop(new AppError('overloaded'));
    gate.resolve();
    await expect(first.outcome).rejects.toMatchObject({ code: 'overloaded' });
    await withStore(node, (store) => store.commit([put('c', '{"after":"it stopped"}')]));
    expect(ended).toEqual([]);

    const moved = await (await moves.begin(project)).outcome;
    expect(moved).toEqual({ to: 'there', kept: expect.stringContaining(`${project}-`) });
    expect(ended).toEqual([project]);
    expect(await (await moves.begin(project)).outcome).toEqual(moved);
    await moves.close();
    await expect(moves.begin(project)).rejects.toMatchObject({ code: 'overloaded' });
    expect(await held(nodeOnFiles())).toBeUndefined();
    expect(await held(nodeOnRows())).toEqual(['a', 'b', 'c']);
  });

  it('is refused where there is one of its id, and where it was deleted', async () => {
    await fill(nodeOnFiles());
    await fill(nodeOnRows());
    await expect(toFolder()).rejects.toThrow('there is a folder');
    await expect(toDatabase(nodeOnFiles())).rejects.toThrow('is in the database already');
    expect(readdirSync(join(folder, project))).not.toContain('move.json');
  });
});

function openOf({ store, cipher, file }: InstanceLease): OpenFolder {
  return { store, cipher, file: formatProjectFile(file).toString() };
}

/** Ends a process before one of the steps that it takes outside of itself: nothing happens from there on. */
class CutShort {
  readonly #at: number;
  #steps = 0;

  constructor(at: number) {
    this.#at = at;
  }

  get isCut(): boolean {
    return this.#steps >= this.#at;
  }

  async step<T>(action: () => Promise<T>): Promise<T> {
    if (++this.#steps >= this.#at) throw new Error('cut short');
    return await action();
  }

  disk(disk: Disk): Disk {
    const changing = ['makeDirectory', 'createFile', 'rename', 'remove', 'removeTree', 'writeFiles'];
    return new Proxy(disk, {
      get: (target, name) => {
        const method = Reflect.get(target, name) as (...args: unknown[]) => Promise<unknown>;
        return changing.includes(String(name))
          ? (...args: unknown[]) => this.step(() => method.apply(target, args))
          : method;
      },
    });
  }

  database(database: Database): Connections {
    return {
      run: (text) => this.step(() => database.run(text)),
      query: (statement, values) => this.step(() => database.query(statement, values)),
      transaction: (begin, action) =>
        this.step(() =>
          database.transaction(begin, (transaction, begun) => {
            const stepped: Transaction = {
              ...transaction,
              query: (statement, values) => this.step(() => transaction.query(statement, values)),
            };
            return action(stepped, begun);
          }),
        ),
    };
  }
}
