import type { PostgresServer } from '@bundoc/shared/testing/postgres-server';
import { needs } from '@bundoc/shared/testing/programs';
import { describe, expect, it } from 'vitest';
import { KeyCache } from '../src/crypto/key-cache.ts';
import { readProject } from '../src/engine/files/projects/project-reader.ts';
import { verifyProject } from '../src/engine/files/projects/verify-project.ts';
import { restoreProject } from '../src/engine/files/transfer/restore-project.ts';
import { ProjectExists } from '../src/engine/port/errors.ts';
import type { ProjectStore, Write } from '../src/engine/port/port.ts';
import { SEAL_LIMITS } from '../src/engine/port/seal-budget.ts';
import { GroupCommitter } from '../src/engine/postgres/commit/group-commit.ts';
import type { Database } from '../src/engine/postgres/database/database.ts';
import { PostgresStore } from '../src/engine/postgres/postgres-store.ts';
import { PostgresProjects, whyGone } from '../src/engine/postgres/projects/postgres-projects.ts';
import { SharedReads } from '../src/engine/postgres/reads/shared-reads.ts';
import { SnapshotConnections } from '../src/engine/postgres/snapshots/snapshot-connections.ts';
import { restoreProjectInRows } from '../src/engine/postgres/transfer/restore-rows.ts';
import { checkBackup, cipherOf, restoreSource } from '../src/operations/read-backup.ts';
import { createBackup } from '../src/operations/write-backup.ts';
import { CliProject } from '../src/testing/cli-project.ts';
import { NO_NEWS } from '../src/testing/postgres-project.ts';
import { closeEngine, engineOn } from '../src/testing/test-engine.ts';
import { commitOne, put, remove } from '../src/testing/writes.ts';
import { useDatabase } from './support/use-database.ts';

const ROOT = '/projects';

