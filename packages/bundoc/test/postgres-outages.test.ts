import { systemClock } from '@bundoc/shared/runtime/clock';
import { needs } from '@bundoc/shared/testing/programs';
import { describe, expect, it } from 'vitest';
import { openTestDatabase } from '../src/testing/postgres-project.ts';
import { commitOne, put, ref } from '../src/testing/writes.ts';
import { COMMIT_MESSAGE, CuttingProxy } from './support/cutting-proxy.ts';
import {
  database,
  newProject,
  refuseWrites,
  server,
  textOf,
  usePostgresEngine,
} from './support/postgres-engine.ts';

describe('PostgreSQL in an outage', needs('postgresql'), () => {
  usePostgresEngine();

  describe('a connection that breaks during the acknowledgement of a commit', () => {
    for (const cut of ['before the request', 'before the answer'] as const)
      it(`results in one write, whether it took effect or not (${cut})`, async () => {
        const project = await newProject();
        await using proxy = await CuttingProxy.open(server.port);
        await using behind = openTestDatabase(server.urlOf('bundoc', proxy.port));
        const store = await project.open(behind);
        await commitOne(store, put('other', '{}'));
        proxy.cutAt(COMMIT_MESSAGE, cut);
        const [first, second] = await Promise.all([
          commitOne(store, put('a', '{"v":1}', { kind: 'absent' })),
          commitOne(store, put('b', '{"v":2}', { kind: 'absent' })),
        ]);
        expect(proxy.cuts).toBe(1);
        expect([first.created, second.created]).toEqual([true, true]);
        expect((await store.get(ref('a')))?.metadata).toEqual(first.metadata);
        const { changes, position } = await store.changes(0, 10);
        expect(changes.map(({ ref: { id } }) => id)).toEqual(['other', 'a', 'b']);
        expect(position).toBe(3);
        await store[Symbol.asyncDispose]();
      });

    it('results in one write when it breaks before the commit', async () => {
      const project = await newProject();
      await using proxy = await CuttingProxy.open(server.port);
      await using behind = openTestDatabase(server.urlOf('bundoc', proxy.port));
      const store = await project.open(behind);
      proxy.cutAt('bundoc-write-group', 'before the answer');
      await commitOne(store, put('a', '{}', { kind: 'absent' }));
      expect(proxy.cuts).toBe(1);
      proxy.cutAt('bundoc-lock-heads', 'before the request');
      await commitOne(store, put('a', '{}', { kind: 'present' }));
      expect((await store.changes(0, 10)).changes).toHaveLength(1);
      await store[Symbol.asyncDispose]();
    });
  });

  it('is reported as unavailable, with a time to retry, while nothing answers', async () => {
    const project = await newProject();
    let nowMs = 1_000;
    const clock = { ...systemClock, monotonic: () => (nowMs += 2_000), now: () => (nowMs += 2_000) };
    await using proxy = await CuttingProxy.open(server.port);
    const behind = openTestDatabase(server.urlOf('bundoc', proxy.port));
    const impatient = Object.assign(project, { clock });
    const store = await impatient.open(behind);
    await proxy[Symbol.asyncDispose]();
    const refused = { code: 'storage_unavailable', retryAfterS: 1 };
    await expect(commitOne(store, put('a', '{}'))).rejects.toMatchObject(refused);
    await expect(store.get(ref('a'))).rejects.toMatchObject(refused);
    await store[Symbol.asyncDispose]();
    await behind[Symbol.asyncDispose]();
  });

  it('reports a full disk, and changes nothing', async () => {
    const project = await newProject();
    const store = await project.open(database);
    await commitOne(store, put('a', '{"v":1}'));
    await refuseWrites(project.project, async () => {
      await expect(commitOne(store, put('a', '{"v":2}'))).rejects.toMatchObject({ code: 'disk_full' });
    });
    expect(await textOf(store, 'a')).toContain('"v":1');
    await commitOne(store, put('a', '{"v":3}'));
  });
});
