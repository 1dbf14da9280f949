import { AppError } from '@bundoc/shared/contract/app-error';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { expect, it } from 'vitest';
import { type DefinedStore, openDefinedStore } from '../collections/defined-store.ts';
import { HeldLease } from '../projects/held-lease.ts';
import { ProjectInFiles } from '../testing/project-in-files.ts';
import { commitOne, put } from '../testing/writes.ts';
import { HeldSnapshot } from './held-snapshot.ts';

async function start() {
  const clock = new FakeClock();
  const project = new ProjectInFiles({ clock });
  const disk = ProjectInFiles.disk();
  await project.create(disk);
  const openStore = async () => openDefinedStore(await project.open(disk), clock);
  const open = { store: await openStore(), isUsable: true };
  await commitOne(open.store, put('a', '{}'));
  let gone: (() => undefined) | undefined;
  const acquire = async () => {
    if (gone !== undefined) return gone();
    const { store } = open;
    open.isUsable = true;
    return { store, isUsable: () => open.isUsable, [Symbol.dispose]: () => undefined };
  };
  const held = new HeldSnapshot(new HeldLease(acquire), 'notes', {});
  /** Closes the project between two steps, and opens it again. */
  const reopen = async (): Promise<DefinedStore> => {
    await open.store[Symbol.asyncDispose]();
    open.isUsable = false;
    open.store = await openStore();
    return open.store;
  };
  /** Closes the project between two steps. The next acquisition gets this answer. */
  const leave = async (answer: () => undefined): Promise<void> => {
    await open.store[Symbol.asyncDispose]();
    open.isUsable = false;
    gone = answer;
  };
  return { clock, store: open.store, held, reopen, leave };
}

const ref = { collection: 'others', id: 'x' };
const ALL = { after: 0, limit: 9, bytesMax: 1e6 };

it('a request continues with its state after the project was closed, if the collection has not changed', async () => {
  const { held, reopen } = await start();
  using state = held;
  const first = await state.get();
  expect(await state.get()).toBe(first);
  const store = await reopen();
  await commitOne(store, { ...put('x', '{}'), ref });
  const second = await state.get();
  expect([second === first, second.asOf, state.asOf]).toEqual([false, first.asOf, first.asOf]);
  expect((await second.list(ALL)).documents).toHaveLength(1);
});

it('a request judges by the time at which it began whether a document has expired, also after the project was closed', async () => {
  const { clock, store, held, reopen } = await start();
  await store.define('notes', { indexes: [], ttl: { field: '_created', seconds: 10 } }, { kind: 'none' });
  using state = held;
  const idsIn = async () =>
    (await (await state.get()).list(ALL)).documents.map(({ metadata }) => metadata._id);
  expect(await idsIn()).toEqual(['a']);
  clock.advance(10_000);
  const reopened = await reopen();
  expect(await idsIn()).toEqual(['a']);
  expect((await reopened.list({ ...ALL, collection: 'notes' })).documents).toEqual([]);
  await reopen();
  expect(await idsIn()).toEqual(['a']);
});

it('a request whose collection has changed while the project was closed is refused, and shows no other state', async () => {
  const { held, reopen } = await start();
  using state = held;
  await state.get();
  await commitOne(await reopen(), put('b', '{}'));
  await expect(state.get()).rejects.toMatchObject({ code: 'snapshot_too_old', retryAfterS: 1 });
});

it.each([
  ['deleted', 'project_not_found', () => undefined],
  [
    'moved away',
    'project_elsewhere',
    () => {
      throw new AppError('project_elsewhere');
    },
  ],
])('a request whose project was %s between two steps is refused with %s', async (_how, code, answer) => {
  const { held, leave } = await start();
  using state = held;
  const first = await state.get();
  await leave(answer);
  await expect(first.list(ALL)).rejects.toMatchObject({
    code: 'snapshot_too_old',
  });
  await expect(state.get()).rejects.toMatchObject({ code });
});
