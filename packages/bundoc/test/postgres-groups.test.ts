import { randomBytes } from 'node:crypto';
import { systemClock } from '@bundoc/shared/runtime/clock';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { PostgresServer } from '@bundoc/shared/testing/postgres-server';
import { describeWithPostgres } from '@bundoc/shared/testing/postgres-tests';
import { startInBackground } from '@bundoc/shared/testing/timing';
import { v7 as uuidv7 } from 'uuid';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { openDefinedStore } from '../src/collections/defined-store.ts';
import { describeProjectStore } from '../src/engine/conformance.ts';
import { OutcomeUnknown } from '../src/engine/errors.ts';
import type { WriteResult } from '../src/engine/port.ts';
import { GroupCommitter } from '../src/engine/postgres/commit/group-commit.ts';
import type { Database, Statement } from '../src/engine/postgres/database/database.ts';
import { migrate, readMigrations } from '../src/engine/postgres/database/migrate.ts';
import type { PostgresStore } from '../src/engine/postgres/postgres-store.ts';
import { SharedReads } from '../src/engine/postgres/reads/shared-reads.ts';
import { fenceRows, removeRows, unfenceRows } from '../src/engine/postgres/rows/fence.ts';
import { lockOf } from '../src/engine/postgres/rows/project-rows.ts';
import { NO_NOTIFICATIONS, openTestDatabase, PostgresProject } from '../src/testing/postgres-project.ts';
import { commitOne, put, ref, remove } from '../src/testing/writes.ts';
import { COMMIT_MESSAGE, CuttingProxy } from './support/cutting-proxy.ts';
import { type UsedDatabase, useDatabase } from './support/use-database.ts';

const ABSENT = { kind: 'absent' } as const;
const PRESENT = { kind: 'present' } as const;
const MARK = '{"deleted":true}';

