import type { PostgresServer } from '@bundoc/shared/testing/postgres-server';
import { needs } from '@bundoc/shared/testing/programs';
import { describe, expect, it } from 'vitest';
import { openDefinedStore } from '../src/collections/defined-store.ts';
import { definitionRef } from '../src/engine/port/definition.ts';
import type { Database } from '../src/engine/postgres/database/database.ts';
import { Collections } from '../src/service/collections.ts';
import type { PostgresProject } from '../src/testing/postgres-project.ts';
import { commitOne, put, ref, remove } from '../src/testing/writes.ts';
import { ownWork } from '../src/work/scheduler.ts';
import { type UsedDatabase, useDatabase } from './support/use-database.ts';

const NONE = { kind: 'none' } as const;
const SCHEMA = { indexes: [], schema: { properties: { v: { type: 'number' } } } };
const flip = (column: string) => `${column} = set_byte(${column}, 20, get_byte(${column}, 20) # 1)`;

describe('a damaged definition on PostgreSQL', needs('postgresql'), () => {
  let server: PostgresServer;
  let database: Database;
  let newProject: UsedDatabase['newProject'];
  useDatabase((used) => {
    ({ server, database, newProject } = used);
  });

  const openOn = async (project: PostgresProject) =>
    openDefinedStore(await project.open(database), project.clock);

  it.each([
    ['its sealed bytes', flip('sealed')],
    ['what is sealed of its state', flip('state')],
    ['its place in the order', 'created_seq = created_seq + 1000'],
    ['both', `${flip('sealed')}, ${flip('state')}`],
  ])('(%s) blocks reads and writes of its collection only, until it is replaced', async (_what, damage) => {
    const project = await newProject();
    await using running = await openOn(project);
    for (const name of ['notes', 'good']) await running.define(name, SCHEMA, NONE);
    await running.commit([put('a', '{"v":1}'), { ...put('a', '{"v":1}'), ref: ref('a', 'good') }]);
    const name = project.cipher.fileName(definitionRef('notes'));
    const row = `project = '${project.project}' AND name = '\\x${name}'`;
    const sql = `UPDATE bundoc.documents SET ${damage} WHERE ${row}`;
    await server.sql(sql, 'bundoc');
    // As every node does each second.
    await running.load();
    await using opened = await openOn(project);
    for (const store of [running, opened]) {
      const damaged = { code: 'integrity_error' };
      // Both writes that the schema refuses and writes that it accepts.
      for (const write of [put('b', '{"v":"x"}'), put('b', '{"v":2}'), remove('a')])
        await expect(commitOne(store, write)).rejects.toMatchObject(damaged);
      await expect(async () => store.get(ref('a'))).rejects.toMatchObject(damaged);
      const page = { collection: 'notes', after: 0, limit: 10, bytesMax: 1_000 };
      await expect(store.list(page)).rejects.toMatchObject(damaged);
      await expect(
        commitOne(store, { ...put('b', '{"v":"x"}'), ref: ref('b', 'good') }),
      ).rejects.toMatchObject({
        code: 'schema_violation',
      });
      await commitOne(store, { ...put('b', '{"v":2}'), ref: ref('b', 'good') });
      await commitOne(store, { ...put('b', '{"v":"x"}'), ref: ref('b', 'free') });
    }
    const lease = { store: opened, [Symbol.dispose]: () => undefined };
    const collections = new Collections({ acquire: async () => lease } as never);
    const listed = (await collections.list('p')).map((one) => [one.name, one.isDefined]);
    expect(listed).toEqual([
      ['free', false],
      ['good', true],
      ['notes', true],
    ]);
    await expect(collections.get('p', 'notes')).rejects.toMatchObject({ code: 'integrity_error' });
    expect((await collections.get('p', 'good')).definition).toEqual(SCHEMA);

    const { info } = await collections.define('p', 'notes', SCHEMA, NONE, {
      work: ownWork('p')('definition'),
    });
    expect(info).toMatchObject({ documents: 1, definition: SCHEMA });
    await running.load();
    for (const store of [running, opened]) {
      await expect(commitOne(store, put('b', '{"v":"x"}'))).rejects.toMatchObject({
        code: 'schema_violation',
      });
      await commitOne(store, put('b', '{"v":2}'));
    }
    // The definition can also be removed: then no rules apply, as requested.
    await server.sql(sql, 'bundoc');
    await running.load();
    await running.define('notes', undefined, NONE);
    await commitOne(running, put('b', '{"v":"x"}'));
    expect(project.damaged).toContain(name);
  });
});
