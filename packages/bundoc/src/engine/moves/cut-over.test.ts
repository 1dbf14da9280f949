import { describe, expect, it } from 'vitest';
import { newPlace, openInstances } from '../../testing/open-instances.ts';
import { put } from '../../testing/writes.ts';
import { cutOver } from './cut-over.ts';

const BROKEN = new Error('it cannot be brought there');

describe('handing over a project', () => {
  it('blocks writes during the action, and marks the project before anyone can reopen it', async () => {
    const { instances, write } = openInstances(newPlace());
    await write();
    const steps: string[] = [];
    let later: Promise<unknown> | undefined;
    await cutOver(
      instances,
      'p',
      async ({ store }) => {
        await expect(store.commit([put('b', '{}')])).rejects.toMatchObject({ code: 'project_moving' });
        steps.push('brought away');
      },
      async () => {
        expect(instances.stateOf('p').isOpen).toBe(false);
        later = instances.acquire('p', 'existing').then((lease) => {
          steps.push('opened');
          lease?.[Symbol.dispose]();
        });
        await new Promise((resolve) => setImmediate(resolve));
        steps.push('marked');
      },
    );
    await later;
    expect(steps).toEqual(['brought away', 'marked', 'opened']);
  });

  it.each([
    ['while it is brought away', () => Promise.reject(BROKEN), () => Promise.resolve()],
    ['when it cannot be marked', () => Promise.resolve(), () => Promise.reject(BROKEN)],
  ])('leaves the project in use when it fails %s', async (_when, action, mark) => {
    const { instances, write } = openInstances(newPlace());
    await write();
    await expect(cutOver(instances, 'p', action, mark)).rejects.toBe(BROKEN);
    await write('p', 'b');
  });

  it('reports that there is no project', async () => {
    const { instances } = openInstances(newPlace());
    const nothing = () => Promise.resolve();
    await expect(cutOver(instances, 'p', nothing, nothing)).rejects.toMatchObject({
      code: 'project_not_found',
    });
  });
});
