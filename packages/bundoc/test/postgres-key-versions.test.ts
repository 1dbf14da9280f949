import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { needs } from '@bundoc/shared/testing/programs';
import { describe, expect, it } from 'vitest';
import type { Database } from '../src/engine/postgres/database/database.ts';
import { SNAPSHOT_TRANSACTION, verifyRows } from '../src/engine/postgres/verify/verify-rows.ts';
import { commitOne, put, ref, remove } from '../src/testing/writes.ts';
import {
  database,
  newProject,
  refuseWrites,
  sql,
  textOf,
  usePostgresEngine,
} from './support/postgres-engine.ts';

describe('PostgreSQL', needs('postgresql'), () => {
  usePostgresEngine();

  describe('a new version of the key', () => {
    it('is followed by every node, and takes over all documents without a visible change', async () => {
      const project = await newProject();
      const before = await project.open(database);
      for (let n = 0; n < 5; n++) await commitOne(before, put(`doc-${n}`, `{"n":${n}}`));
      await commitOne(before, remove('doc-4'));
      const { position } = await before.changes(0, 10);
      const former = await before.get(ref('doc-0'));
      await project.rotate(database);
      await expect(commitOne(before, put('a', '{}'))).rejects.toMatchObject({ code: 'storage_unavailable' });
      expect(before.failed).toBe(true);

      const store = await project.open(database);
      expect(store.pendingReencryption).toBe(4);
      await commitOne(store, put('doc-1', '{"again":1}'));
      // Two nodes find the same documents. Each counts only what it has moved itself.
      const late = await project.open(beforeTransactions(database, () => store.reseal(2)));
      expect(await late.reseal(2)).toMatchObject({ resealed: 0, skipped: 0, goesOn: true });
      expect(store.pendingReencryption).toBe(1);
      expect((await project.open(database)).pendingReencryption).toBe(1);
      // Upkeep leaves a project without pending documents alone, so its names must be moved by then.
      while (store.pendingReencryption > 0) await store.reseal(2);
      expect(await store.get(ref('doc-0'))).toEqual(former);
      expect((await store.changes(position, 10)).changes.map(({ ref: { id } }) => id)).toEqual(['doc-1']);
      expect((await store.collections()).map(({ documents }) => documents)).toEqual([4]);

      project.forgetFormerVersions();
      const after = await project.open(database);
      expect(await after.get(ref('doc-0'))).toEqual(former);
      expect((await after.collections()).map(({ name }) => name)).toEqual(['notes']);
    });

    it('leaves an unreadable document pending, reports it, and tries it again later', async () => {
      const clock = new FakeClock();
      const project = await newProject({ clock });
      const before = await project.open(database);
      for (const id of ['a', 'b', 'c']) await commitOne(before, put(id, '{}'));
      const row = `project = '${project.project}' AND name = '\\x${project.cipher.fileName(ref('b'))}'`;
      await sql(`UPDATE bundoc.documents SET sealed = sealed || '\\x00' WHERE ${row}`);
      await project.rotate(database);
      const store = await project.open(database);
      let resealed = 0;
      const step = async () => {
        const done = await store.reseal(2);
        resealed += done.resealed;
        return done;
      };
      while ((await step()).goesOn);
      expect([resealed, store.pendingReencryption]).toEqual([2, 1]);
      expect(project.damaged).toEqual([project.cipher.fileName(ref('b'))]);
      expect(await step()).toEqual({ resealed: 0, skipped: 0, goesOn: false });

      await sql(
        `UPDATE bundoc.documents SET sealed = substr(sealed, 1, octet_length(sealed) - 1) WHERE ${row}`,
      );
      clock.advance(60_000);
      while ((await step()).goesOn);
      expect([resealed, store.pendingReencryption]).toEqual([3, 0]);
    });

    it("is requested in time, and nothing is sealed beyond a version's maximum", async () => {
      const project = await newProject({ sealLimits: { rotateAt: 5, max: 8 } });
      const [one, two] = [await project.open(database), await project.open(database)];
      for (const store of [one, two]) for (let n = 0; n < 2; n++) await commitOne(store, put('a', '{}'));
      expect(project.rotationsDue).toEqual([]);
      await commitOne(one, put('b', '{}'));
      expect(project.rotationsDue).toEqual([1]);
      for (let n = 0; n < 3; n++) await commitOne(two, put('c', '{}'));
      await expect(commitOne(one, put('a', '{}'))).rejects.toMatchObject({ code: 'key_exhausted' });
      await expect(commitOne(two, put('a', '{}'))).rejects.toMatchObject({ code: 'key_exhausted' });
    });

    it.each([
      ['another value is put in its place', "'\\x0000000140000000'"],
      ['one of another project is', '(SELECT seals FROM bundoc.key_versions WHERE project = $other)'],
      [
        'one of another version is',
        '(SELECT seals FROM bundoc.key_versions WHERE project = $own AND version = 1)',
      ],
      ['a huge one is', "decode(repeat('00', 20000000), 'hex')"],
    ])("is requested only by a node's own count: nothing is written while %s", async (_what, value) => {
      const sealLimits = { rotateAt: 2, max: 100 };
      const [project, other] = [await newProject({ sealLimits }), await newProject({ sealLimits })];
      // A count at which a rotation is due, for each.
      for (const one of [project, other])
        for (let n = 0; n < 2; n++) await commitOne(await one.open(database), put('a', '{}'));
      expect([project.rotationsDue, other.rotationsDue]).toEqual([[1], [1]]);
      await project.rotate(database);
      await commitOne(await project.open(database), put('a', '{}'));
      const own = `project = '${project.project}' AND version = 2`;
      const [[genuine]] = (await database.run(`SELECT seals FROM bundoc.key_versions WHERE ${own}`))[0] as [
        [Buffer],
      ];
      const edit = value
        .replace('$own', `'${project.project}'`)
        .replace('$other', `'${other.project}' LIMIT 1`);
      await sql(`UPDATE bundoc.key_versions SET seals = ${edit} WHERE ${own}`);
      const store = await project.open(database);
      await expect(commitOne(store, put('a', '{}'))).rejects.toMatchObject({ code: 'integrity_error' });
      expect(await textOf(store, 'a')).toContain('"_id":"a"');
      const verified = await database.transaction(SNAPSHOT_TRANSACTION, (transaction) =>
        verifyRows(transaction, project.project, project.cipher, () => undefined),
      );
      expect(verified?.findings).toEqual([
        { part: 'key version 2', problem: 'the count of its seals does not open' },
      ]);
      expect(project.rotationsDue).toEqual([1]);
      await sql(`UPDATE bundoc.key_versions SET seals = '\\x${genuine.toString('hex')}' WHERE ${own}`);
      await commitOne(store, put('a', '{}'));
    });

    it('is not requested where the count was removed or rolled back, and counting continues', async () => {
      const project = await newProject({ sealLimits: { rotateAt: 6, max: 100 } });
      await commitOne(await project.open(database), put('a', '{}'));
      await sql(`UPDATE bundoc.key_versions SET seals = NULL WHERE project = '${project.project}'`);
      const store = await project.open(database);
      for (let n = 0; n < 5; n++) await commitOne(store, put('a', '{}'));
      expect(project.rotationsDue).toEqual([]);
      await sql(`DELETE FROM bundoc.key_versions WHERE project = '${project.project}'`);
      const without = await project.open(database);
      await expect(commitOne(without, put('a', '{}'))).rejects.toMatchObject({ code: 'integrity_error' });
    });

    it('counts the concurrent seals of many nodes', async () => {
      const project = await newProject({ sealLimits: { rotateAt: 1_000, max: 41 } });
      const nodes = await Promise.all([1, 2, 3, 4].map(() => project.open(database)));
      const writing = nodes.map(async (node, at) => {
        for (let n = 0; n < 10; n++) await commitOne(node, put(`${at}`, '{}'));
        await node[Symbol.asyncDispose]();
      });
      await Promise.all(writing);
      const last = await project.open(database);
      await commitOne(last, put('a', '{}'));
      await expect(commitOne(last, put('a', '{}'))).rejects.toMatchObject({ code: 'key_exhausted' });
    });

    it('counts seals in advance, so that most commits neither read nor write the count', async () => {
      const project = await newProject({ sealLimits: { rotateAt: 100, max: 200, reserve: 3 } });
      const store = await project.open(database);
      const counts = new Set<string>();
      for (let n = 0; n < 8; n++) {
        await commitOne(store, put('a', `{"n":${n}}`));
        counts.add(await countOf(project.project));
      }
      expect(counts.size).toBe(2);
      // One that seals more than are left counts again, and a deletion seals nothing.
      await store.commit([put('b', '{}'), put('c', '{}')]);
      counts.add(await countOf(project.project));
      await commitOne(store, remove('a'));
      counts.add(await countOf(project.project));
      expect(counts.size).toBe(3);
    });

    it('counts failed seals with the next commit, also while others are counted in advance', async () => {
      const project = await newProject({ sealLimits: { rotateAt: 100, max: 20, reserve: 3 } });
      const store = await project.open(database);
      await commitOne(store, put('a', '{}'));
      const five = ['a', 'b', 'c', 'd', 'e'].map((id) => put(id, '{}'));
      await refuseWrites(project.project, async () => {
        await expect(store.commit(five)).rejects.toMatchObject({ code: 'disk_full' });
      });
      await commitOne(store, put('a', '{}'));
      // 1 + 5 + 1, and 3 in advance.
      const next = await project.open(database);
      await next.commit(Array.from({ length: 10 }, (_, n) => put(`g${n}`, '{}')));
      await expect(commitOne(next, put('a', '{}'))).rejects.toMatchObject({ code: 'key_exhausted' });
    });

    it('makes the last seals of the maximum, also those that were counted in advance', async () => {
      const project = await newProject({ sealLimits: { rotateAt: 100, max: 4, reserve: 3 } });
      const store = await project.open(database);
      await commitOne(store, put('a', '{}'));
      await expect(store.commit(['b', 'c', 'd', 'e'].map((id) => put(id, '{}')))).rejects.toMatchObject({
        code: 'key_exhausted',
      });
      await store.commit(['b', 'c', 'd'].map((id) => put(id, '{}')));
      await expect(commitOne(store, put('a', '{}'))).rejects.toMatchObject({ code: 'key_exhausted' });
    });

    it('seals no more than the maximum, however many nodes leave unused what they counted in advance', async () => {
      const project = await newProject({ sealLimits: { rotateAt: 1_000, max: 100, reserve: 3 } });
      let sealed = 0;
      const until = async (left: number) => {
        const node = await project.open(database);
        for (; left > 0; left--) {
          await commitOne(node, put('a', '{}'));
          sealed++;
        }
      };
      const outcomes = await Promise.allSettled(Array.from({ length: 20 }, (_, at) => until(at + 1)));
      const refused = outcomes.filter(({ status }) => status === 'rejected');
      expect(refused.length).toBeGreaterThan(0);
      for (const one of refused) expect(one).toMatchObject({ reason: { code: 'key_exhausted' } });
      expect(sealed).toBeLessThanOrEqual(100);
      expect(sealed).toBeGreaterThanOrEqual(100 - 20 * 3);
    });

    it('counts the seals of a failed transaction with the next one', async () => {
      const project = await newProject({ sealLimits: { rotateAt: 100, max: 5 } });
      const store = await project.open(database);
      await commitOne(store, put('a', '{"v":1}'));
      await refuseWrites(project.project, async () => {
        for (let n = 0; n < 2; n++)
          await expect(commitOne(store, put('a', '{"v":2}'))).rejects.toMatchObject({ code: 'disk_full' });
      });
      await commitOne(store, put('b', '{}'));
      await commitOne(store, put('c', '{}'));
      await expect(commitOne(store, put('d', '{}'))).rejects.toMatchObject({ code: 'key_exhausted' });
    });

    it('counts no refused write and no deletion as sealed', async () => {
      const project = await newProject({ sealLimits: { rotateAt: 100, max: 2 } });
      const store = await project.open(database);
      await commitOne(store, put('a', '{}'));
      for (let n = 0; n < 3; n++)
        await expect(commitOne(store, put('a', '{}', { kind: 'absent' }))).rejects.toMatchObject({
          code: 'precondition_failed',
        });
      await commitOne(store, remove('a'));
      await commitOne(store, put('a', '{}'));
    });
  });
});

async function countOf(project: string): Promise<string> {
  const [rows] = await database.run(`SELECT seals FROM bundoc.key_versions WHERE project = '${project}'`);
  return String((rows?.[0]?.[0] as Buffer | undefined)?.toString('hex'));
}

/** The same database, which runs `action` before each transaction. */
function beforeTransactions(database: Database, action: () => Promise<unknown>): Database {
  return new Proxy(database, {
    get: (target, name) => {
      if (name === 'transaction')
        return async (...args: Parameters<Database['transaction']>) => {
          await action();
          return target.transaction(...args);
        };
      const member: unknown = Reflect.get(target, name, target);
      return typeof member === 'function' ? member.bind(target) : member;
    },
  });
}
