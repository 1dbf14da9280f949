import { systemClock } from '@bundoc/shared/clock';
import { PostgresServer } from '@bundoc/shared/testing/postgres-server';
import { describeWithPostgres } from '@bundoc/shared/testing/postgres-tests';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { KeyCache } from '../src/project/key-cache.ts';
import { ProjectRows } from '../src/project/project-rows.ts';
import { ref } from '../src/storage/conformance.ts';
import type { Database } from '../src/storage/postgres/database.ts';
import { migrate } from '../src/storage/postgres/migrate.ts';
import { FakeKeyService } from '../src/testing/fake-key-service.ts';
import { openTestDatabase } from '../src/testing/postgres-project.ts';

describeWithPostgres('projects in PostgreSQL', () => {
  let server: PostgresServer;
  let database: Database;
  beforeAll(async () => {
    server = await PostgresServer.start();
    database = openTestDatabase((await server.createDatabase('bundoc')).url);
    await migrate(database);
  });
  afterAll(async () => {
    await database?.[Symbol.asyncDispose]();
    await server?.[Symbol.asyncDispose]();
  });

  /** A node of its own: what it knows of keys it knows alone. */
  const nodeOf = (service: FakeKeyService) =>
    new ProjectRows({
      database,
      keys: new KeyCache({ keys: service, clock: systemClock, ttlMs: 900_000 }),
      clock: systemClock,
    });
  const newService = () => new FakeKeyService(systemClock);

  it('that several nodes make at once have one key and one name key', async () => {
    const service = newService();
    for (let round = 0; round < 5; round++) {
      const project = `together-${round}`;
      const made = await Promise.all([1, 2, 3, 4].map(() => nodeOf(service).openOrCreate(project)));
      expect(new Set(made.map(({ file }) => JSON.stringify(file))).size).toBe(1);
      expect(new Set(made.map(({ cipher }) => cipher.fileName(ref('a')))).size).toBe(1);
    }
  });

  it('are not made by looking for them', async () => {
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

  it('follow a rotation that another node has heard of, whoever is first', async () => {
    const service = newService();
    const [early, late] = [nodeOf(service), nodeOf(service)];
    await Promise.all([early.openOrCreate('rotated'), late.openOrCreate('rotated')]);
    await service.rotateKey('rotated-dek', 1);
    // Nothing tells these two that their key is no longer the current one; a third asks for it anew.
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
});