describeWithPostgres('commits of many projects on PostgreSQL', () => {
  let server: PostgresServer;
  let database: Database;
  let newProject: UsedDatabase['newProject'];
  useDatabase(
    (used) => {
      ({ server, database, newProject } = used);
    },
    { connectionsMax: 16 },
  );
  const opened: PostgresStore[] = [];
  const closeAll = async () => {
    for (const store of opened.splice(0)) await store[Symbol.asyncDispose]();
  };
  afterEach(closeAll);

  const sql = (text: string) => server.sql(text, 'bundoc');
  const transactions = async () => Number(await sql('SELECT count(*) FROM bundoc.group_commits'));
  type ProjectOptions = ConstructorParameters<typeof PostgresProject>[1];

  /** Projects that one node has open. */
  const nodeOf = async (
    count: number,
    options: { on?: Database; project?: ProjectOptions; committer?: GroupCommitter } = {},
  ) => {
    const on = options.on ?? database;
    const committer = options.committer ?? new GroupCommitter({ database: on, clock: systemClock });
    const projects = await Promise.all(Array.from({ length: count }, () => newProject(options.project)));
    const stores = await Promise.all(
      projects.map((project) => project.open(on, NO_NOTIFICATIONS, { committer })),
    );
    opened.push(...stores);
    return { projects, stores, names: projects.map(({ project }) => project), committer };
  };
  const nth = <T>(list: readonly T[], at: number) => list[at] as T;
  /** Commits one write to each project in the same turn of the event loop. */
  const writeEach = (stores: readonly PostgresStore[], id: string, json = '{}') =>
    Promise.allSettled(stores.map((store) => commitOne(store, put(id, json, ABSENT))));
  const codesOf = (outcomes: readonly PromiseSettledResult<WriteResult>[]) =>
    outcomes.map((outcome) =>
      outcome.status === 'fulfilled' ? 'ok' : String((outcome.reason as { code?: string }).code),
    );
  /** Locks the heads of projects, as another node does, until `action` has ended. */
  const whileLocked = (names: readonly string[], action: () => Promise<void>) =>
    names.length === 0
      ? action()
      : database.transaction(names.map(lockOf).join(';'), async () => {
          await action();
          return true;
        });
  const deleteProject = (name: string) =>
    removeRows((action) => database.transaction('', action), name, MARK);

  /** Makes statements fail for one project only. */
  const withTrigger = async (project: string, body: string, action: () => Promise<void>) => {
    await sql(
      `CREATE FUNCTION planted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN ${body}; RETURN NEW; END $$;
       CREATE TRIGGER planted BEFORE INSERT OR UPDATE ON bundoc.documents FOR EACH ROW
       WHEN (NEW.project = '${project}') EXECUTE FUNCTION planted()`,
    );
    try {
      await action();
    } finally {
      await sql('DROP FUNCTION planted CASCADE');
    }
  };

  it('become one transaction when they wait together', async () => {
    const { stores } = await nodeOf(200);
    const before = await transactions();
    expect(new Set(codesOf(await writeEach(stores, 'a')))).toEqual(new Set(['ok']));
    expect((await transactions()) - before).toBe(1);
    for (const store of stores.slice(0, 5)) expect((await store.get(ref('a')))?.text).toBeDefined();
  });

  it('keep their order in each project, however they are spread over transactions', async () => {
    const { stores } = await nodeOf(20);
    const rounds = 40;
    await Promise.all(
      stores.flatMap((store) =>
        Array.from({ length: rounds }, (_, n) => commitOne(store, put(`d${n}`, '{}', ABSENT))),
      ),
    );
    for (const store of stores) {
      const { changes, position } = await store.changes(0, 100);
      expect(changes.map(({ ref: { id } }) => id)).toEqual(Array.from({ length: rounds }, (_, n) => `d${n}`));
      expect(position).toBe(rounds);
    }
  });

  it('are refused separately: the refusal of one project does not affect the others in the transaction', async () => {
    const { projects, stores, names, committer } = await nodeOf(4);
    const small = await nodeOf(1, { committer, project: { quota: { documentsMax: 1, bytesMax: 0 } } });
    const full = await nodeOf(1, { committer, project: { sealLimits: { rotateAt: 1, max: 1 } } });
    await commitOne(nth(stores, 0), put('a', '{}'));
    await commitOne(nth(small.stores, 0), put('other', '{}'));
    await commitOne(nth(full.stores, 0), put('other', '{}'));
    await nth(projects, 1).rotate(database);
    await deleteProject(nth(names, 2));
    const before = await transactions();
    const outcomes = await writeEach([...stores, ...small.stores, ...full.stores], 'a');
    expect(codesOf(outcomes)).toEqual([
      'precondition_failed',
      'storage_unavailable',
      'project_destroyed',
      'ok',
      'quota_exceeded',
      'key_exhausted',
    ]);
    expect((await transactions()) - before).toBe(1);
  });

  it('are also refused separately where a row was tampered with', async () => {
    const { stores, names } = await nodeOf(3);
    await writeEach(stores, 'a');
    await sql(`UPDATE bundoc.key_versions SET seals = set_byte(seals, 20, get_byte(seals, 20) # 1)
               WHERE project = '${nth(names, 0)}';
               UPDATE bundoc.heads SET seq = -5 WHERE project = '${nth(names, 1)}'`);
    // A node does not decrypt counts whose bytes it knows, so another node tries it.
    expect(codesOf(await writeEach(stores, 'b'))).toEqual(['integrity_error', 'integrity_error', 'ok']);
  });

  describe('with one that fails in the database', () => {
    it.each([
      ['a statement of it fails', "RAISE EXCEPTION 'planted'", 'P0001'],
      [
        'a row of it contradicts another',
        "RAISE EXCEPTION 'planted' USING ERRCODE = '23514'",
        'integrity_error',
      ],
      ['the disk is full for it', "RAISE EXCEPTION 'planted' USING ERRCODE = 'disk_full'", 'disk_full'],
      ['it takes longer than a statement may', 'PERFORM pg_sleep(600)', 'storage_unavailable'],
    ])('take effect except for that one (%s)', async (_what, body, code) => {
      await using hasty = openTestDatabase(server.urlOf('bundoc'), {
        connectionsMax: 16,
        statementTimeoutMs: 3_000,
      });
      const { stores, names } = await nodeOf(5, { on: hasty });
      await withTrigger(nth(names, 2), body, async () => {
        const outcomes = await writeEach(stores, 'a');
        expect(codesOf(outcomes)).toEqual(['ok', 'ok', code, 'ok', 'ok']);
      });
      expect(await nth(stores, 2).get(ref('a'))).toBeUndefined();
      const again = await Promise.all(stores.map((store) => store.position()));
      expect(again).toEqual([1, 1, 0, 1, 1]);
      await closeAll();
    });

    it('run the failed one alone for a minute, and then together again', async () => {
      const clock = new FakeClock();
      const committer = new GroupCommitter({ database, clock });
      const { stores, names } = await nodeOf(4, { committer });
      await withTrigger(nth(names, 0), "RAISE EXCEPTION 'planted'", async () => {
        expect(codesOf(await writeEach(stores, 'a'))).toEqual(['P0001', 'ok', 'ok', 'ok']);
      });
      let before = await transactions();
      expect(codesOf(await writeEach(stores, 'b'))).toEqual(['ok', 'ok', 'ok', 'ok']);
      expect((await transactions()) - before).toBe(2);
      clock.advance(60_000);
      before = await transactions();
      expect(codesOf(await writeEach(stores, 'c'))).toEqual(['ok', 'ok', 'ok', 'ok']);
      expect((await transactions()) - before).toBe(1);
    });
  });

  describe('while others hold heads', () => {
    it('take effect for all other projects; blocked ones wait separately and keep their order', async () => {
      const { stores, names } = await nodeOf(8);
      // One more than there are transactions for contended heads.
      const held = names.slice(0, 5);
      const waiting: Promise<unknown>[] = [];
      await whileLocked(held, async () => {
        const outcomes = stores.map((store) => startInBackground(commitOne(store, put('a', '{}', ABSENT))));
        waiting.push(...outcomes.slice(0, 5));
        await Promise.all(outcomes.slice(5));
        waiting.push(
          ...stores.slice(0, 5).map((store) => startInBackground(commitOne(store, put('a', '{}', PRESENT)))),
        );
        for (let n = 0; n < 20; n++)
          await Promise.all(stores.slice(5).map((store) => commitOne(store, put(`b${n}`, '{}'))));
        // A transaction that waits for a head holds no other.
        const blocked = await sql(`SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'`);
        expect(Number(blocked)).toBeLessThanOrEqual(4);
      });
      await Promise.all(waiting);
      expect(await Promise.all(stores.map((store) => store.position()))).toEqual([2, 2, 2, 2, 2, 21, 21, 21]);
    });

    it('wait for no head while they hold another, so that transactions of two nodes end in any order', async () => {
      const here = await nodeOf(40);
      const committer = new GroupCommitter({ database, clock: systemClock });
      const there = await Promise.all(
        here.projects.map((project) => project.open(database, NO_NOTIFICATIONS, { committer })),
      );
      opened.push(...there);
      await Promise.all(
        Array.from({ length: 20 }, async (_, round) => {
          const [one, two] = [here.stores, there.toReversed()];
          await Promise.all(
            [...one, ...two].map((store, at) => commitOne(store, put(`d${round}-${at}`, '{}'))),
          );
        }),
      );
      for (const store of here.stores) expect(await store.position()).toBe(40);
      expect(await sql("SELECT deadlocks FROM pg_stat_database WHERE datname = 'bundoc'")).toBe('0');
    });

    it('continue for all other projects while one head is blocked', async () => {
      const { stores, names } = await nodeOf(20);
      const [held, ...others] = stores as [PostgresStore, ...PostgresStore[]];
      // The long run holds it for a minute, and prints commit latencies as a figure, not as a condition.
      const holdMs = process.env['LONG_TESTS'] === '1' ? 60_000 : 0;
      const writeRounds = async (took: number[]) => {
        const end = performance.now() + holdMs;
        for (let round = 0; round < 50 || performance.now() < end; round++)
          await Promise.all(
            others.map(async (store) => {
              const begun = performance.now();
              await commitOne(store, put(`d${round % 100}`, '{}'));
              took.push(performance.now() - begun);
            }),
          );
      };
      const [free, beside]: [number[], number[]] = [[], []];
      await writeRounds(free);
      let waiting: Promise<unknown> = Promise.resolve();
      await whileLocked(names.slice(0, 1), async () => {
        waiting = startInBackground(commitOne(held, put('held', '{}')));
        await writeRounds(beside);
        expect(await sql(`SELECT count(*) FROM bundoc.documents WHERE project = '${names[0]}'`)).toBe('0');
      });
      // A statement waits as long as it may, and a commit that has waited too long is refused.
      await Promise.allSettled([waiting]);
      const p99 = (took: number[]) => took.toSorted((a, b) => a - b)[Math.floor(took.length * 0.99)];
      const figures = { free: p99(free), beside: p99(beside), commits: beside.length };
      process.stdout.write(`p99 of a commit beside a held head, ms: ${JSON.stringify(figures)}\n`);
    });

    it('are not delayed by a transaction with large documents', async () => {
      const { stores, names } = await nodeOf(4);
      const large = `{"v":"${'x'.repeat(1_000_000)}"}`;
      await withTrigger(nth(names, 0), 'PERFORM pg_advisory_xact_lock(14)', async () => {
        const blocking = database.transaction('SELECT pg_advisory_xact_lock(14)', async () => {
          const slow = startInBackground(commitOne(nth(stores, 0), put('large', large)));
          await expect
            .poll(() => sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory'"))
            .toBe('1');
          for (let n = 0; n < 20; n++)
            await Promise.all(stores.slice(1).map((store) => commitOne(store, put(`b${n}`, '{}'))));
          return { slow };
        });
        await (await blocking)?.slow;
      });
    });
  });

  describe('on a connection that breaks at the commit', () => {
    /** A node behind a proxy, and an action between the break and the lookup. */
    const behindProxy = async (proxy: CuttingProxy, onUnknown: () => Promise<void>) => {
      const behind = openTestDatabase(server.urlOf('bundoc', proxy.port));
      const transaction = behind.transaction.bind(behind);
      behind.transaction = async (begin, action) => {
        try {
          return await transaction(begin, action);
        } catch (error) {
          if (error instanceof OutcomeUnknown) await onUnknown();
          throw error;
        }
      };
      return behind;
    };

    for (const cut of ['before the request', 'before the answer'] as const) {
      const took = cut === 'before the answer';
      it(`are applied once when another project of the group is deleted before the lookup (${cut})`, async () => {
        await using proxy = await CuttingProxy.open(server.port);
        const node: { names: readonly string[] } = { names: [] };
        await using behind = await behindProxy(proxy, () => deleteProject(nth(node.names, 0)));
        const { stores, names } = await nodeOf(3, { on: behind });
        node.names = names;
        await writeEach(stores, 'warm');
        proxy.cutAt(COMMIT_MESSAGE, cut);
        const codes = codesOf(await writeEach(stores, 'a'));
        expect(proxy.cuts).toBe(1);
        expect(codes).toEqual([took ? 'ok' : 'project_destroyed', 'ok', 'ok']);
        for (const store of stores.slice(1)) {
          const { changes, position } = await store.changes(0, 10);
          expect(changes.map(({ ref: { id } }) => id)).toEqual(['warm', 'a']);
          expect(position).toBe(2);
        }
        await closeAll();
      });

      it(`are applied once when every project of the group is deleted before the lookup (${cut})`, async () => {
        await using proxy = await CuttingProxy.open(server.port);
        const node: { names: readonly string[] } = { names: [] };
        await using behind = await behindProxy(proxy, async () => {
          for (const name of node.names) await deleteProject(name);
        });
        const { stores, names } = await nodeOf(2, { on: behind });
        node.names = names;
        proxy.cutAt(COMMIT_MESSAGE, cut);
        const code = took ? 'ok' : 'project_destroyed';
        expect(codesOf(await writeEach(stores, 'a'))).toEqual([code, code]);
        await closeAll();
      });
    }

    it('are looked up only once the lost transaction has ended', async () => {
      await using proxy = await CuttingProxy.open(server.port);
      const looked = Promise.withResolvers<void>();
      let isUnknown = false;
      await using behind = await behindProxy(proxy, async () => {
        isUnknown = true;
      });
      const transaction = behind.transaction.bind(behind);
      behind.transaction = async (begin, action) => {
        const isLookUp = isUnknown;
        try {
          return await transaction(begin, action);
        } finally {
          if (isLookUp) looked.resolve();
        }
      };
      const { stores, names } = await nodeOf(2, { on: behind });
      // The transaction lasts until the lock is free, although nobody waits for its answer any more.
      await withTrigger(nth(names, 0), 'PERFORM pg_advisory_xact_lock(15)', async () => {
        const writing = await database.transaction('SELECT pg_advisory_xact_lock(15)', async () => {
          const outcomes = startInBackground(writeEach(stores, 'a'));
          await expect
            .poll(() => sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory'"))
            .toBe('1');
          proxy.cutNow();
          await looked.promise;
          return { outcomes };
        });
        expect(codesOf((await writing?.outcomes) ?? [])).toEqual(['ok', 'ok']);
      });
      for (const store of stores) expect(await store.position()).toBe(1);
      await closeAll();
    });
  });

  it('have their outcomes removed an hour later, however many, and no later ones', async () => {
    const { stores, committer } = await nodeOf(1);
    const old = Date.now() - 7_200_000;
    const id = (n: number) => uuidv7({ msecs: old, seq: n });
    const values = Array.from({ length: 25_000 }, (_, n) => `('${id(n)}')`).join();
    await database.run(`INSERT INTO bundoc.group_commits (id, at) SELECT id::uuid, now() - interval '2 hours'
                        FROM (VALUES ${values}) AS v(id)`);
    // From a node with a slow clock.
    await sql(`INSERT INTO bundoc.group_commits (id) VALUES ('${uuidv7({ msecs: old })}')`);
    await writeEach(stores, 'a');
    const before = await transactions();
    await committer.prune();
    expect((await transactions()) - before).toBe(-25_000);
    expect(await sql("SELECT count(*) FROM bundoc.group_commits WHERE at < now() - interval '1 hour'")).toBe(
      '0',
    );
  });

  it('count the seals of each project in the transaction that writes the sealed bytes', async () => {
    const { stores, projects } = await nodeOf(3, { project: { sealLimits: { rotateAt: 3, max: 4 } } });
    for (const id of ['a', 'b']) await writeEach(stores, id);
    await commitOne(nth(stores, 0), remove('a'));
    expect(projects.flatMap(({ rotationsDue }) => rotationsDue)).toEqual([]);
    await commitOne(nth(stores, 1), put('c', '{}'));
    expect(projects.map(({ rotationsDue }) => rotationsDue)).toEqual([[], [1], []]);
    // Another node continues the count.
    const there = await Promise.all(projects.map((project) => project.open(database)));
    opened.push(...there);
    expect(codesOf(await writeEach(there, 'd'))).toEqual(['ok', 'ok', 'ok']);
    expect(codesOf(await writeEach(stores, 'e'))).toEqual(['ok', 'key_exhausted', 'ok']);
  });

  it('look up the unique values of all their projects with one statement', async () => {
    const { stores, projects } = await nodeOf(6);
    const defined = await Promise.all(
      stores.map((store, at) => openDefinedStore(store, nth(projects, at).clock)),
    );
    for (const store of defined)
      await store.define('notes', { indexes: [{ fields: ['u'], unique: true }] }, { kind: 'none' });
    for (const store of defined) await store.indexes?.built();
    await Promise.all(defined.slice(0, 3).map((store) => commitOne(store, put('a', '{"u":1}'))));
    const asked: string[] = [];
    const transaction = database.transaction.bind(database);
    database.transaction = (begin, action) =>
      transaction(begin, (inner, begun) =>
        action(
          {
            run: inner.run,
            last: inner.last,
            query: (statement: Statement, values) => {
              asked.push(statement.name);
              return inner.query(statement, values);
            },
          },
          begun,
        ),
      );
    try {
      const outcomes = await Promise.allSettled(
        defined.map((store) => commitOne(store, put('b', '{"u":1}'))),
      );
      expect(codesOf(outcomes)).toEqual([...Array(3).fill('unique_violation'), ...Array(3).fill('ok')]);
    } finally {
      database.transaction = transaction;
    }
    expect(asked.filter((name) => name.includes('holders'))).toHaveLength(1);
  });

  it('end in any order beside deletions, rotations and moves of their projects, without a deadlock', async () => {
    const { stores, projects, names, committer } = await nodeOf(30);
    let isOver = false;
    const written = projects.map(() => 0);
    const writing = projects.map(async (project, at) => {
      let store = nth(stores, at);
      while (!isOver)
        try {
          await commitOne(store, put(`d${written[at]}`, '{}', ABSENT));
          written[at] = nth(written, at) + 1;
        } catch (error) {
          const { code } = error as { code?: string };
          if (code === 'project_destroyed') return;
          expect(code).toMatch(/^(storage_unavailable|project_moving)$/);
          store = await project.open(database, NO_NOTIFICATIONS, { committer });
          opened.push(store);
        }
    });
    for (let round = 0; round < 10; round++)
      await Promise.all([
        ...names.slice(0, 10).map(async (name) => {
          await sql(
            `INSERT INTO bundoc.projects (project, file) VALUES ('${name}', '{}') ON CONFLICT DO NOTHING`,
          );
          await fenceRows(database, name, async () => `mark ${round}`);
          await unfenceRows(database, name, `mark ${round}`);
        }),
        ...projects.slice(10, 20).map((project) => project.rotate(database)),
        ...(round === 5 ? names.slice(20).map(deleteProject) : []),
      ]);
    isOver = true;
    await Promise.all(writing);
    for (const [at, project] of projects.slice(0, 20).entries()) {
      const store = await project.open(database);
      expect(await store.position()).toBe(written[at]);
      await store[Symbol.asyncDispose]();
    }
    expect(await sql("SELECT deadlocks FROM pg_stat_database WHERE datname = 'bundoc'")).toBe('0');
  });

  it('let no project starve behind one whose index entries fill each transaction', async () => {
    const { stores } = await nodeOf(2);
    const definitions = { indexes: [{ fields: ['g'], unique: false, blind: true }] };
    for (const store of stores) {
      const defined = await openDefinedStore(store, systemClock);
      await defined.define('notes', definitions, { kind: 'none' });
    }
    const [busy, quiet] = [nth(stores, 0), nth(stores, 1)];
    const many = Array.from({ length: 990 }, (_, n) => n).join(',');
    const fill = (lane: number) =>
      busy.commit(Array.from({ length: 12 }, (_, n) => put(`${lane}-${n}`, `{"g":[${many}]}`)));
    let isOver = false;
    const filling = startInBackground(
      Promise.all(
        [0, 1, 2].map(async (lane) => {
          while (!isOver) await fill(lane);
        }),
      ),
    );
    try {
      for (let n = 0; n < 3; n++)
        expect((await commitOne(quiet, put(`d${n}`, '{"g":[1]}'))).created).toBe(true);
    } finally {
      isOver = true;
      await filling;
    }
  });

  it('migrate a database of the previous schema with its projects and their reservations', async () => {
    await using former = openTestDatabase((await server.createDatabase('schema7')).url);
    await migrate(
      former,
      readMigrations().filter(({ version }) => version < 8),
    );
    const project = new PostgresProject('p', { sealLimits: { rotateAt: 100, max: 4 } });
    await project.create(former);
    await former.run("INSERT INTO bundoc.commits (project, id) VALUES ('p', gen_random_uuid())");
    await migrate(former);
    const store = await project.open(former);
    expect((await commitOne(store, put('a', '{}'))).created).toBe(true);
    expect(await server.sql('SELECT count(*) FROM bundoc.group_commits', 'schema7')).toBe('1');
    await store[Symbol.asyncDispose]();
  });

  describe('with 500 projects that take turns', () => {
    const others = new Map<string, PostgresStore>();
    const waiting = new Set<Promise<unknown>>();
    let turns: Iterator<PostgresStore> | undefined;
    const nextOther = (): PostgresStore => {
      turns ??= others.values();
      const { value } = turns.next();
      if (value !== undefined) return value;
      turns = undefined;
      return nextOther();
    };
    /** Each commit of the tested project shares its transaction with commits of others. */
    class Crowded extends GroupCommitter {
      override commit(...[project, commit]: Parameters<GroupCommitter['commit']>): void {
        super.commit(project, commit);
        if (others.has(project.project)) return;
        for (let n = 0; n < 5; n++) {
          const other = commitOne(nextOther(), put('shared', '{}'));
          waiting.add(other);
          void other.then(() => waiting.delete(other));
        }
      }
    }
    let node: { readonly committer: Crowded; readonly reads: SharedReads };
    beforeAll(async () => {
      node = { committer: new Crowded({ database, clock: systemClock }), reads: new SharedReads(database) };
      const made = await Promise.all(Array.from({ length: 499 }, () => newProject()));
      for (const project of made)
        others.set(project.project, await project.open(database, NO_NOTIFICATIONS, node));
    });
    afterAll(async () => {
      // Each has been committed.
      await Promise.all(waiting);
      for (const store of others.values()) await store[Symbol.asyncDispose]();
    });
    describeProjectStore('the PostgreSQL engine', async () => {
      const project = await newProject();
      const open = () => project.open(database, NO_NOTIFICATIONS, node);
      return { store: await open(), reopen: open };
    });
  });

  it('show the database no id, name or value of any project, in its rows or its statement log', async () => {
    await using logging = await PostgresServer.start({
      settings: { log_statement: 'all', log_min_duration_statement: '0' },
    });
    await using on = openTestDatabase((await logging.createDatabase('bundoc')).url);
    await migrate(on);
    const committer = new GroupCommitter({ database: on, clock: systemClock });
    const stores: PostgresStore[] = [];
    for (const name of ['log-one', 'log-two']) {
      const project = new PostgresProject(name);
      await project.create(on);
      stores.push(await project.open(on, NO_NOTIFICATIONS, { committer }));
    }
    const words = ['planted-id', 'planted-collection', 'planted-value', randomBytes(8).toString('hex')];
    const [id, collection, value, field] = words as [string, string, string, string];
    await Promise.all(
      stores.map((store) =>
        store.commit([{ ...put('', `{"${field}":"${value}"}`), ref: { collection, id } }], {
          idempotency: { key: 'a'.repeat(32), request: 'b'.repeat(32) },
        }),
      ),
    );
    for (const store of stores) await store[Symbol.asyncDispose]();
    const log = logging.log;
    expect(log).toContain('INSERT INTO bundoc.group_commits');
    expect(log).toContain('log-two');
    for (const text of [log, await logging.dump('bundoc')])
      for (const word of words)
        for (const form of [word, Buffer.from(word).toString('hex'), Buffer.from(word).toString('base64')])
          expect(text).not.toContain(form);
  });
});
