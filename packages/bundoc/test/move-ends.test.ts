import { randomInt, randomUUID } from 'node:crypto';
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { AppError } from '@bundoc/shared/contract/app-error';
import { deriveKey } from '@bundoc/shared/crypto/aead';
import { systemClock } from '@bundoc/shared/runtime/clock';
import { createLogger } from '@bundoc/shared/runtime/logger';
import type { PostgresServer } from '@bundoc/shared/testing/postgres-server';
import { describeWithPostgres } from '@bundoc/shared/testing/postgres-tests';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { MARK_KEY, type MoveMark, openMoveMark, sealMoveMark } from '../src/engine/move-mark.ts';
import type { ProjectStore } from '../src/engine/port.ts';
import type { Database } from '../src/engine/postgres/database/database.ts';
import { StorageGeneration } from '../src/engine/storage-generation.ts';
import type { StorageCalls } from '../src/kms/port.ts';
import { put, ref } from '../src/testing/writes.ts';
import { type Cut, CutShort, HELD, Moving, type Place } from './support/moving.ts';
import { useDatabase } from './support/use-database.ts';

const OTHER = { rows: 'files', files: 'rows' } as const;

describeWithPostgres('a move with obstacles', () => {
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

  const markOf = async (place: Place): Promise<string | undefined> => {
    if (place === 'files') {
      const path = join(moving.directory, 'move.mark');
      return existsSync(path) ? readFileSync(path, 'utf8') : undefined;
    }
    const of = `WHERE project = '${moving.project}'`;
    return (await server.sql(`SELECT marker FROM bundoc.projects ${of}`, 'bundoc')) || undefined;
  };
  const setMark = async (place: Place, mark: string): Promise<void> => {
    if (place === 'files') writeFileSync(join(moving.directory, 'move.mark'), mark);
    else {
      const of = `WHERE project = '${moving.project}'`;
      await server.sql(`UPDATE bundoc.projects SET marker = '${mark}' ${of}`, 'bundoc');
    }
  };
  /** The mark of the same move in another state. */
  const resealed = async (text: string, state: MoveMark['state']): Promise<string> => {
    const { project, service } = moving;
    const key = deriveKey((await service.exportKey(`${project}-dek`)).dek, MARK_KEY);
    const mark = (await openMoveMark(project, text, async () => key)) as MoveMark;
    return sealMoveMark(project, { version: 1, subkey: () => key } as never, { ...mark, state });
  };
  /** BunKMS with another behaviour for one call. */
  const withCall = <Name extends keyof StorageCalls>(name: Name, call: StorageCalls[Name]): StorageCalls =>
    new Proxy<StorageCalls>(moving.service, {
      get: (target, key) => {
        if (key === name) return call;
        const value: unknown = Reflect.get(target, key);
        return typeof value === 'function' ? value.bind(target) : value;
      },
    });

  const isLong = process.env['LONG_TESTS'] === '1';
  const cuts: Cut[] = ['dead before it', 'dead after it', 'BunKMS away before it', 'BunKMS away after it'];
  it.each((['rows', 'files'] as const).flatMap((place) => cuts.map((cut) => [place, cut] as const)))(
    'from %s interrupted at any step (%s) leaves the project complete in one place, and succeeds when it is repeated',
    async (place, cut) => {
      // A step at which a process dies takes seconds, so each run tests a quarter of them.
      const stride = isLong || cut.startsWith('BunKMS') ? 1 : 4;
      const first = randomInt(1, stride + 1);
      process.stdout.write(`moves from ${place}, ${cut}: each ${stride}th step from ${first}\n`);
      let [count, moved] = [0, 0];
      for (let at = first, isCut = true; isCut; at += stride) {
        await moving.next(`cut-${place}-${cuts.indexOf(cut)}-${at}`);
        await moving.fill(place);
        const steps = new CutShort(at, cut);
        await moving.moveFrom(place, steps.ports(moving.ports)).catch(() => undefined);
        isCut = steps.isCut;
        const places = [await moving.held(place), await moving.held(OTHER[place])];
        const serving = places.filter((held) => typeof held !== 'string');
        expect([at, places, serving]).toEqual([at, places, [HELD]]);
        if (typeof places[1] !== 'string') moved++;
        if (!isCut) break;
        count++;
        await moving.moveFrom(place);
        const after = [await moving.held(place), await moving.held(OTHER[place])];
        expect([at, after]).toEqual([at, ['project_elsewhere', HELD]]);
        if (place === 'files') expect(readdirSync(moving.directory)).toEqual(['move.mark']);
      }
      expect(count * stride).toBeGreaterThan(cut.startsWith('BunKMS') ? 4 : 20);
      expect(moved, 'that took effect all the same').toBeGreaterThan(0);
    },
  );

  it.each([['rows'], ['files']] as const)(
    'from %s keeps the fence while BunKMS does not say who holds the key, and allows writes again once it does',
    async (place) => {
      await moving.fill(place);
      let isAway = false;
      const away = new Proxy<StorageCalls>(moving.service, {
        get: (target, key) => {
          if (key === 'acceptKey') isAway = true;
          const value: unknown = Reflect.get(target, key);
          if (typeof value !== 'function') return value;
          return (...args: unknown[]) =>
            isAway ? Promise.reject(new AppError('kms_unavailable')) : Reflect.apply(value, target, args);
        },
      });
      const ports = { ...moving.ports, calls: away };
      await expect(moving.moveFrom(place, ports)).rejects.toMatchObject({ code: 'kms_unavailable' });
      const storage = await moving.start(place);
      moving.service.failure = new AppError('kms_unavailable');
      const write = async () => {
        const node = await moving.node(place, storage);
        await moving.withStore(node, (store) => store.commit([put('a', '{"again":1}')]));
      };
      await expect(write()).rejects.toMatchObject({ code: 'kms_unavailable' });
      // The key is available, but the outcome of the offer is unknown.
      moving.service.failure = undefined;
      const advance = vi.spyOn(moving.service, 'advanceStorage');
      advance.mockRejectedValue(new AppError('kms_unavailable'));
      await expect(write()).rejects.toMatchObject({ code: 'project_moving' });
      expect(await markOf(place)).toBeDefined();
      advance.mockRestore();
      await write();
      expect(await markOf(place)).toBeUndefined();
      expect(await moving.held(OTHER[place])).toBe('project_elsewhere');
    },
  );

  it.each([['rows'], ['files']] as const)(
    'from %s refuses an acceptance that arrives after the source has allowed writes again',
    async (place) => {
      await moving.fill(place);
      let late: (() => Promise<void>) | undefined;
      const calls = withCall('acceptKey', async (...args) => {
        late = () => moving.service.acceptKey(...args);
        throw new AppError('kms_unavailable');
      });
      await expect(moving.moveFrom(place, { ...moving.ports, calls })).rejects.toMatchObject({
        code: 'kms_unavailable',
      });
      expect(await moving.held(place)).toEqual(HELD);
      await expect(late?.()).rejects.toMatchObject({ code: 'key_not_offered' });
      expect([await moving.held(place), await moving.held(OTHER[place])]).toEqual([
        HELD,
        'project_not_found',
      ]);
    },
  );

  it.each([['rows'], ['files']] as const)(
    'from %s refuses an offer that arrives after the source has allowed writes again',
    async (place) => {
      await moving.fill(place);
      let late: (() => Promise<void>) | undefined;
      const calls = withCall('offerKey', async (...args) => {
        late = () => moving.service.offerKey(...args);
        throw new AppError('kms_unavailable');
      });
      await expect(moving.moveFrom(place, { ...moving.ports, calls })).rejects.toMatchObject({
        code: 'kms_unavailable',
      });
      expect(await moving.held(place)).toEqual(HELD);
      await expect(late?.()).rejects.toMatchObject({ code: 'storage_superseded' });
    },
  );

  it.each([['rows'], ['files']] as const)(
    "from %s ends at once for the project's users when BunKMS refuses the acceptance",
    async (place) => {
      await moving.fill(place);
      const calls = withCall('acceptKey', () => Promise.reject(new AppError('key_not_offered')));
      await expect(moving.moveFrom(place, { ...moving.ports, calls })).rejects.toMatchObject({
        code: 'key_not_offered',
      });
      expect(await markOf(place)).toBeUndefined();
      // On a node that would wait for a running move.
      const node = await moving.node(place, undefined, systemClock);
      await moving.withStore(node, (store) => store.commit([put('a', '{"again":1}')]));
    },
  );

  it.each([['rows'], ['files']] as const)(
    'from %s is not disturbed by users of the project during the cut-over',
    async (place) => {
      await moving.fill(place);
      const seen: unknown[] = [];
      const calls = withCall('acceptKey', async (...args) => {
        const node = await moving.node(place, undefined, systemClock, false);
        // A start advances the generation, and so ends the offer.
        await moving.service.offerKey(args[0], args[2].storage, args[1], currentOf(place));
        await node.acquire(moving.project, 'existing').catch((error: AppError) => seen.push(error.code));
        await moving.service.acceptKey(...args);
      });
      const currentOf = (of: Place) => {
        const id = ids[of];
        return { storage: id, generation: moving.service.storages.get(id)?.generation ?? '' };
      };
      const ids = {
        rows: (await (await moving.identity('rows')).read()).id,
        files: (await (await moving.identity('files')).read()).id,
      };
      await moving.moveFrom(place, { ...moving.ports, calls });
      expect(seen).toEqual(['project_moving']);
      expect([await moving.held(place), await moving.held(OTHER[place])]).toEqual([
        'project_elsewhere',
        HELD,
      ]);
    },
  );

  it.each([['rows'], ['files']] as const)(
    'from %s succeeds when other nodes advance the database during the copy',
    async (place) => {
      await moving.fill(place);
      let nodes = 0;
      const another = async <T>(answer: T): Promise<T> => {
        if (nodes++ < 4) await moving.start('rows');
        return answer;
      };
      const calls =
        place === 'rows'
          ? withCall('exportKey', async (...args) => another(await moving.service.exportKey(...args)))
          : withCall('advanceStorage', async (...args) =>
              another(await moving.service.advanceStorage(...args)),
            );
      await moving.moveFrom(place, { ...moving.ports, calls });
      expect(nodes).toBeGreaterThan(2);
      expect([await moving.held(place), await moving.held(OTHER[place])]).toEqual([
        'project_elsewhere',
        HELD,
      ]);
    },
  );

  it.each([['rows'], ['files']] as const)(
    'from %s succeeds beside a node that advances the database at every step, and that node continues',
    async (place) => {
      await moving.fill(place);
      const identity = await moving.identity('rows');
      const { id } = await identity.read();
      const [confirmed, superseded] = [vi.fn(), vi.fn()];
      await using node = new StorageGeneration({
        ...{ id, identity, calls: moving.service, isUp: async () => true },
        ...{ logger: createLogger({ service: 'bundoc', level: 'silent' }) },
        ...{ onConfirmed: confirmed, onSuperseded: superseded },
      });
      await node.start();
      let advances = 0;
      const advance = async <T>(answer: T): Promise<T> => {
        if (advances++ < 4) await node.advance();
        return answer;
      };
      const { service } = moving;
      // An advance of the source invalidates its offer, so there it comes before.
      const ofRows: Partial<StorageCalls> = {
        exportKey: async (...args) => advance(await service.exportKey(...args)),
      };
      const ofFiles: Partial<StorageCalls> = {
        advanceStorage: async (...args) => advance(await service.advanceStorage(...args)),
        offerKey: async (...args) => {
          await service.offerKey(...args);
          await node.advance();
        },
      };
      const hooks = place === 'rows' ? ofRows : ofFiles;
      const calls = new Proxy<StorageCalls>(service, {
        get: (target, key) => {
          const value: unknown = Reflect.get(hooks, key) ?? Reflect.get(target, key);
          return typeof value === 'function' ? value.bind(target) : value;
        },
      });
      await moving.moveFrom(place, { ...moving.ports, calls });
      expect(advances).toBeGreaterThan(2);
      await node.advance();
      expect([node.state, confirmed.mock.calls.length, superseded.mock.calls.length]).toEqual([
        ...['confirmed', 1, 0],
      ]);
      expect([await moving.held(place), await moving.held(OTHER[place])]).toEqual([
        'project_elsewhere',
        HELD,
      ]);
    },
  );

  it('from files succeeds when another node advances the database between the offer and the acceptance', async () => {
    await moving.fill('files');
    const calls = withCall('offerKey', async (...args) => {
      await moving.service.offerKey(...args);
      await moving.start('rows');
    });
    await moving.moveFrom('files', { ...moving.ports, calls });
    expect([await moving.held('files'), await moving.held('rows')]).toEqual(['project_elsewhere', HELD]);
  });

  it('from files fails when another copy of the database took over before the acceptance', async () => {
    await moving.fill('files');
    const { id } = await (await moving.identity('rows')).read();
    const calls = withCall('offerKey', async (...args) => {
      await moving.service.offerKey(...args);
      moving.service.takeOverStorage(id, randomUUID());
    });
    await expect(moving.moveFrom('files', { ...moving.ports, calls })).rejects.toMatchObject({
      code: 'storage_superseded',
    });
    expect(await moving.held('files')).toEqual(HELD);
  });

  it.each([['rows'], ['files']] as const)(
    "from %s keeps the source's content while the target's project is incomplete",
    async (place) => {
      await moving.fill(place);
      const calls = withCall('acceptKey', async (...args) => {
        await moving.service.acceptKey(...args);
        moving.service.failure = new AppError('kms_unavailable');
        throw moving.service.failure;
      });
      await expect(moving.moveFrom(place, { ...moving.ports, calls })).rejects.toMatchObject({
        code: 'kms_unavailable',
      });
      moving.service.failure = undefined;
      const [leaving, whole] = [await markOf(place), (await markOf(OTHER[place])) as string];
      // The target before the last bytes arrived.
      await setMark(OTHER[place], await resealed(whole, 'incoming'));
      await expect(moving.moveFrom(place)).rejects.toThrow('does not have it whole');
      expect(await markOf(place)).toBe(leaving);
      await setMark(OTHER[place], whole);
      await moving.moveFrom(place);
      expect([await moving.held(place), await moving.held(OTHER[place])]).toEqual([
        'project_elsewhere',
        HELD,
      ]);
    },
  );

  it.each([
    ['rows', 'a text'],
    ['rows', `bundoc-move-mark-1.${Buffer.alloc(200, 1).toString('base64url')}`],
    ['files', 'a text'],
    ['files', `bundoc-move-mark-1.${Buffer.alloc(200, 1).toString('base64url')}`],
    ['files', 'x'.repeat(5_000)],
  ] as const)(
    'leaves no room for forged marks: in %s, one is set aside, and the project is served',
    async (place, mark) => {
      // A text without the prefix of a move mark counts as a deletion mark.
      await moving.fill(place);
      await setMark(place, mark);
      expect(await moving.held(place)).toEqual(HELD);
      expect(await markOf(place)).toBeUndefined();
      expect(moving.setAside).toMatchObject([{ project: moving.project }]);
      if (place === 'files') expect(readdirSync(join(moving.folder, 'set-aside'))).toHaveLength(1);
      expect(moving.service.changes.map(({ kind }) => kind)).toEqual(['create']);
    },
  );

  it.each([['rows'], ['files']] as const)(
    'from %s sets aside forged marks at the target that claim a deletion or a project',
    async (place) => {
      await moving.fill(place);
      const other = await moving.identity(OTHER[place]);
      await other.read();
      const since = new Date().toISOString();
      const deleted = JSON.stringify({ deleted: moving.project, format: 1, since });
      if (place === 'files') {
        const of = `('${moving.project}', '${deleted}')`;
        await server.sql(`INSERT INTO bundoc.projects (project, marker) VALUES ${of}`, 'bundoc');
      } else {
        mkdirSync(moving.directory, { recursive: true });
        writeFileSync(join(moving.directory, 'deleted.json'), deleted);
        writeFileSync(join(moving.directory, 'move.mark'), 'a text');
      }
      await moving.moveFrom(place);
      expect(await moving.held(OTHER[place])).toEqual(HELD);
      expect(moving.setAside).toHaveLength(place === 'files' ? 1 : 2);
    },
  );

  it.each([
    ['rows', 'incoming'],
    ['rows', 'moved'],
    ['files', 'incoming'],
    ['files', 'moved'],
  ] as const)(
    'leaves in %s a mark "%s" whose project can be deleted there once BunKMS names that storage',
    async (place, state) => {
      const first = state === 'moved' ? place : OTHER[place];
      await moving.fill(first);
      await moving.moveFrom(first);
      if (state === 'incoming') {
        await moving.moveFrom(place);
        await setMark(place, await resealed((await markOf(place)) as string, state));
      }
      const exists = async () => {
        const projects = await moving.projects(place, await moving.start(place));
        return projects.exists(moving.project);
      };
      await expect(exists()).rejects.toMatchObject({ code: 'project_elsewhere' });
      const { id } = await (await moving.identity(place)).read();
      moving.service.takeOverKey(`${moving.project}-dek`, id);
      expect(await exists()).toBe(true);
      // A deletion that was interrupted after the key was destroyed.
      moving.service.destroy(`${moving.project}-dek`);
      expect(await exists()).toBe(true);
      const projects = await moving.projects(place, await moving.start(place));
      await projects.remove(moving.project, {
        ...{ deleted: moving.project, format: 1, since: new Date().toISOString() },
      });
      expect(await exists()).toBe(false);
      expect(await moving.held(place)).toBe('project_destroyed');
    },
  );

  it('does not accept the mark of another project', async () => {
    await moving.fill('files');
    const [first, directory] = [moving.project, moving.directory];
    await moving.moveFrom('files');
    await moving.next(`${first}-other`);
    await moving.fill('files');
    copyFileSync(join(directory, 'move.mark'), join(moving.directory, 'move.mark'));
    expect(await moving.held('files')).toEqual(HELD);
    expect(moving.setAside).toMatchObject([{ project: moving.project }]);
  });

  it.each([['rows'], ['files']] as const)(
    'obeys an authentic mark of an earlier move in %s, although BunKMS names this storage: requests are refused, and nothing is created',
    async (place) => {
      await moving.fill(place);
      await moving.moveFrom(place);
      const mark = (await markOf(place)) as string;
      const there = (await (await moving.identity(OTHER[place])).read()).id;
      // BunKMS was restored from before the move.
      const here = (await (await moving.identity(place)).read()).id;
      moving.service.takeOverKey(`${moving.project}-dek`, here);
      const node = await moving.node(place);
      for (const mode of ['existing', 'create'] as const)
        await expect(node.acquire(moving.project, mode as 'create')).rejects.toMatchObject({
          ...{ code: 'project_elsewhere', storage: there },
        });
      expect(await markOf(place)).toBe(mark);
      moving.service.takeOverKey(`${moving.project}-dek`, there);
      expect(await moving.held(OTHER[place])).toEqual(HELD);
      // The project has come back since, and someone restores the mark.
      await moving.moveFrom(OTHER[place]);
      expect(await moving.held(place)).toEqual(HELD);
      await setMark(place, mark);
      expect(await moving.held(place)).toBe('project_elsewhere');
    },
  );

  it('does not let a target serve with an old key until BunKMS names it', async () => {
    await moving.fill('rows');
    const [rows, files] = [await moving.start('rows'), await moving.start('files')];
    const node = await moving.node('rows', rows);
    await moving.withStore(node, (store) => store.commit([put('a', '{"from":"rows"}')]));
    await moving.moveFrom('rows');
    // The node has missed it, and still has the key.
    const refused: unknown[] = [];
    const calls = withCall('acceptKey', async (...args) => {
      for (const use of [
        async (store: ProjectStore): Promise<unknown> => store.get(ref('a')),
        (store: ProjectStore): Promise<unknown> => store.commit([put('a', '{"from":"a node of before"}')]),
      ])
        await moving.withStore(node, use).catch((error: AppError) => refused.push(error.code));
      await moving.service.acceptKey(...args);
    });
    await moving.moveFrom('files', { ...moving.ports, calls });
    expect(refused).toEqual(['project_moving', 'project_elsewhere']);
    expect(await moving.held('rows')).toEqual(HELD);
    expect(files.id).not.toBe(rows.id);
  });

  it('leaves content without a holder to an administrator', async () => {
    await moving.fill('files');
    const standing = moving.service.standings.get(`${moving.project}-dek`);
    if (standing !== undefined) standing.holder = undefined;
    await setMark('files', `bundoc-move-mark-1.${randomUUID()}`);
    expect(await moving.held('files')).toBe('project_unclaimed');
    expect(await markOf('files')).toBeDefined();
  });
});
