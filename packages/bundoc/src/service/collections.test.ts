import { AppError } from '@bundoc/shared/contract/app-error';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { afterEach, expect, it, vi } from 'vitest';
import { SKIPPED_MAX } from '../collections/alive-documents.ts';
import { openDefinedStore } from '../collections/defined-store.ts';
import { ProjectInFiles } from '../testing/project-in-files.ts';
import { put } from '../testing/writes.ts';
import { ownWork, Scheduler } from '../work/scheduler.ts';
import { Collections } from './collections.ts';

const OPTIONS = { work: ownWork('p')('definition') };

afterEach(() => void vi.restoreAllMocks());

it('the check of existing documents visits a bounded number of expired ones, and reports that', async () => {
  const project = new ProjectInFiles();
  const disk = ProjectInFiles.disk();
  await project.create(disk);
  const clock = new FakeClock();
  await using store = await openDefinedStore(await project.open(disk), clock);
  const content = `{"until":"${new Date(clock.now()).toISOString()}"}`;
  for (let n = 0; n <= 2 * SKIPPED_MAX; n += 1_000)
    await store.commit(Array.from({ length: 1_000 }, (_, k) => put(`doc-${n + k}`, content)));
  clock.advance(1);
  const lease = { store, [Symbol.dispose]: () => undefined };
  const collections = new Collections({ acquire: async () => lease } as never);
  const definition = { indexes: [], schema: { required: ['v'] }, ttl: { field: 'until', seconds: 0 } };
  const { existing } = await collections.define('p', 'notes', definition, { kind: 'none' }, OPTIONS);
  expect(existing).toEqual({ checked: 0, failing: 0, invalid_times: 0, complete: false });
});

it('a dry run of a schema ends when its caller leaves, before another page is read', async () => {
  const project = new ProjectInFiles();
  const disk = ProjectInFiles.disk();
  await project.create(disk);
  await using store = await openDefinedStore(await project.open(disk), new FakeClock());
  await store.commit(Array.from({ length: 500 }, (_, n) => put(`doc-${n}`, `{"v":${n % 2}}`)));
  const lease = { store, cursors: {}, isUsable: () => true, [Symbol.dispose]: () => undefined };
  const collections = new Collections({ acquire: async () => lease } as never);
  await using scheduler = new Scheduler();
  const gone = new AbortController();
  using work = scheduler.work({ subject: 's', project: 'p' }, 'query', gone.signal);
  const { list } = store;
  const lists = vi.spyOn(store, 'list').mockImplementation(async (query) => {
    gone.abort(new AppError('request_timeout'));
    return list.call(store, query);
  });
  const request = { project: 'p', collection: 'notes', limit: 10_000, cursor: undefined, work };
  await expect(
    collections.checkSchema({ ...request, schema: { properties: { v: { const: 1 } } } }),
  ).rejects.toMatchObject({ code: 'request_timeout' });
  expect(lists).toHaveBeenCalledTimes(1);
});

it('a definition counts the existing documents that its schema refuses', async () => {
  const project = new ProjectInFiles();
  const disk = ProjectInFiles.disk();
  await project.create(disk);
  await using store = await openDefinedStore(await project.open(disk), new FakeClock());
  await store.commit(Array.from({ length: 1_000 }, (_, n) => put(`doc-${n}`, `{"v":${n % 2}}`)));
  const lease = { store, [Symbol.dispose]: () => undefined };
  const collections = new Collections({ acquire: async () => lease } as never);
  const definition = { indexes: [], schema: { properties: { v: { const: 1 } } } };
  const { existing } = await collections.define('p', 'notes', definition, { kind: 'none' }, OPTIONS);
  expect(existing).toEqual({ checked: 1_000, failing: 500, complete: true });
});

it.each(['rate_limited', 'overloaded', 'payload_too_large'] as const)(
  'a definition that took effect is answered as defined when the check of existing documents ends with %s',
  async (code) => {
    const project = new ProjectInFiles();
    const disk = ProjectInFiles.disk();
    await project.create(disk);
    await using store = await openDefinedStore(await project.open(disk), new FakeClock());
    // The first is small enough to be checked synchronously, the second is not.
    await store.commit([put('small', '{"v":1}'), put('large', `{"pad":"${'x'.repeat(100_000)}"}`)]);
    const lease = { store, [Symbol.dispose]: () => undefined };
    const collections = new Collections({ acquire: async () => lease } as never);
    await using scheduler = new Scheduler();
    vi.spyOn(scheduler.large, 'run').mockRejectedValue(new AppError(code));
    using work = scheduler.work({ subject: 's', project: 'p' }, 'definition');
    const definition = { indexes: [], schema: { required: ['w'] } };
    const { created, existing } = await collections.define(
      'p',
      'notes',
      definition,
      { kind: 'none' },
      { work },
    );
    expect(existing).toEqual({ checked: 1, failing: 1, complete: false });
    expect([created, store.definition('notes')?.definition.schema]).toEqual([true, definition.schema]);
  },
);
