import { randomInt } from 'node:crypto';
import { systemClock } from '@bundoc/shared/runtime/clock';
import { runs } from '@bundoc/shared/testing/long';
import type { PostgresServer } from '@bundoc/shared/testing/postgres-server';
import { needs } from '@bundoc/shared/testing/programs';
import { describe, expect, it } from 'vitest';
import { type DefinedStore, openDefinedStore } from '../src/collections/defined-store.ts';
import type { Database } from '../src/engine/postgres/database/database.ts';
import { openTestDatabase, type PostgresProject } from '../src/testing/postgres-project.ts';
import { CuttingProxy } from './support/cutting-proxy.ts';
import { plain } from './support/postgres-indexes.ts';
import { isRefusal, openAccounts, Readers, replace, transfer } from './support/transfers.ts';
import { type UsedDatabase, useDatabase } from './support/use-database.ts';

const SEED = Number(process.env['TRANSFERS_SEED'] ?? randomInt(2 ** 31));
const ANSWERS = runs(240, 100_000);
const ANSWERS_OF_LIFE = runs(60, 500);
const WRITERS = 4;
const READERS = 6;
const MINUTES_MAX = 240;
const KINDS = Object.entries(Readers.kinds);

/** What ends after a time ends five times as early, such as the wait for a server behind a dead proxy. */
const hasty = { ...systemClock, monotonic: () => 5 * systemClock.monotonic() };

let seed = SEED;
/** mulberry32: the same seed yields the same actions, though not the same timing. */
function below(count: number): number {
  seed = (seed + 0x6d2b79f5) | 0;
  let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * count);
}

/** A node with connections of its own. */
interface Node {
  readonly proxy: CuttingProxy;
  readonly database: Database;
  readonly store: DefinedStore;
  readonly readers: Readers;
}

/** Two nodes, which are killed and replaced. */
class Nodes implements AsyncDisposable {
  readonly #server: PostgresServer;
  readonly #project: PostgresProject;
  readonly #nodes: Promise<Node>[];
  /** They are closed at the end, when nobody uses them. */
  readonly #killed: Node[] = [];

  get kills(): number {
    return this.#killed.length;
  }

  constructor(server: PostgresServer, project: PostgresProject) {
    this.#server = server;
    this.#project = project;
    this.#nodes = [this.#start(), this.#start()];
  }

  any(): Promise<Node> {
    return this.#nodes[below(this.#nodes.length)]!;
  }

  /** The node dies at one of its next messages, and another one takes its place. */
  async kill(): Promise<void> {
    const at = this.kills % this.#nodes.length;
    const killed = await this.#nodes[at]!;
    this.#nodes[at] = this.#start();
    killed.proxy.dieAfter(below(20));
    this.#killed.push(killed);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const living = await Promise.all(this.#nodes);
    for (const node of [...living, ...this.#killed]) await this.#end(node);
  }

  async #start(): Promise<Node> {
    const proxy = await CuttingProxy.open(this.#server.port);
    const database = openTestDatabase(this.#server.urlOf('bundoc', proxy.port), {
      connectionsMax: 20,
      connectTimeoutMs: 2_000,
    });
    const store = await openDefinedStore(await this.#project.open(database), systemClock);
    return { proxy, database, store, readers: new Readers(store, this.#project) };
  }

  async #end({ store, database, proxy }: Node): Promise<void> {
    await store[Symbol.asyncDispose]().catch(() => undefined);
    await database[Symbol.asyncDispose]();
    await proxy[Symbol.asyncDispose]();
  }
}

describe('transfers between accounts on PostgreSQL', needs('postgresql'), () => {
  let used: UsedDatabase;
  useDatabase((database) => {
    used = database;
  });

  it(
    `never show an answer of no state, of any kind, while nodes are killed (TRANSFERS_SEED=${SEED})`,
    async () => {
      const project = await used.newProject({ clock: hasty });
      await using nodes = new Nodes(used.server, project);
      const { store } = await nodes.any();
      await store.define('notes', { indexes: [plain('bank')] }, { kind: 'none' });
      await store.indexes?.built();
      await openAccounts(store);

      const seen = { answers: new Map<string, number>(), transfers: 0, refusals: 0 };
      const impossible: string[] = [];
      let answers = 0;
      const untilEnough = async (act: () => Promise<void>) => {
        while (answers < ANSWERS)
          await act().catch((error: unknown) => {
            if (!isRefusal(error)) throw error;
            seen.refusals++;
          });
      };
      const write = () =>
        untilEnough(async () => {
          const node = await nodes.any();
          await (below(5) === 0 ? replace : transfer)(node.store, below);
          seen.transfers++;
        });
      const read = () =>
        untilEnough(async () => {
          const [kind, { ask, expected }] = KINDS[below(KINDS.length)]!;
          const node = await nodes.any();
          const shown = await ask(node.readers);
          if (String(shown) !== String(expected)) impossible.push(`${kind}: ${shown}, not ${expected}`);
          seen.answers.set(kind, (seen.answers.get(kind) ?? 0) + 1);
          if (++answers % ANSWERS_OF_LIFE === 0) await nodes.kill();
        });
      await Promise.all([
        ...Array.from({ length: WRITERS }, write),
        ...Array.from({ length: READERS }, read),
      ]);

      expect(impossible).toEqual([]);
      expect(new Set(seen.answers.keys())).toEqual(new Set(Object.keys(Readers.kinds)));
      expect(nodes.kills).toBeGreaterThan(2);
      expect(seen.transfers).toBeGreaterThan(ANSWERS / 20);
    },
    MINUTES_MAX * 60_000,
  );
});
