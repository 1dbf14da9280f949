import { randomInt } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { AppError } from '@bundoc/shared/contract/app-error';
import { systemClock } from '@bundoc/shared/runtime/clock';
import { runs } from '@bundoc/shared/testing/long';
import type { PostgresServer } from '@bundoc/shared/testing/postgres-server';
import { needs } from '@bundoc/shared/testing/programs';
import { startInBackground } from '@bundoc/shared/testing/timing';
import { describe, expect, it } from 'vitest';
import { isRegister, type Operation } from '../../../test/support/cluster-load.ts';
import type { Precondition } from '../src/engine/port/port.ts';
import { GroupCommitter } from '../src/engine/postgres/commit/group-commit.ts';
import type { Database } from '../src/engine/postgres/database/database.ts';
import type { PostgresStore } from '../src/engine/postgres/postgres-store.ts';
import { removeRows } from '../src/engine/postgres/rows/fence.ts';
import { NO_NEWS, openTestDatabase, type PostgresProject } from '../src/testing/postgres-project.ts';
import { commitOne, put, ref } from '../src/testing/writes.ts';
import { COMMIT_MESSAGE, CuttingProxy } from './support/cutting-proxy.ts';
import { type UsedDatabase, useDatabase } from './support/use-database.ts';

const SEED = Number(process.env['GROUPS_SEED'] ?? randomInt(2 ** 31));
const NODES = 3;
const PROJECTS = runs(60, 200);
const DELETED = runs(10, 20);
const WORKERS = runs(30, 60);
const FAULTS = runs(60, 1_000);
const CRASHES = runs(2, 20);

let seed = SEED;
/** mulberry32: the same seed yields the same actions, though not the same timing. */
function random(): number {
  seed = (seed + 0x6d2b79f5) | 0;
  let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
}
const below = (count: number) => Math.floor(random() * count);
const pick = <T>(list: readonly T[]): T => list[below(list.length)] as T;

/** A project, the state of each node, and the writes to its document `r`. */
class Watched {
  readonly project: PostgresProject;
  readonly stores: (Promise<PostgresStore> | undefined)[] = [];
  readonly history: Operation[] = [];
  isDeleted = false;
  acknowledged = 0;
  /** Commits without an answer: each may have taken effect, or not. */
  unknown = 0;

  constructor(project: PostgresProject) {
    this.project = project;
  }
}

interface Node {
  readonly database: Database;
  readonly committer: GroupCommitter;
}

/** Three nodes that write to all projects, each over separate connections that can be cut. */
class Nodes implements AsyncDisposable {
  readonly #stack = new AsyncDisposableStack();
  readonly proxies: CuttingProxy[] = [];
  readonly #nodes: Node[] = [];
  readonly #watched: readonly Watched[];
  #values = 0;
  readonly unexpected: string[] = [];

  constructor(watched: readonly Watched[]) {
    this.#watched = watched;
  }

  async start(server: PostgresServer): Promise<void> {
    for (let n = 0; n < NODES; n++) {
      const proxy = this.#stack.use(await CuttingProxy.open(server.port));
      const url = server.urlOf('bundoc', proxy.port);
      const database = this.#stack.use(openTestDatabase(url, { connectionsMax: 12 }));
      this.proxies.push(proxy);
      this.#nodes.push({ database, committer: new GroupCommitter({ database, clock: systemClock }) });
    }
  }

