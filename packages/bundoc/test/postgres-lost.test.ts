import { AppError } from '@bundoc/shared/contract/app-error';
import { createLogger } from '@bundoc/shared/logs/logger';
import { systemClock } from '@bundoc/shared/runtime/clock';
import { needs } from '@bundoc/shared/testing/programs';
import { beforeEach, describe, expect, it } from 'vitest';
import type { StorageIdentity } from '../src/engine/identity/storage-file.ts';
import { StorageGeneration } from '../src/engine/identity/storage-generation.ts';
import { markLost } from '../src/engine/lost-projects.ts';
import { identifyDatabase } from '../src/engine/postgres/rows/identity-in-rows.ts';
import { endMark, LostInRows } from '../src/engine/postgres/rows/lost-in-rows.ts';
import { FakeKeyService } from '../src/testing/fake-key-service.ts';
import { database, sql, usePostgresEngine } from './support/postgres-engine.ts';
import { PostgresNode } from './support/postgres-node.ts';

const logger = createLogger({ service: 'bundoc', level: 'silent' });
const LOST = { code: 'project_damaged', detail: expect.stringContaining('bundoc accept-loss') };

describe('PostgreSQL', needs('postgresql'), () => {
  usePostgresEngine();
  beforeEach(() => sql('DELETE FROM bundoc.lost_projects'));

  const lostHere = () => new LostInRows(database, systemClock);
  const newNode = (service: FakeKeyService) => new PostgresNode(database, service);

  /** A node that starts on the database. Its pauses last until it ends. */
  async function start(service: FakeKeyService, wrap = (identity: StorageIdentity) => identity) {
    const identity = wrap(await identifyDatabase(database, systemClock));
    const { id } = await identity.read();
    const lost = lostHere();
    const storage = { lost, identity };
    const generation = new StorageGeneration({
      id,
      identity,
      calls: service,
      logger,
      kmsUrl: 'http://kms:8082',
      outage: async () => undefined,
      onTakenOver: (before, _takenOverMs, signal) =>
        markLost({ storage, calls: service, id, logger }, before, signal),
      pause: (_ms, signal) =>
        new Promise((_resolve, reject) => {
          signal.addEventListener('abort', reject);
        }),
    });
    return { id, lost, identity, generation };
  }

  describe('lost projects', () => {
    it('are marked by nodes that start together after a take-over, and refused by all', async () => {
      const service = new FakeKeyService(systemClock);
      const first = await start(service);
      await first.generation.start();
      await using node = newNode(service);
      await node.write('lost-a');
      for (const project of ['lost-a', 'lost-b', 'lost-c']) service.put(`${project}-dek`, first.id);
      service.takeOverStorage(first.id);
      const nodes = await Promise.all([1, 2, 3].map(() => start(service)));
      await Promise.all(nodes.map(({ generation }) => generation.start()));
      for (const { generation, lost } of nodes)
        expect([generation.state, await lost.list()]).toEqual(['confirmed', ['lost-b', 'lost-c']]);
      expect(Math.max(...nodes.map(({ lost }) => lost.count))).toBe(2);
      // A node that starts later does not look again.
      const { listings } = service;
      await (await start(service)).generation.start();
      expect(service.listings).toBe(listings);
    });

    it('stay marked when the time of the take-over was not stored, and are marked by the next node', async () => {
      const service = new FakeKeyService(systemClock);
      const first = await start(service);
      await first.generation.start();
      const before = (await first.identity.read()).takenOverMs;
      service.put('lost-h-dek', first.id);
      service.takeOverStorage(first.id);
      const broken = Promise.withResolvers<void>();
      const cut = await start(service, (identity) => ({
        read: () => identity.read(),
        ageS: () => identity.ageS(),
        change: (change) =>
          identity.change((present) => {
            const next = change(present);
            if (next.takenOverMs === present.takenOverMs) return next;
            broken.resolve();
            throw new AppError('storage_unavailable');
          }),
      }));
      void cut.generation.start();
      await broken.promise;
      expect([await cut.lost.list(), (await first.identity.read()).takenOverMs]).toEqual([
        ['lost-h'],
        before,
      ]);
      // Marks that are removed before the time is stored come back.
      await cut.lost.accept(['lost-h']);
      const next = await start(service);
      await next.generation.start();
      expect([next.generation.state, await next.lost.list()]).toEqual(['confirmed', ['lost-h']]);
      await cut.generation[Symbol.asyncDispose]();
    });

    it('are refused for every use until the loss is accepted, by the statement that looks for the project', async () => {
      const service = new FakeKeyService(systemClock);
      await using node = newNode(service);
      const lost = lostHere();
      await lost.mark(['lost-d', 'lost-e']);
      await expect(node.write('lost-d')).rejects.toMatchObject(LOST);
      await expect(node.read('lost-d')).rejects.toMatchObject(LOST);
      expect([service.exports, service.creations]).toEqual([0, 0]);
      expect(await node.statementsOf(() => node.read('absent'))).toEqual(['bundoc-read-projects-2']);
      await lost.accept(['lost-d']);
      await node.write('lost-d');
      expect([await node.read('lost-d'), await lost.list(), lost.count]).toEqual([true, ['lost-e'], 1]);
    });

    it('lost projects with rows are served, are not listed, and lose their mark when they arrive', async () => {
      const service = new FakeKeyService(systemClock);
      await using node = newNode(service);
      const lost = lostHere();
      await node.write('lost-f');
      await lost.mark(['lost-f', 'lost-g']);
      await node.close('lost-f');
      expect([await node.read('lost-f'), await lost.list(), lost.count]).toEqual([true, ['lost-g'], 1]);
      await database.transaction('', async (transaction) => {
        await endMark(transaction, 'lost-g');
        return true;
      });
      expect(await sql('SELECT string_agg(project, $$,$$) FROM bundoc.lost_projects')).toBe('lost-f');
    });

    it('take 10,000 marks', async () => {
      const names = Array.from({ length: 10_000 }, (_, n) => `many-${n}`);
      const lost = lostHere();
      await lost.mark(await lost.absent(names));
      expect([(await lost.list()).length, lost.count]).toEqual([10_000, 10_000]);
      await lost.accept(await lost.list());
      expect(lost.count).toBe(0);
    });
  });
});