describe('backups of projects in PostgreSQL', needs('postgresql'), () => {
  let server: PostgresServer;
  let database: Database;
  let projects = 0;
  useDatabase((used) => {
    ({ server, database } = used);
  });

  const rowsOf = ({ service, clock }: CliProject) =>
    new PostgresProjects({
      database,
      clock,
      storage: service.storage,
      settle: async () => undefined,
      keys: new KeyCache({ keys: service.held, clock, ttlMs: 900_000 }),
    });
  /** Opens a project as a node does, and creates it if it is absent. */
  const openRows = async (project: CliProject) => {
    const { file, cipher } = await rowsOf(project).openOrCreate(project.project);
    const store = await new PostgresStore({
      project: project.project,
      database,
      reads: new SharedReads(database),
      snapshots: new SnapshotConnections({ database, clock: project.clock }),
      cipher,
      clock: project.clock,
      sealLimits: SEAL_LIMITS,
      committer: new GroupCommitter({ database, clock: project.clock }),
      news: NO_NEWS,
      onIntegrityError: () => undefined,
      onFailure: () => undefined,
      onRotationDue: () => undefined,
      whyGone: () => whyGone({ database, clock: project.clock }, project.project),
    }).begin();
    return { store, file, cipher };
  };
  const newProject = () => new CliProject(`p${++projects}`);
  /** Reads the pieces of a backup; `between` runs before each but the first. */
  const backUp = async (
    project: CliProject,
    opened: Pick<Awaited<ReturnType<typeof openRows>>, 'file' | 'cipher'> & { store: ProjectStore },
    between: () => Promise<void> = async () => undefined,
  ) => {
    const acquire = async () => ({ ...opened, [Symbol.dispose]: () => undefined });
    const limits = { limit: 7, bytesMax: 3_000 };
    const pieces: Buffer[] = [];
    let content: unknown;
    const ports = { instances: { acquire: acquire as never }, clock: project.clock, limits };
    for await (const piece of await createBackup(project.project, ports)) {
      pieces.push(piece);
      content = await contentOf(opened.store);
      await between();
    }
    return { bytes: Buffer.concat(pieces), content };
  };
  const sourceOf = async (project: CliProject, bytes: Buffer, read?: () => AsyncGenerator<Buffer>) => {
    const checked = async function* () {
      for (let at = 0; at < bytes.length; at += 4_000) yield bytes.subarray(at, at + 4_000);
    };
    const open = read ?? checked;
    const facts = await checkBackup(checked());
    return restoreSource(facts, open, await cipherOf(facts, project.service));
  };
  const forget = async (project: CliProject) => {
    const tables = await server.sql(
      `SELECT string_agg('DELETE FROM bundoc.' || table_name || ' WHERE project = ''${project.project}''', ';')
       FROM information_schema.columns WHERE table_schema = 'bundoc' AND column_name = 'project'`,
      'bundoc',
    );
    await server.sql(tables, 'bundoc');
  };
  const rowsLeft = (project: CliProject) =>
    server.sql(
      `SELECT (SELECT count(*) FROM bundoc.projects WHERE project = '${project.project}') + (SELECT count(*) FROM bundoc.documents WHERE project = '${project.project}')`,
      'bundoc',
    );

  it('restore the project as of their last block, whichever nodes wrote in the meantime', async () => {
    const project = newProject();
    const [here, there] = [await openRows(project), await openRows(project)];
    for (let n = 0; n < 40; n++)
      await commitOne(here.store, put(`d${n}`, `{"n":${n},"pad":"${'x'.repeat(n * 20)}"}`));
    let turn = 0;
    const { bytes, content } = await backUp(project, here, async () => {
      if (turn++ > 8) return;
      const writes: Write[] = [
        put(`d${turn}`, `{"again":${turn}}`),
        remove(`d${39 - turn}`),
        put(`new${turn}`, '{}'),
      ];
      await there.store.commit(writes);
    });
    expect(turn).toBeGreaterThan(8);
    for (const { store } of [here, there]) await store[Symbol.asyncDispose]();
    await forget(project);
    await server.sql(`INSERT INTO bundoc.lost_projects VALUES ('${project.project}')`, 'bundoc');
    const end = await restoreProjectInRows({
      ...(await sourceOf(project, bytes)),
      database,
      clock: project.clock,
    });
    expect(await server.sql('SELECT count(*) FROM bundoc.lost_projects', 'bundoc')).toBe('0');
    const restored = await openRows(project);
    expect(await contentOf(restored.store)).toEqual(content);
    // The earlier feed is not part of it, and the key must be rotated.
    await expect(restored.store.changes(3, 10)).rejects.toMatchObject({ code: 'position_gone' });
    expect(await restored.store.position()).toBeGreaterThan(end.lastSeq + 2 ** 31);
    await commitOne(restored.store, put('after', '{}'));
    await restored.store[Symbol.asyncDispose]();
  });

  it('move a project from files to PostgreSQL and back', async () => {
    const project = newProject();
    const disk = CliProject.disk();
    const files = await project.open(disk);
    for (let n = 0; n < 20; n++) await commitOne(files, put(`d${n}`, `{ "n": ${n}.10 }`));
    await commitOne(files, remove('d3'));
    const { file, place } = await readProject(await project.place(disk));
    const made = await backUp(project, { store: files, file, cipher: place.cipher });
    await files[Symbol.asyncDispose]();
    await restoreProjectInRows({ ...(await sourceOf(project, made.bytes)), database, clock: project.clock });
    const rows = await openRows(project);
    expect(await contentOf(rows.store)).toEqual(made.content);
    await commitOne(rows.store, put('d5', '{"made":"there"}'));
    const back = await backUp(project, rows);
    await rows.store[Symbol.asyncDispose]();
    const other = CliProject.disk();
    const source = await sourceOf(project, back.bytes);
    const engine = await engineOn(other, { clock: project.clock });
    await restoreProject({
      ...source,
      disk: other,
      clock: project.clock,
      projectsDirectory: ROOT,
      tmp: '/tmp',
      arrived: (handle) => engine.arrived(project.project, handle, source.cipher),
      endOrphans: () => engine.endOrphans(project.project, source.cipher),
    });
    await closeEngine(other);
    expect((await verifyProject(await project.place(other), () => undefined)).findings).toEqual([]);
    const again = await project.open(other);
    expect(await contentOf(again)).toEqual(back.content);
    await again[Symbol.asyncDispose]();
  });

  describe('refuse a restore', () => {
    it('a restore into PostgreSQL is refused where a project or a mark exists', async () => {
      const project = newProject();
      const opened = await openRows(project);
      await commitOne(opened.store, put('a', '{}'));
      const { bytes } = await backUp(project, opened);
      await opened.store[Symbol.asyncDispose]();
      const source = await sourceOf(project, bytes);
      await expect(
        restoreProjectInRows({ ...source, database, clock: project.clock }),
      ).rejects.toBeInstanceOf(ProjectExists);
      const since = new Date().toISOString();
      await rowsOf(project).remove(project.project, { deleted: project.project, format: 1, since });
      await expect(
        restoreProjectInRows({ ...source, database, clock: project.clock }),
      ).rejects.toBeInstanceOf(ProjectExists);
    });

    it('a restore into PostgreSQL from a forged or truncated backup is refused and leaves no row', async () => {
      const project = newProject();
      const opened = await openRows(project);
      for (let n = 0; n < 30; n++) await commitOne(opened.store, put(`d${n}`, `{"n":${n}}`));
      const { bytes } = await backUp(project, opened);
      await opened.store[Symbol.asyncDispose]();
      await forget(project);
      const changed = Buffer.from(bytes);
      changed[bytes.length >> 1] = (bytes[bytes.length >> 1] as number) ^ 1;
      for (const broken of [changed, bytes.subarray(0, -50)]) {
        const open = async function* () {
          yield broken;
        };
        const source = await sourceOf(project, bytes, open);
        await expect(restoreProjectInRows({ ...source, database, clock: project.clock })).rejects.toThrow(
          'backup',
        );
        expect(await rowsLeft(project)).toBe('0');
      }
    });

    it('a restore into PostgreSQL with an undecryptable document is refused', async () => {
      const project = newProject();
      const opened = await openRows(project);
      for (const id of ['a', 'b']) await commitOne(opened.store, put(id, '{}'));
      const name = opened.cipher.fileName({ collection: 'notes', id: 'a' });
      await server.sql(
        `UPDATE bundoc.documents SET sealed = set_byte(sealed, 20, get_byte(sealed, 20) # 1) WHERE name = '\\x${name}'`,
        'bundoc',
      );
      await expect(backUp(project, opened)).rejects.toMatchObject({ code: 'integrity_error' });
      await opened.store[Symbol.asyncDispose]();
    });
  });
});

/** The whole project, for comparison: texts in creation order, and deletions. */
async function contentOf(store: ProjectStore) {
  const { documents } = await store.list({ collection: 'notes', after: 0, limit: 1_000, bytesMax: 1e9 });
  const { changes } = await store.changes(0, 1_000);
  return {
    texts: documents.map(({ text }) => text.toString()),
    changes: changes.map(({ ref: { id }, rev, deleted }) => [id, rev, deleted]),
  };
}
