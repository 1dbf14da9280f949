import { Pool } from '@bundoc/shared/admission/pool';
import type { BearerAuth } from '@bundoc/shared/http/bearer-auth';
import { createHttpServer } from '@bundoc/shared/http/server';
import { createLogger } from '@bundoc/shared/logs/logger';
import { systemClock } from '@bundoc/shared/runtime/clock';
import { expect, it } from 'vitest';
import type { SnapshotOptions } from '../engine/port/snapshot-port.ts';
import type { InstanceManager } from '../projects/instance-manager.ts';
import { Documents } from '../service/documents.ts';
import { ownWork, Scheduler } from '../work/scheduler.ts';
import { createServiceShares } from '../work/service-shares.ts';
import { registerLists } from './lists.ts';

/** A store whose snapshots have this list. */
function storeOf(list: (options: SnapshotOptions) => Promise<unknown>) {
  return {
    snapshot: (_collection: string, options: SnapshotOptions) => ({
      asOf: 1,
      list: () => list(options),
      [Symbol.dispose]: () => undefined,
    }),
  };
}

it('lists that wait for their projects to open leave places to lists of open projects', async () => {
  const { pageReads } = createServiceShares();
  const opening = Promise.withResolvers<never>();
  let opened = 0;
  const store = storeOf(async () => ({ documents: [], unreadable: [], next: undefined }));
  const instances: Pick<InstanceManager, 'acquire' | 'peekStore' | 'leaseIfOpen'> = {
    acquire: (async (project: string) => {
      if (project !== 'cold') return { store, [Symbol.dispose]: () => undefined };
      opened++;
      return opening.promise;
    }) as never,
    peekStore: () => undefined,
    leaseIfOpen: () => undefined,
  };
  const auth = { authenticate: () => ({ projects: ['*'], scope: ['docs:read'] }) } as unknown as BearerAuth;
  const scheduler = { work: () => ownWork('p')('projection') } as unknown as Scheduler;
  await using app = createHttpServer({
    logger: createLogger({ service: 'bundoc', level: 'silent' }),
    bodyBytesMax: 1_000,
  });
  registerLists(app, new Documents(instances, { documentBytesMax: 1_000 }), auth, scheduler, pageReads);
  const list = (project: string) => app.inject(`/v1/projects/${project}/collections/notes/documents`);
  const cold = Array.from({ length: pageReads.capacity }, () => list('cold'));
  await expect.poll(() => opened).toBe(pageReads.capacity);
  expect((await list('open')).statusCode).toBe(200);
  opening.reject(new Error('the key service does not answer'));
  for (const answer of cold) expect((await answer).statusCode).toBe(500);
  expect(pageReads.held).toBe(0);
});

const auth = {
  authenticate: () => ({ jti: 'one', projects: ['*'], scope: ['docs:read'] }),
} as unknown as BearerAuth;

/** Documents of projects that are open, with this store. */
function documentsOf(store: ReturnType<typeof storeOf>): Documents {
  const instances = {
    acquire: (async () => ({ store, [Symbol.dispose]: () => undefined })) as never,
    peekStore: () => undefined,
    leaseIfOpen: () => undefined,
  };
  return new Documents(instances, { documentBytesMax: 1_000 });
}

it('lists that wait for a connection leave their places to others, and have one again before they read', async () => {
  const { pageReads } = createServiceShares();
  const connection = Promise.withResolvers<void>();
  const empty = { documents: [], unreadable: [], next: undefined };
  let waiting = 0;
  const held: number[] = [];
  const store = storeOf(async ({ place }) => {
    if (waiting === pageReads.capacity) return empty;
    place?.leave();
    waiting++;
    await connection.promise;
    await place?.retake();
    held.push(pageReads.held);
    return empty;
  });
  const scheduler = { work: () => ownWork('p')('projection') } as unknown as Scheduler;
  await using app = createHttpServer({
    logger: createLogger({ service: 'bundoc', level: 'silent' }),
    bodyBytesMax: 1_000,
  });
  registerLists(app, documentsOf(store), auth, scheduler, pageReads);
  const list = () => app.inject('/v1/projects/p/collections/notes/documents');
  const first = Array.from({ length: pageReads.capacity }, list);
  await expect.poll(() => waiting).toBe(pageReads.capacity);
  expect(pageReads.held).toBe(0);
  expect((await list()).statusCode).toBe(200);
  connection.resolve();
  for (const answer of first) expect((await answer).statusCode).toBe(200);
  expect([held.length, Math.min(...held) > 0, pageReads.held]).toEqual([pageReads.capacity, true, 0]);
});

it('a page whose fields are selected in turns counts as working memory', async () => {
  const { pageReads } = createServiceShares();
  const memory = new Pool({ name: 'memory', capacity: 2 * 1_048_576, waitMs: 0, clock: systemClock });
  using _others = memory.charge({ subject: 'others', project: 'others' }, 2 * 1_048_576);
  const store = storeOf(async () => {
    const text = Buffer.from(JSON.stringify({ a: 1, b: 'x'.repeat(1_048_576) }));
    const document = { metadata: { id: 'd', rev: '1', seq: 1 }, text, position: 1 };
    return { documents: [document], unreadable: [], next: undefined };
  });
  await using app = createHttpServer({
    logger: createLogger({ service: 'bundoc', level: 'silent' }),
    bodyBytesMax: 1_000,
    refusalDelayMs: 0,
  });
  await using scheduler = new Scheduler({ memory });
  registerLists(app, documentsOf(store), auth, scheduler, pageReads);
  const list = async (query: string) =>
    (await app.inject(`/v1/projects/p/collections/notes/documents${query}`)).statusCode;
  expect([await list(''), await list('?fields=a')]).toEqual([200, 503]);
  expect([pageReads.held, memory.heldBy('one')]).toEqual([0, 0]);
});
