import { AppError } from '@bundoc/shared/contract/app-error';
import { expect, it } from 'vitest';
import type { FileStore } from '../engine/files/store/file-store.ts';
import { HeldLease } from '../projects/held-lease.ts';
import { ProjectInFiles } from '../testing/project-in-files.ts';
import { commitOne, put } from '../testing/writes.ts';
import { HeldSnapshot } from './held-snapshot.ts';

async function start() {
  const project = new ProjectInFiles();
  const disk = ProjectInFiles.disk();
  await project.create(disk);
  const open = { store: await project.open(disk), isUsable: true };
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
  const reopen = async (): Promise<FileStore> => {
    await open.store[Symbol.asyncDispose]();
    open.isUsable = false;
    open.store = await project.open(disk);
    return open.store;
  };
  /** Closes the project between two steps. The next acquisition gets this answer. */
  const leave = async (answer: () => undefined): Promise<void> => {
    await open.store[Symbol.asyncDispose]();
    open.isUsable = false;
    gone = answer;
  };
  return { held, reopen, leave };
}

const ref = { collection: 'others', id: 'x' };

it('a request continues with its state after the project was closed, if the collection has not changed', async () => {
  const { held, reopen } = await start();
  using state = held;
  const first = await state.get();
  expect(await state.get()).toBe(first);
  const store = await reopen();
  await commitOne(store, { ...put('x', '{}'), ref });
  const second = await state.get();
  expect([second === first, second.asOf, state.asOf]).toEqual([false, first.asOf, first.asOf]);
  expect((await second.list({ after: 0, limit: 9, bytesMax: 1e6 })).documents).toHaveLength(1);
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
  await expect(first.list({ after: 0, limit: 9, bytesMax: 1e6 })).rejects.toMatchObject({
    code: 'snapshot_too_old',
  });
  await expect(state.get()).rejects.toMatchObject({ code });
});
