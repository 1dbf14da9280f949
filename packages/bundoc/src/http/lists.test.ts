import type { BearerAuth } from '@bundoc/shared/http/bearer-auth';
import { createHttpServer } from '@bundoc/shared/http/server';
import { createLogger } from '@bundoc/shared/runtime/logger';
import { expect, it } from 'vitest';
import type { InstanceManager } from '../projects/instance-manager.ts';
import { Documents } from '../service/documents.ts';
import { ownWork, type Scheduler } from '../work/scheduler.ts';
import { createServiceShares } from '../work/service-shares.ts';
import { registerLists } from './lists.ts';

it('lists that wait for their projects to be opened leave those of open projects their places', async () => {
  const { pageReads } = createServiceShares();
  const opening = Promise.withResolvers<never>();
  let opened = 0;
  const store = { list: async () => ({ documents: [], unreadable: [], next: undefined }) };
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
