import { createLogger } from '@bundoc/shared/logs/logger';
import { StartRefused } from '@bundoc/shared/process/lifecycle';
import { systemClock } from '@bundoc/shared/runtime/clock';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import type { PostgresServer } from '@bundoc/shared/testing/postgres-server';
import { needs } from '@bundoc/shared/testing/programs';
import { describe, expect, it } from 'vitest';
import { KeyCache } from '../src/crypto/key-cache.ts';
import type { MarkSetAside } from '../src/engine/moves/set-aside.ts';
import { SEAL_LIMITS } from '../src/engine/port/seal-budget.ts';
import { GroupCommitter } from '../src/engine/postgres/commit/group-commit.ts';
import type { Database } from '../src/engine/postgres/database/database.ts';
import { prepareSchema } from '../src/engine/postgres/database/schema.ts';
import { PostgresStore } from '../src/engine/postgres/postgres-store.ts';
import { ExpiryMarksInRows } from '../src/engine/postgres/projects/expiry-rows.ts';
import { PostgresProjects, whyGone } from '../src/engine/postgres/projects/postgres-projects.ts';
import { SharedReads } from '../src/engine/postgres/reads/shared-reads.ts';
import { lockRow, readFileRow } from '../src/engine/postgres/rows/file-row.ts';
import { identifyDatabase } from '../src/engine/postgres/rows/identity-in-rows.ts';
import { SnapshotConnections } from '../src/engine/postgres/snapshots/snapshot-connections.ts';
import { SWEEP_INTERVAL_MS } from '../src/engine/projects/expiry-marks.ts';
import { ProjectDeletion } from '../src/projects/delete-project.ts';
import { describeExpiryMarks } from '../src/projects/expiry-conformance.ts';
import { InstanceManager } from '../src/projects/instance-manager.ts';
import { FakeKeyService } from '../src/testing/fake-key-service.ts';
import { NO_NEWS, openTestDatabase } from '../src/testing/postgres-project.ts';
import { put, ref } from '../src/testing/writes.ts';
import { createServiceShares } from '../src/work/service-shares.ts';
import { useDatabase } from './support/use-database.ts';

