import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { needs } from '@bundoc/shared/testing/programs';
import { startInBackground } from '@bundoc/shared/testing/timing';
import { describe, expect, it } from 'vitest';
import { OutcomeUnknown } from '../src/engine/port/errors.ts';
import { SEAL_LIMITS } from '../src/engine/port/seal-budget.ts';
import { GroupCommitter } from '../src/engine/postgres/commit/group-commit.ts';
import { openTestDatabase } from '../src/testing/postgres-project.ts';
import { commitOne, put, ref } from '../src/testing/writes.ts';
import { COMMIT_MESSAGE, CuttingProxy } from './support/cutting-proxy.ts';
import {
  closeAll,
  codesOf,
  database,
  deleteProject,
  nodeOf,
  nth,
  server,
  sql,
  transactions,
  useProjectGroups,
  withTrigger,
  writeEach,
} from './support/project-groups.ts';

describe('commits of many projects on PostgreSQL', needs('postgresql'), () => {
  useProjectGroups();

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

  it('are refused separately where a row was tampered with', async () => {
    // Each commit that seals reads the count.
    const sealLimits = { ...SEAL_LIMITS, reserve: 0 };
    const { stores, names } = await nodeOf(4, { project: { sealLimits } });
    await writeEach(stores, 'a');
    await sql(`UPDATE bundoc.collections SET documents = 9223372036854775807 WHERE project = '${nth(names, 3)}';
               UPDATE bundoc.key_versions SET seals = set_byte(seals, 20, get_byte(seals, 20) # 1)
               WHERE project = '${nth(names, 0)}';
               UPDATE bundoc.heads SET seq = -5 WHERE project = '${nth(names, 1)}'`);
    // A node does not decrypt counts whose bytes it knows, so another node tries it.
    expect(codesOf(await writeEach(stores, 'b'))).toEqual([
      ...['integrity_error', 'integrity_error', 'ok', 'integrity_error'],
    ]);
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

    it('hold up nobody else while a statement of it stalls', async () => {
      await using hasty = openTestDatabase(server.urlOf('bundoc'), {
        connectionsMax: 16,
        statementTimeoutMs: 300_000,
      });
      const { stores, names } = await nodeOf(12, { on: hasty });
      await withTrigger(nth(names, 2), 'PERFORM pg_sleep(600)', async () => {
        let isStalled = true;
        const stalled = writeEach(stores.slice(0, 10), 'a').finally(() => {
          isStalled = false;
        });
        await expect
          .poll(async () => {
            const [rows] = await database.run(
              "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'",
            );
            return Number(rows?.[0]?.[0]);
          })
          .toBe(1);
        expect(codesOf(await writeEach(stores.slice(10), 'a'))).toEqual(['ok', 'ok']);
        expect(isStalled).toBe(true);
        await expect
          .poll(async () => {
            await sql("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'");
            return isStalled;
          })
          .toBe(false);
        expect(codesOf(await stalled).filter((code) => code === 'ok')).toHaveLength(9);
      });
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
});