  /** Runs an action on the project at one of the nodes, which reopens it if necessary. */
  async #use<T>(watched: Watched, action: (store: PostgresStore) => Promise<T>): Promise<T> {
    const at = below(NODES);
    const opening = watched.stores[at] ?? this.#open(watched, at);
    watched.stores[at] = opening;
    const forget = () => {
      if (watched.stores[at] === opening) watched.stores[at] = undefined;
    };
    const store = await opening.catch((error: unknown) => {
      forget();
      throw error;
    });
    if (!store.failed) return action(store);
    forget();
    await store[Symbol.asyncDispose]();
    return this.#use(watched, action);
  }

  #open({ project }: Watched, at: number): Promise<PostgresStore> {
    const { database, committer } = this.#nodes[at] as Node;
    return project.open(database, NO_NEWS, { committer });
  }

  async read(watched: Watched) {
    const invokedAt = performance.now();
    const found = await this.#use(watched, (store) => store.get(ref('r')));
    const value = found && (JSON.parse(found.text.toString()) as { value: number }).value;
    watched.history.push({ kind: 'read', value, invokedAt, answeredAt: performance.now() });
    return found && { value: value as number, rev: found.metadata._rev };
  }

  async write(watched: Watched, from: { value: number; rev: string } | undefined) {
    const value = ++this.#values;
    const precondition: Precondition =
      from === undefined ? { kind: 'none' } : { kind: 'revision', anyOf: [from.rev] };
    const invokedAt = performance.now();
    const refused = await this.#commit(watched, 'r', `{"value":${value}}`, precondition);
    const times = {
      invokedAt,
      answeredAt: refused === undefined ? Number.POSITIVE_INFINITY : performance.now(),
    };
    if (from === undefined) watched.history.push({ kind: 'write', value, ...times });
    else {
      const set = { kind: 'compare and set', expected: from.value, value } as const;
      watched.history.push({ ...set, refused: refused === true, ...times });
    }
  }

  async create(watched: Watched) {
    const refused = await this.#commit(watched, `d${++this.#values}`, '{}', { kind: 'absent' });
    if (refused === true) this.unexpected.push('a document was there before it was made: it was made twice');
  }

  /** @returns whether its precondition failed; undefined for an unknown outcome. */
  async #commit(watched: Watched, id: string, json: string, precondition: Precondition) {
    try {
      await this.#use(watched, (store) => commitOne(store, put(id, json, precondition)));
      watched.acknowledged++;
      return false;
    } catch (error) {
      if (error instanceof AppError && error.code === 'precondition_failed') return true;
      watched.unknown++;
      this.#expected(watched, error);
      return undefined;
    }
  }

  #expected({ isDeleted }: Watched, error: unknown): void {
    const code = error instanceof AppError ? error.code : String(error);
    if (code !== 'storage_unavailable' && !(isDeleted && code === 'project_destroyed'))
      this.unexpected.push(code);
  }

  async work(isOver: () => boolean): Promise<void> {
    while (!isOver()) {
      const watched = pick(this.#watched);
      const dice = random();
      try {
        if (dice < 0.2) await this.read(watched);
        else if (dice < 0.4) await this.write(watched, undefined);
        else if (dice < 0.7) await this.write(watched, await this.read(watched));
        else await this.create(watched);
      } catch (error) {
        this.#expected(watched, error);
        await sleep(1);
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { stores } of this.#watched)
      for (const opening of stores.splice(0)) await (await opening)?.[Symbol.asyncDispose]();
    await this.#stack.disposeAsync();
  }
}

describe(`three nodes that write to ${PROJECTS} projects in one PostgreSQL`, needs('postgresql'), () => {
  let server: PostgresServer;
  let database: Database;
  let newProject: UsedDatabase['newProject'];
  useDatabase((used) => {
    ({ server, database, newProject } = used);
  });

  const start = async () => {
    const watched: Watched[] = [];
    for (let n = 0; n < PROJECTS; n++) {
      const project = await newProject();
      await database.run(`INSERT INTO bundoc.projects (project, file) VALUES ('${project.project}', '{}')`);
      watched.push(new Watched(project));
    }
    const nodes = new Nodes(watched);
    await nodes.start(server);
    return { watched, nodes };
  };

  /** Injects faults while the nodes work, and checks the result. */
  const during = async (
    { watched, nodes }: Awaited<ReturnType<typeof start>>,
    disturb: () => Promise<void>,
  ) => {
    let isOver = false;
    const working = startInBackground(
      Promise.all(Array.from({ length: WORKERS }, () => nodes.work(() => isOver))),
    );
    await disturb();
    isOver = true;
    await working;
    expect(nodes.unexpected).toEqual([]);
    for (const one of watched.filter(({ isDeleted }) => !isDeleted)) {
      // A node that missed a new version of the key reports once that it must reopen.
      await expect.poll(() => nodes.read(one).then(() => 'read', String)).toBe('read');
      expect(isRegister(one.history), JSON.stringify(one.history)).toBe(true);
      const store = await one.project.open(database);
      const { changes, position } = await store.changes(0, 10_000);
      // A lost or repeated commit would change the count.
      expect(position).toBeGreaterThanOrEqual(one.acknowledged);
      expect(position).toBeLessThanOrEqual(one.acknowledged + one.unknown);
      expect(new Set(changes.map(({ ref: { id } }) => id)).size).toBe(changes.length);
      await store[Symbol.asyncDispose]();
    }
    const sum = (count: (one: Watched) => number) => watched.reduce((all, one) => all + count(one), 0);
    const figures = { acknowledged: sum((one) => one.acknowledged), unknown: sum((one) => one.unknown) };
    process.stdout.write(`groups: ${JSON.stringify(figures)}\n`);
    expect(figures.acknowledged).toBeGreaterThan(PROJECTS);
    await nodes[Symbol.asyncDispose]();
  };

  it('are linearizable for each document, lose nothing and apply nothing twice, while connections break and projects are deleted, rotated and moved', async () => {
    process.stdout.write(`groups: GROUPS_SEED=${SEED}\n`);
    const running = await start();
    const { watched, nodes } = running;
    const living = () => pick(watched.slice(DELETED));
    const places = [COMMIT_MESSAGE, COMMIT_MESSAGE, 'bundoc-write-group', 'bundoc-lock-heads'];
    const faults = [
      async () => pick(nodes.proxies).cutAt(pick(places), pick(['before the request', 'before the answer'])),
      async () => pick(nodes.proxies).cutNow(),
      async () => living().project.rotate(database),
    ];
    await during(running, async () => {
      for (let n = 0; n < FAULTS; n++) {
        // Projects of one node's groups are deleted right after a cut, before the lookup.
        const deleted = n % 5 === 0 ? watched[n / 5] : undefined;
        if (deleted !== undefined && n / 5 < DELETED) {
          pick(nodes.proxies).cutAt(COMMIT_MESSAGE, pick(['before the request', 'before the answer']));
          deleted.isDeleted = true;
          const { project } = deleted.project;
          await removeRows((action) => database.transaction('', action), project, '{"deleted":true}');
        }
        await pick(faults)();
        await sleep(below(40));
      }
    });
    expect(nodes.proxies.reduce((sum, { cuts }) => sum + cuts, 0)).toBeGreaterThan(FAULTS / 10);
    expect(await server.sql("SELECT deadlocks FROM pg_stat_database WHERE datname = 'bundoc'")).toBe('0');
  });

  it('are linearizable for each document, lose nothing and apply nothing twice, while PostgreSQL is killed during groups', async () => {
    const running = await start();
    await during(running, async () => {
      for (let n = 0; n < CRASHES; n++) {
        await sleep(200 + below(200));
        const acknowledged = running.watched.reduce((sum, one) => sum + one.acknowledged, 0);
        // PostgreSQL ends all of its processes when one of them is killed, and recovers from its log.
        const writing =
          "SELECT pid FROM pg_stat_activity WHERE application_name = 'bundoc' AND xact_start IS NOT NULL LIMIT 1";
        await expect
          .poll(async () => {
            const pid = Number(await server.sql(writing, 'bundoc').catch(() => ''));
            return pid > 0 && process.kill(pid, 'SIGKILL');
          })
          .toBe(true);
        await expect
          .poll(() => running.watched.reduce((sum, one) => sum + one.acknowledged, 0))
          .toBeGreaterThan(acknowledged + PROJECTS);
      }
    });
  });
});
