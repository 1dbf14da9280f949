import { randomUUID } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import { systemClock } from '@bundoc/shared/runtime/clock';
import type { PostgresServer } from '@bundoc/shared/testing/postgres-server';
import { needs } from '@bundoc/shared/testing/programs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { OutcomeUnknown } from '../src/engine/port/errors.ts';
import { positionAt } from '../src/engine/port/positions.ts';
import type { Database } from '../src/engine/postgres/database/database.ts';
import { fenceRows } from '../src/engine/postgres/rows/fence.ts';
import { LostInRows } from '../src/engine/postgres/rows/lost-in-rows.ts';
import type { MoveWatch } from '../src/operations/move-project.ts';
import type { InstanceManager } from '../src/projects/instance-manager.ts';
import { put, ref, remove } from '../src/testing/writes.ts';
import { HELD, Moving, NOT_WATCHED } from './support/moving.ts';
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

  it.each([['rows'], ['files']] as const)(
    'a move of a project from %s allows reads and writes until the cut-over, and loses nothing that was acknowledged',
    async (place) => {
      const isOut = place === 'rows';
      const storage = await moving.start(place);
      const from = [await moving.node(place, storage)];
      if (isOut) from.push(await moving.node(place, storage));
      const [first] = from as [InstanceManager];
      const acknowledged = new Map<string, string | undefined>();
      let isMoved = false;
      let writes = 0;
      let reads = 0;
      const unexpected: unknown[] = [];
      const write = async (node: InstanceManager, id: string, isDelete: boolean) => {
        const value = `{"v":${writes++}}`;
        const [result] = await moving.withStore(node, (store) =>
          store.commit([isDelete ? remove(id) : put(id, value)]),
        );
        acknowledged.set(id, result?.metadata?._rev);
      };
      for (let n = 0; n < 60; n++) await write(first, `before-${n}`, false);
      const once = { idempotency: { key: 'a'.repeat(32), request: 'b'.repeat(32) } };
      await moving.withStore(first, (store) => store.commit([put('keyed', '{"v":"once"}')], once));

      const writer = async (worker: number) => {
        for (let step = 0; !isMoved; step++) {
          await setImmediate();
          const node = from[step % from.length] as InstanceManager;
          // Each worker has its own ids, so the last answer determines the expected content.
          const id = `w${worker}-${step % 8}`;
          try {
            await write(node, id, step % 5 === 4 && acknowledged.get(id) !== undefined);
          } catch (error) {
            if (hasCode(error, 'project_elsewhere')) return;
            // The write failed or its outcome is unknown; the client must retry.
            if (hasCode(error, 'storage_unavailable')) acknowledged.delete(id);
            else if (!hasCode(error, 'project_moving', 'overloaded')) unexpected.push(error);
          }
        }
      };
      const reader = async (node: InstanceManager) => {
        while (!isMoved) {
          await setImmediate();
          try {
            const read = await moving.withStore(node, async (store) =>
              store.get(ref(`before-${reads % 60}`)),
            );
            if (read === undefined) unexpected.push(`before-${reads % 60} was not there`);
            reads++;
          } catch (error) {
            if (hasCode(error, 'project_elsewhere')) return;
            if (!hasCode(error, 'storage_unavailable', 'project_moving')) unexpected.push(error);
          }
        }
      };
      const busy = [0, 1, 2, 3].map(writer).concat(from.map(reader));
      let during = 0;
      const watch: MoveWatch = {
        ...NOT_WATCHED,
        onVerified: () => {
          during ||= writes;
        },
      };
      if (isOut) await moving.toFolder(undefined, watch);
      else await moving.toDatabase(first, undefined, storage);
      isMoved = true;
      await Promise.all(busy);
      expect(unexpected).toEqual([]);
      if (isOut) expect(during, 'written while it was copied').toBeGreaterThan(60);
      expect(reads).toBeGreaterThan(0);
      const there = await moving.identity(isOut ? 'files' : 'rows');
      const elsewhere = { code: 'project_elsewhere', storage: (await there.read()).id };
      for (const node of from) {
        await expect(
          moving.withStore(node, async (store) => store.get(ref('before-0'))),
        ).rejects.toMatchObject(elsewhere);
        const late = moving.withStore(node, (store) => store.commit([put('late', '{}')]));
        await expect(late).rejects.toMatchObject(elsewhere);
      }

      await moving.withStore(await moving.node(isOut ? 'files' : 'rows'), async (store) => {
        for (const [id, rev] of acknowledged)
          expect([id, (await store.get(ref(id)))?.metadata._rev]).toEqual([id, rev]);
        const again = await store.commit([put('keyed', '{"v":"once"}')], once);
        expect(again[0]?.metadata?._rev).toBe((await store.get(ref('keyed')))?.metadata._rev);
        await store.commit([put('goes-on', '{}')]);
      });
    },
  );

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

  it('follows a rotation of the key during the copy', async () => {
    const node = await moving.node('rows');
    for (let n = 0; n < 20; n++) await moving.withStore(node, (store) => store.commit([put(`a${n}`, '{}')]));
    let isRotated = false;
    await moving.toFolder(undefined, {
      ...NOT_WATCHED,
      onCopied: () => {
        if (isRotated) return;
        isRotated = true;
        void moving.service.rotateKey(`${moving.project}-dek`, 1);
      },
    });
    await moving.withStore(await moving.node('files'), async (store) => {
      for (let n = 0; n < 20; n++) expect(await store.get(ref(`a${n}`))).toBeDefined();
    });
  });

  it("keeps the count of the key's seals, and refuses a forged count", async () => {
    const files = await moving.node('files');
    for (let n = 0; n < 20; n++) await moving.withStore(files, (store) => store.commit([put('a', '{}')]));
    await moving.toDatabase(files);
    await server.sql(
      `CREATE TABLE kept AS SELECT seals FROM bundoc.key_versions WHERE project = '${moving.project}';
       UPDATE bundoc.key_versions SET seals = '\\x0000000040000000' WHERE project = '${moving.project}'`,
      'bundoc',
    );
    await expect(moving.toFolder()).rejects.toMatchObject({ code: 'integrity_error' });
    const rows = await moving.node('rows');
    expect(await moving.withStore(rows, async (store) => store.get(ref('a')))).toBeDefined();
    await server.sql(
      `UPDATE bundoc.key_versions SET seals = kept.seals FROM kept WHERE project = '${moving.project}'; DROP TABLE kept`,
      'bundoc',
    );
    await moving.withStore(rows, (store) => store.commit([put('b', '{}')]));
    await moving.toFolder();
    const rest = await moving.withStore(await moving.node('files'), async (store) =>
      store.movable?.metadata(),
    );
    const [{ version, count } = { version: 0, count: 0 }] = rest?.seals ?? [];
    // At most the reservations of both.
    expect([version, count >= 21, count < 2 ** 22]).toEqual([1, true, true]);
  });

  it.each([['rows'], ['files']] as const)(
    'a move of a project from %s can go back and forth repeatedly, and each storage names the other in between',
    async (first) => {
      const second = first === 'rows' ? 'files' : 'rows';
      await moving.fill(first);
      for (const [from, to] of [
        [first, second],
        [second, first],
        [first, second],
        [second, first],
      ] as const) {
        await moving.moveFrom(from);
        expect([await moving.held(from), await moving.held(to)]).toEqual(['project_elsewhere', HELD]);
        const there = await moving.node(to);
        await moving.withStore(there, (store) => store.commit([put('a', `{"from":"${from}"}`)]));
        await there[Symbol.asyncDispose]();
      }
    },
  );

  it('a move of a project from PostgreSQL continues after a take-over that no node knows of', async () => {
    await moving.fill('rows');
    const { id } = await (await moving.identity('rows')).read();
    moving.service.takeOverStorage(id);
    const { takenOverMs } = moving.service.storages.get(id)!;
    await moving.toFolder();
    await moving.withStore(await moving.node('files'), async (store) => {
      await store.commit([put('a', '{}')]);
      expect(await store.position()).toBe(positionAt(takenOverMs) + 1);
      await expect(store.changes(1, 10)).rejects.toMatchObject({ code: 'position_gone' });
    });
  });

  it('lets the project be neither deleted nor listed at the former storage', async () => {
    await moving.fill('rows');
    await moving.toFolder();
    const rows = await moving.projects('rows', await moving.start('rows'));
    await expect(rows.exists(moving.project)).rejects.toMatchObject({ code: 'project_elsewhere' });
    expect(await rows.names('', 1_000)).not.toContain(moving.project);
    expect(await (await moving.projects('files', await moving.start('files'))).names('', 10)).toEqual([
      moving.project,
    ]);
  });

  it('a move of a project from PostgreSQL keeps the fence when the answer to its commit is lost', async () => {
    await moving.fill('rows');
    let unknown = 0;
    const answerless = new Proxy(database, {
      get: (target, name) => {
        if (name !== 'transaction')
          return Reflect.get(target, name).bind?.(target) ?? Reflect.get(target, name);
        const transaction: Database['transaction'] = async (begin, action) => {
          const result = await target.transaction(begin, action);
          if (typeof begin !== 'string' || !begin.includes('bundoc.heads')) return result;
          unknown++;
          throw new OutcomeUnknown();
        };
        return transaction;
      },
    });
    await moving.toFolder({ ...moving.ports, database: answerless });
    expect(unknown).toBe(1);
    expect([await moving.held('files'), await moving.held('rows')]).toEqual([HELD, 'project_elsewhere']);
  });

  it('a move of a project from PostgreSQL loses the fence through the server when the mover falls silent', async () => {
    await moving.fill('rows');
    const names = ['idle_in_transaction_session_timeout', 'tcp_keepalives_idle', 'tcp_user_timeout'];
    let bounds: unknown;
    const fence = fenceRows(database, moving.project, async (transaction) => {
      const list = names.map((name) => `'${name}'`).join();
      [bounds] = await transaction.run(
        `SELECT setting::int FROM pg_settings WHERE name IN (${list}) ORDER BY name`,
      );
      throw new Error('silent');
    });
    await expect(fence).rejects.toThrow('silent');
    expect(bounds).toEqual([[600_000], [10], [30_000]]);
    expect(await moving.held('rows')).toEqual(HELD);
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

  it.each(['files', 'rows'] as const)(
    'succeeds where someone has planted a deletion mark of the project (%s)',
    async (there) => {
      await moving.fill(there === 'files' ? 'rows' : 'files');
      await moving.identity('files');
      if (there === 'files') {
        mkdirSync(moving.directory, { recursive: true });
        writeFileSync(join(moving.directory, 'deleted.json'), 'no mark');
      } else {
        await server.sql(
          `INSERT INTO bundoc.projects (project, marker) VALUES ('${moving.project}', 'no mark')`,
          'bundoc',
        );
      }
      await moving.moveFrom(there === 'files' ? 'rows' : 'files');
      expect(await moving.held(there)).toEqual(HELD);
    },
  );

  it('is refused where a project with its id exists', async () => {
    await moving.fill('rows');
    await moving.identity('files');
    writeProject(moving.directory);
    await expect(moving.toFolder()).rejects.toThrow('there is a folder');
    expect(await moving.held('rows')).toEqual(HELD);
    expect(existsSync(join(moving.directory, 'move.mark'))).toBe(false);
  });

  it('is refused before anything happens when the target is an unused copy', async () => {
    await moving.fill('rows');
    const { id } = await (await moving.identity('files')).read();
    await moving.start('files');
    // Another copy of the folder was started since.
    moving.service.takeOverStorage(id, randomUUID());
    await expect(moving.toFolder()).rejects.toMatchObject({ code: 'storage_superseded' });
    expect(await moving.held('rows')).toEqual(HELD);
    expect(existsSync(moving.directory)).toBe(false);
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

function writeProject(directory: string): void {
  mkdirSync(directory, { recursive: true });
  writeFileSync(join(directory, 'project.json'), '{}');
}
