import { randomUUID } from 'node:crypto';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import { systemClock } from '@bundoc/shared/runtime/clock';
import type { PostgresServer } from '@bundoc/shared/testing/postgres-server';
import { needs } from '@bundoc/shared/testing/programs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Database } from '../src/engine/postgres/database/database.ts';
import { LostInRows } from '../src/engine/postgres/rows/lost-in-rows.ts';
import { RowCipher } from '../src/engine/postgres/rows/row-cipher.ts';
import { put, ref, remove } from '../src/testing/writes.ts';
import { HELD, Moving } from './support/moving.ts';
import { useDatabase } from './support/use-database.ts';

describe('a move of a project', needs('postgresql'), () => {
  let server: PostgresServer;
  let database: Database;
  let moving: Moving;
  let projects = 0;
  useDatabase(
    (used) => {
      ({ server, database } = used);
    },
    { connectionsMax: 20 },
  );
  beforeEach(() => {
    moving = new Moving(database, `moved-${projects++}`);
  });
  afterEach(() => moving[Symbol.asyncDispose]());

  it('allows reads and writes until the cut-over, and loses nothing that was acknowledged', async () => {
    const storage = await moving.start('files');
    const node = await moving.node('files', storage);
    const acknowledged = new Map<string, string | undefined>();
    let isMoved = false;
    let writes = 0;
    let reads = 0;
    const unexpected: unknown[] = [];
    const write = async (id: string, isDelete: boolean) => {
      const value = `{"v":${writes++}}`;
      const [result] = await moving.withStore(node, (store) =>
        store.commit([isDelete ? remove(id) : put(id, value)]),
      );
      acknowledged.set(id, result?.metadata?._rev);
    };
    for (let n = 0; n < 60; n++) await write(`before-${n}`, false);
    const once = { idempotency: { key: 'a'.repeat(32), request: 'b'.repeat(32) } };
    await moving.withStore(node, (store) => store.commit([put('keyed', '{"v":"once"}')], once));

    const writer = async (worker: number) => {
      for (let step = 0; !isMoved; step++) {
        await setImmediate();
        // Each worker has its own ids, so the last answer determines the expected content.
        const id = `w${worker}-${step % 8}`;
        try {
          await write(id, step % 5 === 4 && acknowledged.get(id) !== undefined);
        } catch (error) {
          if (hasCode(error, 'project_elsewhere')) return;
          // The write failed or its outcome is unknown; the client must retry.
          if (hasCode(error, 'storage_unavailable')) acknowledged.delete(id);
          else if (!hasCode(error, 'project_moving', 'overloaded')) unexpected.push(error);
        }
      }
    };
    const reader = async () => {
      while (!isMoved) {
        await setImmediate();
        try {
          const read = await moving.withStore(node, async (store) => store.get(ref(`before-${reads % 60}`)));
          if (read === undefined) unexpected.push(`before-${reads % 60} was not there`);
          reads++;
        } catch (error) {
          if (hasCode(error, 'project_elsewhere')) return;
          if (!hasCode(error, 'storage_unavailable', 'project_moving')) unexpected.push(error);
        }
      }
    };
    const busy = [0, 1, 2, 3].map(writer).concat(reader());
    await moving.toDatabase(node, undefined, storage);
    isMoved = true;
    await Promise.all(busy);
    expect(unexpected).toEqual([]);
    expect(reads).toBeGreaterThan(0);
    const there = await moving.identity('rows');
    const elsewhere = { code: 'project_elsewhere', storage: (await there.read()).id };
    await expect(moving.withStore(node, async (store) => store.get(ref('before-0')))).rejects.toMatchObject(
      elsewhere,
    );
    const late = moving.withStore(node, (store) => store.commit([put('late', '{}')]));
    await expect(late).rejects.toMatchObject(elsewhere);

    await moving.withStore(await moving.node('rows'), async (store) => {
      for (const [id, rev] of acknowledged)
        expect([id, (await store.get(ref(id)))?.metadata._rev]).toEqual([id, rev]);
      const again = await store.commit([put('keyed', '{"v":"once"}')], once);
      expect(again[0]?.metadata?._rev).toBe((await store.get(ref('keyed')))?.metadata._rev);
      await store.commit([put('goes-on', '{}')]);
    });
  });

  it('a move into a database that has lost the project ends the loss, so it can move away again', async () => {
    const node = await moving.node('files');
    await moving.withStore(node, (store) => store.commit([put('a', '{}')]));
    const lost = new LostInRows(database, systemClock);
    await lost.mark([moving.project, `${moving.project}-other`]);
    await moving.toDatabase(node);
    const marks = await server.sql('SELECT project FROM bundoc.lost_projects', 'bundoc');
    expect(marks).toBe(`${moving.project}-other`);
    await lost.accept([`${moving.project}-other`]);
  });

  it("keeps the count of the key's seals", async () => {
    const files = await moving.node('files');
    for (let n = 0; n < 20; n++) await moving.withStore(files, (store) => store.commit([put('a', '{}')]));
    await moving.toDatabase(files);
    const of = `WHERE project = '${moving.project}'`;
    const sealed = await server.sql(`SELECT encode(seals, 'hex') FROM bundoc.key_versions ${of}`, 'bundoc');
    using lease = await (await moving.node('rows')).acquire(moving.project, 'create');
    const count = new RowCipher(moving.project, lease.cipher).openCount(1, Buffer.from(sealed, 'hex'));
    // At most what the folder had reserved.
    expect([count >= 20, count < 2 ** 22]).toEqual([true, true]);
  });

  it('lets the project be neither deleted nor listed at the former storage', async () => {
    await moving.fill('files');
    await moving.move();
    const files = await moving.projects('files', await moving.start('files'));
    await expect(files.exists(moving.project)).rejects.toMatchObject({ code: 'project_elsewhere' });
    expect(await files.names('', 1_000)).not.toContain(moving.project);
    const rows = await moving.projects('rows', await moving.start('rows'));
    expect(await rows.names('', 1_000)).toContain(moving.project);
  });

  it('a move by a service stops on request without traces at the target, runs once at a time, and repeats its answer', async () => {
    await moving.fill('files');
    const from = await moving.start('files');
    const node = await moving.node('files', from);
    const gate = Promise.withResolvers<void>();
    const ended: string[] = [];
    const feed = { end: (of: string) => void ended.push(of) };
    const moves = await moving.moves(node, undefined, { from, feed, open: () => gate.promise });
    await expect(moves.begin('none')).rejects.toMatchObject({ code: 'project_not_found' });
    const first = await moves.begin(moving.project);
    await expect(moves.begin(moving.project)).rejects.toMatchObject({ code: 'rate_limited' });
    expect(first.progress).toEqual({ step: 'copying', documents: 0, of: 0 });
    first.stop(new AppError('overloaded'));
    gate.resolve();
    await expect(first.outcome).rejects.toMatchObject({ code: 'overloaded' });
    await moving.withStore(node, (store) => store.commit([put('c', '{"after":"it stopped"}')]));
    expect(ended).toEqual([]);
    expect(await rowsOf(moving.project)).toBe(0);

    const moved = await (await moves.begin(moving.project)).outcome;
    expect(moved).toEqual({ to: 'there', kept: expect.stringContaining(`${moving.project}-`) });
    expect(readdirSync(join(moving.folder, 'moved'))).toEqual([moved.kept]);
    expect(ended).toEqual([moving.project]);
    expect(await (await moves.begin(moving.project)).outcome).toEqual(moved);
    await moves.close();
    await expect(moves.begin(moving.project)).rejects.toMatchObject({ code: 'overloaded' });
    expect([await moving.held('files'), await moving.held('rows')]).toEqual(['project_elsewhere', HELD]);
  });

  it('succeeds where someone has planted a deletion mark of the project', async () => {
    await moving.fill('files');
    await server.sql(
      `INSERT INTO bundoc.projects (project, marker) VALUES ('${moving.project}', 'no mark')`,
      'bundoc',
    );
    await moving.move();
    expect(await moving.held('rows')).toEqual(HELD);
  });

  it('is refused where a project with its id exists', async () => {
    await moving.fill('files');
    await server.sql(
      `INSERT INTO bundoc.projects (project, file) VALUES ('${moving.project}', '{}')`,
      'bundoc',
    );
    await expect(moving.move()).rejects.toMatchObject({
      code: 'move_refused',
      message: expect.stringContaining('is in the database already'),
    });
    expect(await moving.held('files')).toEqual(HELD);
    expect(await rowsOf(moving.project)).toBe(1);
  });

  it('is refused before anything happens when the target is an unused copy', async () => {
    await moving.fill('files');
    const { id } = await moving.start('rows');
    // Another copy of the database was started since.
    moving.service.takeOverStorage(id, randomUUID());
    await expect(moving.move()).rejects.toMatchObject({ code: 'storage_superseded' });
    expect(await moving.held('files')).toEqual(HELD);
    expect(await rowsOf(moving.project)).toBe(0);
  });

  const rowsOf = async (project: string) => {
    const tables = [
      'projects',
      'documents',
      'collections',
      'key_versions',
      'used_keys',
      'heads',
      'fenced_heads',
    ];
    const counts = tables.map(
      (table) => `(SELECT count(*) FROM bundoc.${table} WHERE project = '${project}')`,
    );
    return Number(await server.sql(`SELECT ${counts.join(' + ')}`, 'bundoc'));
  };
});
