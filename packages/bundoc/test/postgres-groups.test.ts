import { randomBytes } from 'node:crypto';
import { systemClock } from '@bundoc/shared/runtime/clock';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { PostgresServer } from '@bundoc/shared/testing/postgres-server';
import { needs } from '@bundoc/shared/testing/programs';
import { startInBackground } from '@bundoc/shared/testing/timing';
import { v7 as uuidv7 } from 'uuid';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openDefinedStore } from '../src/collections/defined-store.ts';
import { describeProjectStore } from '../src/engine/conformance/conformance.ts';
import { GroupCommitter } from '../src/engine/postgres/commit/group-commit.ts';
import type { Statement } from '../src/engine/postgres/database/database.ts';
import { prepareSchema } from '../src/engine/postgres/database/schema.ts';
import type { PostgresStore } from '../src/engine/postgres/postgres-store.ts';
import { SharedReads } from '../src/engine/postgres/reads/shared-reads.ts';
import { NO_NEWS, openTestDatabase, PostgresProject } from '../src/testing/postgres-project.ts';
import { commitOne, put, ref, remove } from '../src/testing/writes.ts';
import {
  ABSENT,
  codesOf,
  database,
  newProject,
  nodeOf,
  nth,
  opened,
  sql,
  transactions,
  useProjectGroups,
  writeEach,
} from './support/project-groups.ts';

describe('commits of many projects on PostgreSQL', needs('postgresql'), () => {
  useProjectGroups();

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

  it('have their outcomes removed after an hour, however many there are', async () => {
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

  it('have old outcomes removed by commits, once in ten minutes', async () => {
    const clock = new FakeClock();
    const { stores } = await nodeOf(1, { committer: new GroupCommitter({ database, clock }) });
    const addOld = () =>
      sql(`INSERT INTO bundoc.group_commits (id, at)
           VALUES ('${uuidv7({ msecs: Date.now() - 7_200_000 })}', now() - interval '2 hours')`);
    const old = () =>
      sql("SELECT count(*) FROM bundoc.group_commits WHERE at < now() - interval '1 hour'").then(Number);
    await addOld();
    await writeEach(stores, 'a');
    clock.advance(599_999);
    await writeEach(stores, 'b');
    expect(await old()).toBe(1);
    clock.advance(1);
    await writeEach(stores, 'c');
    await expect.poll(old).toBe(0);
    await addOld();
    await writeEach(stores, 'd');
    clock.advance(599_999);
    await writeEach(stores, 'e');
    expect(await old()).toBe(1);
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

  it('let no project starve behind one whose index entries fill each transaction', async () => {
    const { stores } = await nodeOf(2);
    const definitions = { indexes: [{ fields: ['g'], unique: false }] };
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
      for (const project of made) others.set(project.project, await project.open(database, NO_NEWS, node));
    });
    afterAll(async () => {
      // Each has been committed.
      await Promise.all(waiting);
      for (const store of others.values()) await store[Symbol.asyncDispose]();
    });
    describeProjectStore('the PostgreSQL engine', async () => {
      const project = await newProject();
      const open = () => project.open(database, NO_NEWS, node);
      return { store: await open(), reopen: open };
    });
  });

  it('show the database no id, name or value of any project, in its rows or its statement log', async () => {
    await using logging = await PostgresServer.start({
      settings: { log_statement: 'all', log_min_duration_statement: '0' },
    });
    await using on = openTestDatabase((await logging.createDatabase('bundoc')).url);
    await prepareSchema(on);
    const committer = new GroupCommitter({ database: on, clock: systemClock });
    const stores: PostgresStore[] = [];
    for (const name of ['log-one', 'log-two']) {
      const project = new PostgresProject(name);
      await project.create(on);
      stores.push(await project.open(on, NO_NEWS, { committer }));
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
