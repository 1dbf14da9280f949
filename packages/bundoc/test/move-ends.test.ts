import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { AppError } from '@bundoc/shared/errors';
import { createLogger } from '@bundoc/shared/logger';
import type { PostgresServer } from '@bundoc/shared/testing/postgres-server';
import { describeWithPostgres } from '@bundoc/shared/testing/postgres-tests';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { abandonToDatabase } from '../src/move/to-database.ts';
import { abandonToFolder } from '../src/move/to-folder.ts';
import type { RunningMove } from '../src/service/moves.ts';
import type { Connections, Database, Transaction } from '../src/storage/postgres/database.ts';
import { deleteContentRows } from '../src/storage/postgres/project-rows.ts';
import { CutShort, Moving, type Ports } from './support/moving.ts';
import { useDatabase } from './support/use-database.ts';

const HELD = ['a', 'b', 'c'];

describeWithPostgres('the end of a move', () => {
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
    moving = new Moving(database, `ends-${projects++}`);
  });
  afterEach(() => moving[Symbol.asyncDispose]());

  const places = async () => ({
    rows: await moving.held(moving.nodeOnRows()),
    files: await moving.held(moving.nodeOnFiles()),
  });
  const rowsOf = async (project: string) => {
    const tables = ['documents', 'collections', 'key_versions', 'used_keys', 'heads'];
    const counts = tables.map(
      (table) => `(SELECT count(*) FROM bundoc.${table} WHERE project = '${project}')`,
    );
    return Number(await server.sql(`SELECT ${counts.join(' + ')}`, 'bundoc'));
  };
  /** Tells of each statement of a transaction before it is made. */
  const watched = (onStatement: (text: string) => Promise<void>): Ports => ({
    disk: moving.disk,
    database: {
      query: (...args) => database.query(...args),
      run: (text) => database.run(text),
      transaction: (begin, action) =>
        database.transaction(begin, (transaction, begun) => {
          const query: Transaction['query'] = async (statement, values) => {
            await onStatement(statement.text);
            return transaction.query(statement, values);
          };
          return action({ ...transaction, query }, begun);
        }),
    },
  });
  /** Moves into the database as a service does that dies before one of its steps. @returns whether it did. */
  const diesOnTheWayIn = async (at: number): Promise<boolean> => {
    const node = moving.nodeOnFiles();
    await moving.fill(node);
    const steps = new CutShort(at);
    await moving.toDatabase(node, steps.ports(moving)).catch(() => undefined);
    await node[Symbol.asyncDispose]();
    return steps.isCut;
  };
  const diesOnTheWayOut = async (at: number): Promise<boolean> => {
    await moving.fill(moving.nodeOnRows());
    const steps = new CutShort(at);
    await moving.toFolder(steps.ports(moving)).catch(() => undefined);
    return steps.isCut;
  };

  it('is made by the service when it starts again, wherever the one before died once the project had changed hands', async () => {
    let resumed = 0;
    for (let at = 1; ; at++) {
      await moving.next(`dies-${at}`);
      const isCut = await diesOnTheWayIn(at);
      if (!isCut) break;
      const before = await places();
      const node = moving.nodeOnFiles();
      const moves = moving.moves(node);
      await moves.resume();
      const after = await places();
      if (before.files === undefined && before.rows === undefined) resumed++;
      if (before.files === undefined) {
        expect([at, after]).toEqual([at, { rows: HELD, files: undefined }]);
        expect(readdirSync(moving.directory)).toEqual(['move.json']);
      }
      // A move that has not changed hands is not one to be finished: somebody may want it, or give it up.
      else expect([at, after]).toEqual([at, before]);
    }
    expect(resumed, 'with the project in neither place').toBeGreaterThan(0);
  });

  it('is tried again while the database is away, by the service whose move it cut off', async () => {
    const node = moving.nodeOnFiles();
    await moving.fill(node);
    let isAway = false;
    const away = () => (isAway ? Promise.reject(new AppError('storage_unavailable')) : undefined);
    const ports: Ports = {
      disk: moving.disk,
      database: {
        query: async (...args) => (await away()) ?? database.query(...args),
        run: async (text) => (await away()) ?? database.run(text),
        transaction: async (...args) => (await away()) ?? database.transaction(...args),
      },
    };
    const moves = moving.moves(node, ports, {
      feed: {
        // When the project has changed hands.
        end: () => {
          isAway = existsSync(join(moving.directory, 'move.json'));
        },
      },
    });
    await expect((await moves.begin(moving.project)).outcome).rejects.toMatchObject({
      code: 'storage_unavailable',
    });
    await moves.resume();
    expect(await places()).toEqual({ rows: undefined, files: undefined });
    await expect(moves.abandon(moving.project)).rejects.toMatchObject({ code: 'move_refused' });
    isAway = false;
    await moves.resume();
    expect(await places()).toEqual({ rows: HELD, files: undefined });
    await moves.close();
  });

  it('is not made where the project was not brought, and what was in its folder stays', async () => {
    const file = () => readFileSync(join(moving.directory, 'project.json'), 'utf8');
    const node = moving.nodeOnFiles();
    await moving.fill(node);
    const cut: Connections = {
      run: (text) => database.run(text),
      transaction: (...args) => database.transaction(...args),
      query: async (statement, values) => {
        if (statement.text.startsWith('UPDATE bundoc.projects')) throw new AppError('storage_unavailable');
        return database.query(statement, values);
      },
    };
    await expect(moving.toDatabase(node, { disk: moving.disk, database: cut })).rejects.toThrow();
    await node[Symbol.asyncDispose]();
    expect(await places()).toEqual({ rows: undefined, files: undefined });
    const before = file();
    // Another project of the same id, in the database that the service is told to move to by now.
    await server.sql(`DELETE FROM bundoc.projects WHERE project = '${moving.project}'`, 'bundoc');
    await deleteContentRows(moving.project, (action) => database.transaction('', action));
    await moving.fill(moving.nodeOnRows());
    const errors: object[] = [];
    const logger = createLogger({ service: 'bundoc', level: 'silent' });
    logger.error = (fields: object) => void errors.push(fields);
    const moves = moving.moves(moving.nodeOnFiles(), undefined, { logger });
    await moves.resume();
    await moves.resume();
    expect(errors, 'said once').toHaveLength(1);
    expect(file()).toBe(before);
    await expect((await moves.begin(moving.project)).outcome).rejects.toMatchObject({ code: 'move_refused' });
  });

  it.each([['out of PostgreSQL'], ['into PostgreSQL']] as const)(
    '%s is where it was once it is given up, wherever move and giving up are cut short, unless it has changed hands',
    async (direction) => {
      const isOut = direction === 'out of PostgreSQL';
      const [here, there] = isOut ? (['rows', 'files'] as const) : (['files', 'rows'] as const);
      const dies = isOut ? diesOnTheWayOut : diesOnTheWayIn;
      const giveUp = (ports: Ports) => {
        const place = { project: moving.project, directory: moving.directory, ...ports };
        return isOut ? abandonToFolder(place) : abandonToDatabase(place);
      };
      const isWhereItWas = async (at: number) => {
        await giveUp({ database, disk: moving.disk });
        expect([at, await places()]).toEqual([at, { [here]: HELD, [there]: undefined }]);
        if (!isOut) expect([at, await rowsOf(moving.project)]).toEqual([at, 0]);
        else expect(contentOf(moving.directory)).toEqual([]);
      };
      let lastThatCan = 0;
      let refused = 0;
      for (let at = 1, isCut = true; isCut; at++) {
        await moving.next(`up-${here}-${at}`);
        isCut = await dies(at);
        const before = await places();
        if (before[here] !== undefined) {
          lastThatCan = at;
          await isWhereItWas(at);
          continue;
        }
        await expect(giveUp({ database, disk: moving.disk })).rejects.toThrow(
          /changed hands|finish the move/,
        );
        expect([at, await places()]).toEqual([at, before]);
        refused++;
      }
      expect(lastThatCan).toBeGreaterThan(10);
      expect(refused).toBeGreaterThan(1);

      let cuts = 0;
      for (let at = 1, isCut = true; isCut; at++, cuts++) {
        await moving.next(`cut-up-${here}-${at}`);
        await dies(lastThatCan);
        const steps = new CutShort(at);
        await giveUp(steps.ports(moving)).catch(() => undefined);
        isCut = steps.isCut;
        expect([at, await places()]).toEqual([at, { [here]: HELD, [there]: undefined }]);
        await isWhereItWas(at);
        await dies(lastThatCan);
        await isWhereItWas(at);
      }
      expect(cuts).toBeGreaterThan(5);
    },
  );

  it('stops the move that it gives up, or waits until that has changed hands and says so', async () => {
    for (const step of ['copying', 'switching'] as const) {
      await moving.next(`under-way-${step}`);
      const node = moving.nodeOnFiles();
      await moving.fill(node);
      const [reached, gate] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
      // Held where it goes: at the first copy, or at the last statement before it changes hands.
      const held = step === 'copying' ? 'INSERT INTO bundoc.documents' : 'greatest(seals';
      const ports = watched(async (text) => {
        if (!text.includes(held)) return;
        reached.resolve();
        await gate.promise;
      });
      const moves = moving.moves(node, ports);
      const move = await moves.begin(moving.project);
      await reached.promise;
      const givenUp = moves.abandon(moving.project);
      await expect(moves.abandon('none')).rejects.toMatchObject({ code: 'project_not_found' });
      await expect(moves.begin(moving.project)).rejects.toMatchObject({ code: 'rate_limited' });
      gate.resolve();
      if (step === 'copying') {
        await givenUp;
        await expect(move.outcome).rejects.toMatchObject({
          code: 'move_refused',
          detail: 'the move was given up',
        });
        await node[Symbol.asyncDispose]();
        expect(await places()).toEqual({ rows: undefined, files: HELD });
        expect(await rowsOf(moving.project)).toBe(0);
      } else {
        await expect(givenUp).rejects.toMatchObject({
          code: 'move_refused',
          detail: expect.stringContaining('changed hands'),
        });
        await move.outcome;
        expect(await places()).toEqual({ rows: HELD, files: undefined });
      }
      await moves.close();
      await expect(moves.abandon(moving.project)).rejects.toMatchObject({ code: 'overloaded' });
    }
  });

  it('of a project that is deleted on its way leaves nothing of it where it was to go', async () => {
    for (const step of ['copying', 'switching', 'stopped'] as const) {
      await moving.next(`deleted-${step}`);
      const node = moving.nodeOnFiles();
      await moving.fill(node);
      const { project } = moving;
      // As far as a deletion comes beside a move: while that holds the project, its users do not leave.
      const beginDeletion = () =>
        node.exclusively(project, async (close) => {
          const since = new Date().toISOString();
          if (step !== 'switching') await close();
          moving.service.destroy(`${project}-dek`);
          await moving.folders().remove(project, { deleted: project, format: 1, since });
        });
      const begun = Promise.withResolvers<RunningMove>();
      let isReached = false;
      const at = step === 'switching' ? 'greatest(seals' : 'INSERT INTO bundoc.documents';
      const ports = watched(async (text) => {
        if (isReached || !text.includes(at)) return;
        isReached = true;
        if (step === 'stopped') (await begun.promise).stop(new AppError('overloaded'));
        else await beginDeletion();
      });
      const moves = moving.moves(node, ports);
      const move = await moves.begin(project);
      begun.resolve(move);
      if (step === 'stopped') {
        await expect(move.outcome).rejects.toMatchObject({ code: 'overloaded' });
        expect(await rowsOf(project)).toBeGreaterThan(0);
        await beginDeletion();
        await moves.abandon(project);
      } else await expect(move.outcome).rejects.toMatchObject({ code: 'project_destroyed' });
      expect([step, isReached, await rowsOf(project)]).toEqual([step, true, 0]);
      expect(readdirSync(moving.directory)).not.toContain('move.json');
      await moves.close();
    }
  });
});

/** What is in a project's folder beside a mark, and where one was written. */
function contentOf(directory: string): readonly string[] {
  if (!existsSync(directory)) return [];
  return readdirSync(directory).filter((name) => name !== 'move.json' && name !== 'tmp');
}
