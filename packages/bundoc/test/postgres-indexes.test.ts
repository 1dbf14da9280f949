import { needs } from '@bundoc/shared/testing/programs';
import { describe, expect, it } from 'vitest';
import type { DefinedStore } from '../src/collections/defined-store.ts';
import { cursorsOf } from '../src/crypto/sealed-cursor.ts';
import { describeOrder } from '../src/engine/conformance/order-conformance.ts';
import { describeIndexes, find } from '../src/engine/indexes/conformance.ts';
import { openTestDatabase } from '../src/testing/postgres-project.ts';
import { assertQueriesAreRight, type CrashingProject } from '../src/testing/queries-property.ts';
import { commitOne, put } from '../src/testing/writes.ts';
import { CuttingProxy } from './support/cutting-proxy.ts';
import {
  close,
  database,
  findings,
  hasty,
  NONE,
  newProject,
  openOn,
  plain,
  RUNS,
  SMALL,
  server,
  settled,
  sql,
  unique,
  usePostgresIndexes,
} from './support/postgres-indexes.ts';

describe('indexes on PostgreSQL', needs('postgresql'), () => {
  usePostgresIndexes();

  describeIndexes('the PostgreSQL engine', async () => {
    const project = await newProject();
    const open = () => openOn(project);
    return { store: await open(), reopen: open };
  });

  for (const [size, orderSizes] of [
    ['', undefined],
    [' with small tails and runs', SMALL],
  ] as const)
    describeOrder(`the PostgreSQL engine${size}`, async () => {
      const project = await newProject(orderSizes && { orderSizes });
      const reopen = () => openOn(project);
      return { store: await reopen(), cursors: cursorsOf('p', project.cipher), reopen };
    });

  it('change no answer of a query, after updates, deletes, re-seals and broken connections', async () => {
    const makeProject = async (): Promise<CrashingProject> => {
      const project = await newProject({ clock: hasty(), orderSizes: SMALL });
      let proxy = await CuttingProxy.open(server.port);
      let behind = openTestDatabase(server.urlOf('bundoc', proxy.port));
      const opened: DefinedStore[] = [];
      const stop = async () => {
        await Promise.all(
          opened.splice(0).map((store) => store[Symbol.asyncDispose]().catch(() => undefined)),
        );
        await behind[Symbol.asyncDispose]();
        await proxy[Symbol.asyncDispose]();
      };
      return {
        open: async () => {
          const store = await openOn(project, behind);
          opened.push(store);
          return store;
        },
        rotate: () => project.rotate(database),
        crashBehind: (operations) => proxy.dieAfter(operations),
        restart: async () => {
          await stop();
          proxy = await CuttingProxy.open(server.port);
          behind = openTestDatabase(server.urlOf('bundoc', proxy.port));
        },
        get cursors() {
          return cursorsOf('p', project.cipher);
        },
        check: async () => {
          expect(await findings(project)).toEqual([]);
          await stop();
        },
      };
    };
    const { found } = await assertQueriesAreRight(makeProject, RUNS);
    expect(found).toBeGreaterThan(0);
  });

  it('are unaffected by a new version of the key', async () => {
    const project = await newProject();
    const before = await openOn(project);
    for (let n = 0; n < 5; n++) await commitOne(before, put(`d${n}`, `{"u":${n},"g":${n % 2}}`));
    await before.define('notes', { indexes: [unique('u'), plain('g')] }, NONE);
    await settled(before);
    await close(before);
    await project.rotate(database);
    const rotated = await openOn(project);
    while ((await rotated.reseal(2)).goesOn);
    await close(rotated);
    project.forgetFormerVersions();
    const store = await openOn(project);
    expect(await find(store, '{"g":1}')).toMatchObject({ index: 'g', ids: ['d1', 'd3'], scanned: 2 });
    await expect(commitOne(store, put('x', '{"u":3}'))).rejects.toMatchObject({ code: 'unique_violation' });
    expect(await findings(project)).toEqual([]);
    await close(store);
  });

  it('leave nothing behind when they are dropped, and get new numbers', async () => {
    const project = await newProject();
    const store = await openOn(project);
    for (let n = 0; n < 5; n++) await commitOne(store, put(`d${n}`, `{"g":${n}}`));
    for (let round = 0; round < 3; round++) {
      await store.define('notes', { indexes: [unique('g')] }, NONE);
      await settled(store);
      expect(await find(store, '{"g":4}')).toMatchObject({ index: 'g', ids: ['d4'] });
      await store.define('notes', undefined, NONE);
      await store.indexes?.built();
      const left = (table: string) =>
        sql(`SELECT count(*) FROM bundoc.${table} WHERE project = '${project.project}'`);
      expect([await left('index_tokens'), await left('indexes')]).toEqual(['0', '0']);
    }
    await close(store);
  });

  it('serve no query once they are dropped, instead of omitting documents', async () => {
    const project = await newProject();
    const [here, there] = [await openOn(project), await openOn(project)];
    for (let n = 0; n < 5; n++) await commitOne(here, put(`d${n}`, '{"g":1}'));
    await here.define('notes', { indexes: [plain('g')] }, NONE);
    await settled(here);
    await settled(there);
    // As when a node has begun to remove dropped indexes.
    const own = `project = '${project.project}'`;
    await sql(`UPDATE bundoc.indexes SET dropped = true WHERE ${own};
               DELETE FROM bundoc.index_pages WHERE ${own}`);
    expect(await find(there, '{"g":1}')).toMatchObject({ index: null, scanned: 5 });
    await here.define('notes', { indexes: [] }, NONE);
    await here.indexes?.built();
    // It has not learned of it yet, and must not bring it back.
    await there.indexes?.keep?.();
    expect(await sql(`SELECT count(*) FROM bundoc.indexes WHERE ${own}`)).toBe('0');
    await there.load();
    expect(await find(there, '{"g":1}')).toMatchObject({ index: null, scanned: 5 });
    await close(here, there);
  });

  it('find nothing in a project that another node is deleting, and report its fate', async () => {
    const project = await newProject();
    const store = await openOn(project);
    for (let n = 0; n < 3; n++) await commitOne(store, put(`d${n}`, '{"g":1}'));
    await store.define('notes', { indexes: [plain('g')] }, NONE);
    await settled(store);
    // As when the deletion has begun to remove documents: the rest must not be taken for all.
    const own = `project = '${project.project}'`;
    await sql(`DELETE FROM bundoc.heads WHERE ${own};
               DELETE FROM bundoc.documents WHERE ${own} AND created_seq < 2`);
    await expect(find(store, '{"g":1}')).rejects.toMatchObject({ code: 'project_not_found' });
    await close(store);
  });

  it('contain nothing readable of values, fields or names, and no token of another index', async () => {
    const project = await newProject();
    const store = await openOn(project);
    const secrets = ['plantedField', 'planted value', 'planted-name', '4155550123'];
    const indexes = [
      { name: secrets[2] as string, fields: [secrets[0] as string], unique: true },
      unique('other'),
      unique('other', secrets[0] as string),
    ];
    await store.define('notes', { indexes }, NONE);
    await commitOne(
      store,
      put('a', `{"${secrets[0]}":["${secrets[1]}",${secrets[3]}],"other":"${secrets[1]}"}`),
    );
    await store.define('same', { indexes }, NONE);
    await store.commit([{ ...put('a', `{"other":"${secrets[1]}"}`), ref: { collection: 'same', id: 'a' } }]);
    await settled(store);
    const dump = await server.dump('bundoc');
    for (const text of secrets)
      for (const form of [text, Buffer.from(text).toString('hex'), Buffer.from(text).toString('base64')])
        expect(dump).not.toContain(form);
    const counts = `SELECT count(*), count(DISTINCT token) FROM bundoc.index_tokens WHERE project = '${project.project}'`;
    // The list itself and its elements, in two indexes; "other" alone in two collections.
    expect(await sql(counts)).toBe('8|8');
    await close(store);
  });
});
