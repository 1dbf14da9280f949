import { systemClock } from '@bundoc/shared/runtime/clock';
import { runs } from '@bundoc/shared/testing/long';
import { needs } from '@bundoc/shared/testing/programs';
import { startInBackground } from '@bundoc/shared/testing/timing';
import { describe, expect, it } from 'vitest';
import { GroupCommitter } from '../src/engine/postgres/commit/group-commit.ts';
import type { PostgresStore } from '../src/engine/postgres/postgres-store.ts';
import { NO_NEWS } from '../src/testing/postgres-project.ts';
import { commitOne, put } from '../src/testing/writes.ts';
import {
  ABSENT,
  database,
  deleteProject,
  nodeOf,
  nth,
  opened,
  PRESENT,
  sql,
  useProjectGroups,
  whileLocked,
  withTrigger,
} from './support/project-groups.ts';

describe('commits of many projects on PostgreSQL', needs('postgresql'), () => {
  useProjectGroups();

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
        here.projects.map((project) => project.open(database, NO_NEWS, { committer })),
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
      const holdMs = runs(0, 60_000);
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
      const [uncontended, contended]: [number[], number[]] = [[], []];
      await writeRounds(uncontended);
      let waiting: Promise<unknown> = Promise.resolve();
      await whileLocked(names.slice(0, 1), async () => {
        waiting = startInBackground(commitOne(held, put('held', '{}')));
        await writeRounds(contended);
        expect(await sql(`SELECT count(*) FROM bundoc.documents WHERE project = '${names[0]}'`)).toBe('0');
      });
      // A statement waits as long as it may, and a commit that has waited too long is refused.
      await Promise.allSettled([waiting]);
      const p99 = (took: number[]) => took.toSorted((a, b) => a - b)[Math.floor(took.length * 0.99)];
      const figures = { free: p99(uncontended), beside: p99(contended), commits: contended.length };
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

  it('end in any order beside deletions and rotations of their projects, without a deadlock', async () => {
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
          store = await project.open(database, NO_NEWS, { committer });
          opened.push(store);
        }
    });
    for (let round = 0; round < 10; round++)
      await Promise.all([
        ...projects.slice(0, 20).map((project) => project.rotate(database)),
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
});