describe('projects in PostgreSQL', needs('postgresql'), () => {
  let server: PostgresServer;
  let database: Database;
  useDatabase((used) => {
    ({ server, database } = used);
  });

  /** A separate node with its own cache of keys. */
  const nodeOf = (service: FakeKeyService, setAside: MarkSetAside[] = []) =>
    new PostgresProjects({
      onSetAside: (mark) => setAside.push(mark),
      database,
      keys: new KeyCache({ keys: service.held, clock: systemClock, ttlMs: 900_000 }),
      clock: systemClock,
      storage: service.storage,
      settle: async () => undefined,
    });
  const newService = () => new FakeKeyService(systemClock);

  it('have one key and one name key when several nodes create them at once', async () => {
    const service = newService();
    for (let round = 0; round < 5; round++) {
      const project = `together-${round}`;
      const made = await Promise.all([1, 2, 3, 4].map(() => nodeOf(service).openOrCreate(project)));
      expect(new Set(made.map(({ file }) => JSON.stringify(file))).size).toBe(1);
      expect(new Set(made.map(({ cipher }) => cipher.fileName(ref('a')))).size).toBe(1);
    }
  });

  it('are in a storage that is damaged by a row of excessive length, which is not read', async () => {
    const name = 'long_storage';
    await using own = openTestDatabase((await server.createDatabase(name)).url);
    await prepareSchema(own);
    const identity = await identifyDatabase(own, systemClock);
    await server.sql('ALTER TABLE bundoc.storage DROP CONSTRAINT IF EXISTS storage_file_is_bounded', name);
    await server.sql("UPDATE bundoc.storage SET file = file || repeat(' ', 30000000)", name);
    await expect(identity.read()).rejects.toBeInstanceOf(StartRefused);
    await expect(identity.change((file) => file)).rejects.toThrow(/bundoc\.storage is damaged/);
  });

  it('are not created by lookups', async () => {
    const service = newService();
    expect(await nodeOf(service).open('absent')).toBeUndefined();
    expect([service.exports, service.creations]).toEqual([0, 0]);
  });

  it('are refused when they have rows and no file, under another key, and without a key', async () => {
    const service = newService();
    await nodeOf(service).openOrCreate('refused');
    const others = newService();
    await expect(nodeOf(others).open('refused')).rejects.toMatchObject({ code: 'key_missing' });
    others.put('refused-dek');
    await expect(nodeOf(others).open('refused')).rejects.toMatchObject({ code: 'key_mismatch' });
    await server.sql("DELETE FROM bundoc.projects WHERE project = 'refused'", 'bundoc');
    for (const mode of ['open', 'openOrCreate'] as const)
      await expect(nodeOf(service)[mode]('refused')).rejects.toMatchObject({ code: 'project_damaged' });
  });

  it('follow a rotation that another node knows of, whichever node is first', async () => {
    const service = newService();
    const [early, late] = [nodeOf(service), nodeOf(service)];
    await Promise.all([early.openOrCreate('rotated'), late.openOrCreate('rotated')]);
    await service.rotateKey('rotated-dek', 1);
    // These two do not learn that their key is no longer current; a third fetches it again.
    const opened = await Promise.all([nodeOf(service), nodeOf(service)].map((node) => node.open('rotated')));
    for (const one of opened) expect(one?.file.versions.map(({ version }) => version)).toEqual([1, 2]);
    for (const node of [early, late]) expect((await node.open('rotated'))?.cipher.version).toBe(2);
    const version = await server.sql(
      "SELECT key_version FROM bundoc.heads WHERE project = 'rotated'",
      'bundoc',
    );
    expect(version).toBe('2');
  });

  it('keep the latest wrapping of their key, beside what another node has added', async () => {
    const service = newService();
    const node = nodeOf(service);
    const { file, keys } = await node.openOrCreate('rewrapped');
    await service.rotateKey('rewrapped-dek', 1);
    await nodeOf(service).open('rewrapped');
    const kept = await node.keepWrappings('rewrapped', file, [{ ...keys[0], wrapped: 'bmV3' }]);
    expect(kept.versions.map(({ version, wrapped }) => [version, wrapped === 'bmV3'])).toEqual([
      [1, true],
      [2, false],
    ]);
  });

  describe('marks of expiry', () => {
    describeExpiryMarks(async () => {
      await server.sql('DELETE FROM bundoc.expiry', 'bundoc');
      const clock = new FakeClock();
      return { clock, start: () => new ExpiryMarksInRows({ database, clock }) };
    });

    it('are given to one node each, and disappear with their project', async () => {
      await server.sql('DELETE FROM bundoc.expiry', 'bundoc');
      const clock = new FakeClock();
      const nodes = [1, 2, 3, 4].map(() => new ExpiryMarksInRows({ database, clock }));
      const projects = ['m1', 'm2', 'm3', 'm4'];
      for (const project of projects) await nodes[0]?.mark(project);
      clock.advance(SWEEP_INTERVAL_MS);
      const taken: (string | undefined)[] = [];
      while (taken.filter(Boolean).length < 4)
        taken.push(...(await Promise.all(nodes.map((node) => node.take()))).map((due) => due?.project));
      expect(taken.filter(Boolean).sort()).toEqual(projects);
      const since = clock.now();
      await nodeOf(newService()).remove('m1', {
        deleted: 'm1',
        format: 1,
        since: new Date(since).toISOString(),
      });
      expect(await server.sql('SELECT count(*) FROM bundoc.expiry', 'bundoc')).toBe('3');
    });
  });

  it('are gone for every node after a deletion, except for a mark, and cannot be recreated', async () => {
    const service = newService();
    const logger = createLogger({ service: 'bundoc', level: 'silent' });
    const managed = () => {
      const keys = new KeyCache({ keys: service.held, clock: systemClock, ttlMs: 900_000 });
      const projects = new PostgresProjects({
        database,
        keys,
        clock: systemClock,
        storage: service.storage,
        settle: async () => undefined,
      });
      const committer = new GroupCommitter({ database, clock: systemClock });
      const instances = new InstanceManager({
        projects,
        keys,
        clock: systemClock,
        logger,
        isShared: true,
        openStore: (project, { cipher }) =>
          new PostgresStore({
            project,
            database,
            reads: new SharedReads(database),
            snapshots: new SnapshotConnections({ database, clock: systemClock }),
            cipher,
            clock: systemClock,
            sealLimits: SEAL_LIMITS,
            committer,
            news: NO_NEWS,
            onIntegrityError: () => undefined,
            onFailure: () => undefined,
            whyGone: () => whyGone({ database, clock: systemClock }, project),
            onRotationDue: () => undefined,
          }).begin(),
      });
      const feed = { end: () => undefined };
      const clock = systemClock;
      const deletion = new ProjectDeletion({
        projects,
        instances,
        keys,
        service: service.held,
        feed,
        clock,
        logger,
        settleDoubt: async () => undefined,
        share: createServiceShares().deletions,
      });
      const write = async (id: string) => {
        using lease = await instances.acquire('deleted', 'create');
        return await lease.store.commit([put(id, '{"v":1}')]);
      };
      const ask = async (question: 'get' | 'list' | 'collections' | 'changes' | 'position') => {
        using lease = await instances.acquire('deleted', 'existing');
        const store = lease?.store;
        switch (question) {
          case 'get':
            return store?.get(ref('absent'));
          case 'list':
            return store?.list({ collection: 'notes', after: 0, limit: 10, bytesMax: 1_000 });
          case 'changes':
            return store?.changes(0, 10);
          default:
            return store?.[question]();
        }
      };
      return { projects, instances, deletion, write, ask };
    };
    const [here, there] = [managed(), managed()];
    await here.write('a');
    await there.write('b');
    const questions = ['get', 'list', 'collections', 'changes', 'position'] as const;
    const readers = questions.map((question) => [question, managed()] as const);
    for (const [question, node] of readers) await node.ask(question);
    // The deletion is interrupted after its intent is recorded and before its key is destroyed.
    service.shredsFail = true;
    await expect(here.deletion.delete('deleted')).rejects.toMatchObject({ code: 'kms_unavailable' });
    for (const node of [here, managed()])
      await expect(node.write('c')).rejects.toMatchObject({ code: 'project_deleting' });
    service.shredsFail = false;
    there.deletion.requestCheck();
    await there.deletion.resume();
    await expect.poll(() => service.changes.at(-1)?.kind).toBe('removed');
    // Other nodes have it open with its key: each reports its deletion at once, and never a missing document.
    await expect(there.write('c')).rejects.toMatchObject({ code: 'project_destroyed' });
    for (const [question, node] of readers)
      await expect(node.ask(question)).rejects.toMatchObject({ code: 'project_destroyed' });
    await expect(there.write('c')).rejects.toMatchObject({ code: 'project_destroyed' });
    expect([there.instances.size, there.instances.stateOf('deleted')]).toEqual([
      0,
      { isOpen: false, keyUntilMs: undefined },
    ]);
    const answers = await Promise.all([here, there].map(({ deletion }) => deletion.delete('deleted')));
    expect(answers[0]).toEqual(answers[1]);
    expect(answers[0]).toMatchObject({ key: { name: 'deleted-dek' } });
    for (const table of ['documents', 'collections', 'key_versions', 'used_keys', 'heads'])
      expect(
        await server.sql(`SELECT count(*) FROM bundoc.${table} WHERE project = 'deleted'`, 'bundoc'),
      ).toBe('0');
    expect(await managed().projects.names('', 100)).not.toContain('deleted');
    for (const node of [here, there, managed()])
      await expect(node.write('d')).rejects.toMatchObject({ code: 'project_destroyed' });
    for (const { instances } of [here, there]) await instances[Symbol.asyncDispose]();
  });

  describe('with a forged move mark', () => {
    const plant = (project: string) =>
      server.sql(
        `UPDATE bundoc.projects SET marker = 'bundoc-move-mark-1.forged' WHERE project = '${project}'`,
        'bundoc',
      );

    it('are served, and keep their head even beside a forged fenced one', async () => {
      const service = newService();
      const setAside: MarkSetAside[] = [];
      await nodeOf(service).openOrCreate('fenced');
      await plant('fenced');
      await server.sql(
        `INSERT INTO bundoc.fenced_heads SELECT * FROM bundoc.heads WHERE project = 'fenced'`,
        'bundoc',
      );
      expect(await nodeOf(service, setAside).open('fenced')).toBeDefined();
      expect(setAside).toHaveLength(1);
    });

    it('are refused when the database rejects removing the mark, without asking BunKMS forever', async () => {
      const service = newService();
      await nodeOf(service).openOrCreate('stuck');
      await plant('stuck');
      await server.sql(
        `CREATE FUNCTION bundoc.never() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
         CREATE TRIGGER never BEFORE UPDATE ON bundoc.projects FOR EACH ROW WHEN (old.project = 'stuck') EXECUTE FUNCTION bundoc.never()`,
        'bundoc',
      );
      const asked = service.exports;
      await expect(nodeOf(service).open('stuck')).rejects.toMatchObject({ code: 'storage_unavailable' });
      expect(service.exports - asked).toBeLessThan(20);
    });
  });

  describe('with a forged deletion mark', () => {
    const since = '2026-01-01T00:00:00.000Z';
    const markOf = (project: string) =>
      JSON.stringify({ deleted: project, format: 1, since, keyDestroyedAt: since, finishedAt: since });
    const rowOf = (project: string) =>
      server.sql(
        `SELECT coalesce(marker, 'none') FROM bundoc.projects WHERE project = '${project}'`,
        'bundoc',
      );

    /** As an owner of the tables can. */
    const allowLongTexts = () =>
      server.sql(
        `ALTER TABLE bundoc.projects DROP CONSTRAINT IF EXISTS projects_file_is_bounded,
           DROP CONSTRAINT IF EXISTS projects_marker_is_bounded`,
        'bundoc',
      );

    it('reject a text that is longer than a node reads', async () => {
      for (const values of ["repeat('x', 4194305), NULL", "NULL, repeat('x', 65537)"])
        await expect(
          server.sql(
            `INSERT INTO bundoc.projects (project, file, marker) SELECT 'long', ${values}`,
            'bundoc',
          ),
        ).rejects.toThrow(/is_bounded/);
    });

    it('are served: the mark is set aside, and no key is destroyed', async () => {
      const service = newService();
      const setAside: MarkSetAside[] = [];
      await nodeOf(service).openOrCreate('marked');
      await server.sql(
        `UPDATE bundoc.projects SET marker = '${markOf('marked')}' WHERE project = 'marked'`,
        'bundoc',
      );
      const node = nodeOf(service, setAside);
      expect(await node.names('', 100)).toContain('marked');
      expect(await node.open('marked')).toBeDefined();
      expect(await rowOf('marked')).toBe('none');
      expect(setAside).toEqual([{ project: 'marked', text: markOf('marked') }]);
      expect(service.changes.map(({ kind }) => kind)).toEqual(['create']);
    });

    it('can be created if they never existed, and nothing is destroyed', async () => {
      const service = newService();
      const setAside: MarkSetAside[] = [];
      await server.sql(
        `INSERT INTO bundoc.projects (project, marker) VALUES ('never', '${markOf('never')}')`,
        'bundoc',
      );
      const node = nodeOf(service, setAside);
      expect([await node.exists('never'), await node.open('never')]).toEqual([false, undefined]);
      await node.openOrCreate('never');
      expect([setAside.length, await rowOf('never')]).toEqual([1, 'none']);
      expect(service.changes.map(({ kind }) => kind)).toEqual(['create']);
    });

    it('are damaged if it replaces their file, and no key is destroyed', async () => {
      const service = newService();
      await nodeOf(service).openOrCreate('replaced');
      await server.sql(
        `UPDATE bundoc.projects SET file = '${markOf('replaced')}' WHERE project = 'replaced'`,
        'bundoc',
      );
      await expect(nodeOf(service).open('replaced')).rejects.toMatchObject({ code: 'project_damaged' });
      expect(service.changes.map(({ kind }) => kind)).toEqual(['create']);
    });

    it('are served even if the mark is huge: little of it is read, and it is set aside', async () => {
      const service = newService();
      await allowLongTexts();
      for (const [at, begin] of ['bundoc-move-mark-1.', '{"deleted":"'].entries()) {
        const project = `long-${at}`;
        const setAside: MarkSetAside[] = [];
        await nodeOf(service).openOrCreate(project);
        const mark = `marker = '${begin}' || repeat('x', 30000000)`;
        await server.sql(`UPDATE bundoc.projects SET ${mark} WHERE project = '${project}'`, 'bundoc');
        expect((await readFileRow(database, project)).marker).toHaveLength(65_536);
        const locked = await database.transaction('', (transaction) => lockRow(transaction, project));
        expect(locked?.marker).toHaveLength(65_536);
        expect(await nodeOf(service, setAside).open(project)).toBeDefined();
        expect([setAside.length, await rowOf(project)]).toEqual([1, 'none']);
      }
    });

    it('are damaged when their file is huge, and none of it is read', async () => {
      const service = newService();
      await allowLongTexts();
      await nodeOf(service).openOrCreate('filled');
      const filled =
        "UPDATE bundoc.projects SET file = file || repeat(' ', 30000000) WHERE project = 'filled'";
      await server.sql(filled, 'bundoc');
      expect((await readFileRow(database, 'filled')).text).toBe('');
      await expect(nodeOf(service).open('filled')).rejects.toMatchObject({ code: 'project_damaged' });
    });

    it('stay deleted if they were, even if a node still has the key', async () => {
      const service = newService();
      const [here, there] = [nodeOf(service), nodeOf(service)];
      for (const node of [here, there]) await node.openOrCreate('gone');
      service.destroy('gone-dek');
      await here.remove('gone', { deleted: 'gone', format: 1, since });
      for (const mode of ['open', 'openOrCreate'] as const)
        await expect(there[mode]('gone')).rejects.toMatchObject({ code: 'project_destroyed' });
      expect(await rowOf('gone')).toContain('"deleted":"gone"');
    });
  });
});
