import { describe, expect, it } from 'vitest';
import { newPlace, openInstances } from '../../../testing/open-instances.ts';
import { put } from '../../../testing/writes.ts';
import { FilesMoveSource } from './move-source.ts';

const BROKEN = new Error('it cannot be brought there');

function sourceOf() {
  const start = newPlace();
  const opened = openInstances(start);
  const { disk } = start;
  const directory = '/projects/p';
  const place = { disk, directory, tmp: '/tmp', keptIn: '/moved', forget: () => Promise.resolve() };
  const { instances } = opened;
  return { ...opened, source: new FilesMoveSource({ project: 'p', place, instances }) };
}

describe('handing over a project in files', () => {
  it('blocks writes during the action, and marks the project before anyone can reopen it', async () => {
    const { instances, write, source } = sourceOf();
    await write();
    let later: Promise<unknown> | undefined;
    await source.fence(
      async () => {
        using lease = await instances.acquire('p', 'existing');
        await expect(lease?.store.commit([put('b', '{}')])).rejects.toMatchObject({ code: 'project_moving' });
      },
      () => {
        expect(instances.stateOf('p').isOpen).toBe(false);
        later = instances.acquire('p', 'existing');
        return 'a mark';
      },
    );
    expect(await source.mark()).toBe('a mark');
    // It was opened after the mark was written: a mark that is not authentic is set aside.
    await later;
    expect(await source.mark()).toBeUndefined();
  });

  it.each([
    ['while it is brought away', () => Promise.reject(BROKEN), () => 'a mark'],
    [
      'when it cannot be marked',
      () => Promise.resolve(),
      () => {
        throw BROKEN;
      },
    ],
  ])('leaves the project in use when it fails %s', async (_when, action, mark) => {
    const { write, source } = sourceOf();
    await write();
    await expect(source.fence(action, mark)).rejects.toBe(BROKEN);
    await write('p', 'b');
  });

  it('reports that there is no project', async () => {
    const { source } = sourceOf();
    const fenced = source.fence(
      () => Promise.resolve(),
      () => 'a mark',
    );
    await expect(fenced).rejects.toMatchObject({ code: 'project_not_found' });
  });
});
