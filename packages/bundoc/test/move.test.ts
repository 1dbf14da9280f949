import { readdirSync } from 'node:fs';
import { setImmediate } from 'node:timers/promises';
import { AppError, hasCode } from '@bundoc/shared/errors';
import { describeWithPostgres } from '@bundoc/shared/testing/postgres-tests';
import { afterEach, beforeEach, expect, it } from 'vitest';
import type { MoveWatch } from '../src/move/move-project.ts';
import type { InstanceManager } from '../src/project/instance-manager.ts';
import { put, ref, remove } from '../src/storage/conformance.ts';
import { type Connections, type Database, OutcomeUnknown } from '../src/storage/postgres/database.ts';
import { CutShort, Moving, NOT_WATCHED } from './support/moving.ts';
import { useDatabase } from './support/use-database.ts';

describeWithPostgres('a project that is moved', () => {
  let database: Database;
  let moving: Moving;
  let projects = 0;
  useDatabase(
    (used) => {
      ({ database } = used);
    },
    { connectionsMax: 20 },
  );
  beforeEach(() => {
    moving = new Moving(database, `moved-${projects++}`);
  });
  afterEach(() => moving[Symbol.asyncDispose]());

  it.each([['out of PostgreSQL'], ['into PostgreSQL']] as const)(
    '%s is written to and read until it changes hands: nothing acknowledged is missing where it is then',
    async (direction) => {
      const isOut = direction === 'out of PostgreSQL';
      const from = isOut ? [moving.nodeOnRows(), moving.nodeOnRows()] : [moving.nodeOnFiles()];
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
      for (let n = 0; n < 60; n++) await write(from[0] as InstanceManager, `before-${n}`, false);
      await moving.withStore(from[0] as InstanceManager, (store) =>
        store.commit([put('keyed', '{"v":"once"}')], {
          idempotency: { key: 'a'.repeat(32), request: 'b'.repeat(32) },
        }),
      );

      const writer = async (worker: number) => {
        for (let step = 0; !isMoved; step++) {
          await setImmediate();
          const node = from[step % from.length] as InstanceManager;
          // Of each worker alone, so that what was answered last is what there must be.
          const id = `w${worker}-${step % 8}`;
          try {
            await write(node, id, step % 5 === 4 && acknowledged.get(id) !== undefined);
          } catch (error) {
            if (hasCode(error, 'project_moved')) return;
            // Not written, or not known to be: it is told to come back.
            if (hasCode(error, 'storage_unavailable')) acknowledged.delete(id);
            else if (!hasCode(error, 'project_moving', 'overloaded')) unexpected.push(error);
          }
        }
      };
      const reader = async (node: InstanceManager) => {
        while (!isMoved) {
          await setImmediate();
          try {
            const read = await moving.withStore(node, (store) => store.get(ref(`before-${reads % 60}`)));
            if (read === undefined) unexpected.push(`before-${reads % 60} was not there`);
            reads++;
          } catch (error) {
            if (hasCode(error, 'project_moved')) return;
            if (!hasCode(error, 'storage_unavailable')) unexpected.push(error);
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
      else await moving.toDatabase(from[0] as InstanceManager, undefined, watch);
      isMoved = true;
      await Promise.all(busy);
      expect(unexpected).toEqual([]);
      expect(during, 'written while it was copied').toBeGreaterThan(60);
      expect(reads).toBeGreaterThan(0);
      for (const node of from) {
        await expect(moving.withStore(node, (store) => store.get(ref('before-0')))).rejects.toMatchObject({
          code: 'project_moved',
        });
        await expect(
          moving.withStore(node, (store) => store.commit([put('late', '{}')])),
        ).rejects.toMatchObject({
          code: 'project_moved',
        });
      }

      const there = isOut ? moving.nodeOnFiles() : moving.nodeOnRows();
      await moving.withStore(there, async (store) => {
        for (const [id, rev] of acknowledged)
          expect([id, (await store.get(ref(id)))?.metadata._rev]).toEqual([id, rev]);
        const again = await store.commit([put('keyed', '{"v":"once"}')], {
          idempotency: { key: 'a'.repeat(32), request: 'b'.repeat(32) },
        });
        expect(again[0]?.metadata?._rev).toBe((await store.get(ref('keyed')))?.metadata._rev);
        await store.commit([put('goes-on', '{}')]);
      });
    },
  );

  it('follows a rotation of its key that comes while it is copied', async () => {
    const node = moving.nodeOnRows();
    for (let n = 0; n < 20; n++) await moving.withStore(node, (store) => store.commit([put(`a${n}`, '{}')]));
    let isRotated = false;
    await moving.toFolder(undefined, {
      ...NOT_WATCHED,
      onVerified: () => undefined,
      onCopied: () => {
        if (isRotated) return;
        isRotated = true;
        void moving.service.rotateKey(`${moving.project}-dek`, 1);
      },
    });
    const there = moving.nodeOnFiles();
    await moving.withStore(there, async (store) => {
      for (let n = 0; n < 20; n++) expect(await store.get(ref(`a${n}`))).toBeDefined();
    });
  });

  it('is not deleted where it is not: its key would be destroyed', async () => {
    await moving.withStore(moving.nodeOnRows(), (store) => store.commit([put('a', '{}')]));
    await moving.toFolder();
    const rows = moving.rows();
    await expect(rows.exists(moving.project)).rejects.toMatchObject({ code: 'project_moved' });
    expect(await rows.names('', 1_000)).not.toContain(moving.project);
    expect(await moving.folders().names('', 10)).toEqual([moving.project]);
  });

  it.each([['out of PostgreSQL'], ['into PostgreSQL']] as const)(
    '%s is in one place alone wherever the move is cut short, and gets there when it is begun again',
    async (direction) => {
      const isOut = direction === 'out of PostgreSQL';
      let cut = 0;
      for (let at = 1; ; at++) {
        await moving.next(`cut-${isOut ? 'out' : 'in'}-${at}`);
        const steps = new CutShort(at);
        const source = isOut ? moving.nodeOnRows() : moving.nodeOnFiles();
        await moving.fill(source);
        const ports = steps.ports(moving);
        const outcome = await (isOut ? moving.toFolder(ports) : moving.toDatabase(source, ports)).catch(
          (error: unknown) => error,
        );
        await source[Symbol.asyncDispose]();
        const places = [await moving.held(moving.nodeOnRows()), await moving.held(moving.nodeOnFiles())];
        const serving = places.filter((place) => place !== undefined);
        expect([at, serving.length <= 1]).toEqual([at, true]);
        for (const place of serving) expect([at, place]).toEqual([at, ['a', 'b', 'c']]);
        if (steps.isCut) {
          cut++;
          expect(outcome).toBeInstanceOf(Error);
          const again = moving.nodeOnFiles();
          await (isOut ? moving.toFolder() : moving.toDatabase(again));
          await again[Symbol.asyncDispose]();
        } else expect(outcome).not.toBeInstanceOf(Error);
        expect([at, await moving.held(isOut ? moving.nodeOnFiles() : moving.nodeOnRows())]).toEqual([
          at,
          ['a', 'b', 'c'],
        ]);
        expect([at, await moving.held(isOut ? moving.nodeOnRows() : moving.nodeOnFiles())]).toEqual([
          at,
          undefined,
        ]);
        if (!steps.isCut) break;
      }
      expect(cut).toBeGreaterThan(15);
    },
  );

  it('out of PostgreSQL changes hands once, though the commit that it does by is not answered', async () => {
    await moving.fill(moving.nodeOnRows());
    let unknown = 0;
    const answerless: Connections = {
      query: (...args) => database.query(...args),
      run: (text) => database.run(text),
      transaction: async (begin, action) => {
        const result = await database.transaction(begin, action);
        if (!begin.includes('bundoc.heads')) return result;
        unknown++;
        throw new OutcomeUnknown();
      },
    };
    await moving.toFolder({ database: answerless, disk: moving.disk });
    expect(unknown).toBe(1);
    expect(await moving.held(moving.nodeOnFiles())).toEqual(['a', 'b', 'c']);
    expect(await moving.held(moving.nodeOnRows())).toBeUndefined();
  });

  it('by a service stops when it is told to, is made once at a time, goes on, and answers the same when it is over', async () => {
    const node = moving.nodeOnFiles();
    await moving.fill(node);
    const gate = Promise.withResolvers<void>();
    const ended: string[] = [];
    const moves = moving.moves(node, undefined, {
      feed: { end: (of) => void ended.push(of) },
      open: () => gate.promise,
    });
    await expect(moves.begin('none')).rejects.toMatchObject({ code: 'project_not_found' });
    const first = await moves.begin(moving.project);
    await expect(moves.begin(moving.project)).rejects.toMatchObject({ code: 'rate_limited' });
    expect(first.progress).toEqual({ step: 'copying', documents: 0, of: 0 });
    first.stop(new AppError('overloaded'));
    gate.resolve();
    await expect(first.outcome).rejects.toMatchObject({ code: 'overloaded' });
    await moving.withStore(node, (store) => store.commit([put('c', '{"after":"it stopped"}')]));
    expect(ended).toEqual([]);

    const moved = await (await moves.begin(moving.project)).outcome;
    expect(moved).toEqual({ to: 'there', kept: expect.stringContaining(`${moving.project}-`) });
    expect(ended).toEqual([moving.project]);
    expect(await (await moves.begin(moving.project)).outcome).toEqual(moved);
    await moves.close();
    await expect(moves.begin(moving.project)).rejects.toMatchObject({ code: 'overloaded' });
    expect(await moving.held(moving.nodeOnFiles())).toBeUndefined();
    expect(await moving.held(moving.nodeOnRows())).toEqual(['a', 'b', 'c']);
  });

  it('is refused where there is one of its id, and where it was deleted', async () => {
    await moving.fill(moving.nodeOnFiles());
    await moving.fill(moving.nodeOnRows());
    await expect(moving.toFolder()).rejects.toThrow('there is a folder');
    await expect(moving.toDatabase(moving.nodeOnFiles())).rejects.toThrow('is in the database already');
    expect(readdirSync(moving.directory)).not.toContain('move.json');
  });
});
