import { AppError } from '@bundoc/shared/contract/app-error';
import { systemClock } from '@bundoc/shared/runtime/clock';
import { needs } from '@bundoc/shared/testing/programs';
import { describe, expect, it } from 'vitest';
import type { ProjectStore } from '../src/engine/port/port.ts';
import { put, ref } from '../src/testing/writes.ts';
import { markOf, moving, useMoves, withCall } from './support/moves-with-obstacles.ts';
import { HELD, type Place } from './support/moving.ts';

describe('a move', needs('postgresql'), () => {
  useMoves();

  it('refuses an acceptance that arrives after the source has allowed writes again', async () => {
    await moving.fill('files');
    let late: (() => Promise<void>) | undefined;
    const calls = withCall('acceptKey', async (...args) => {
      late = () => moving.service.acceptKey(...args);
      throw new AppError('kms_unavailable');
    });
    await expect(moving.move({ ...moving.ports, calls })).rejects.toMatchObject({
      code: 'kms_unavailable',
    });
    expect(await moving.held('files')).toEqual(HELD);
    await expect(late?.()).rejects.toMatchObject({ code: 'key_not_offered' });
    expect([await moving.held('files'), await moving.held('rows')]).toEqual([HELD, 'project_not_found']);
  });

  it('refuses an offer that arrives after the source has allowed writes again', async () => {
    await moving.fill('files');
    let late: (() => Promise<void>) | undefined;
    const calls = withCall('offerKey', async (...args) => {
      late = () => moving.service.offerKey(...args);
      throw new AppError('kms_unavailable');
    });
    await expect(moving.move({ ...moving.ports, calls })).rejects.toMatchObject({
      code: 'kms_unavailable',
    });
    expect(await moving.held('files')).toEqual(HELD);
    await expect(late?.()).rejects.toMatchObject({ code: 'storage_superseded' });
  });

  it("ends at once for the project's users when BunKMS refuses the acceptance", async () => {
    await moving.fill('files');
    const calls = withCall('acceptKey', () => Promise.reject(new AppError('key_not_offered')));
    await expect(moving.move({ ...moving.ports, calls })).rejects.toMatchObject({
      code: 'key_not_offered',
    });
    expect(await markOf('files')).toBeUndefined();
    // On a node that would wait for a running move.
    const node = await moving.node('files', undefined, systemClock);
    await moving.withStore(node, (store) => store.commit([put('a', '{"again":1}')]));
  });

  it('is not disturbed by users of the project during the cut-over', async () => {
    await moving.fill('files');
    const seen: unknown[] = [];
    const calls = withCall('acceptKey', async (...args) => {
      const node = await moving.node('files', undefined, systemClock, false);
      // A start advances the generation, and so ends the offer.
      await moving.service.offerKey(args[0], args[2].storage, args[1], currentOf('files'));
      await node.acquire(moving.project, 'existing').catch((error: AppError) => seen.push(error.code));
      await moving.service.acceptKey(...args);
    });
    const currentOf = (of: Place) => {
      const id = ids[of];
      return { storage: id, generation: moving.service.storages.get(id)?.generation ?? '' };
    };
    const ids = {
      rows: (await (await moving.identity('rows')).read()).id,
      files: (await (await moving.identity('files')).read()).id,
    };
    await moving.move({ ...moving.ports, calls });
    expect(seen).toEqual(['project_moving']);
    expect([await moving.held('files'), await moving.held('rows')]).toEqual(['project_elsewhere', HELD]);
  });

  it('does not let a target serve with an old key until BunKMS names it', async () => {
    const node = await moving.node('rows');
    await moving.withStore(node, (store) => store.commit([put('a', '{"from":"rows"}')]));
    // Back in the folder by a backup; the operator has removed the rows.
    await moving.leaveRows();
    await moving.fill('files');
    // The node has missed it, and still has the key.
    const refused: unknown[] = [];
    const calls = withCall('acceptKey', async (...args) => {
      for (const use of [
        async (store: ProjectStore): Promise<unknown> => store.get(ref('a')),
        (store: ProjectStore): Promise<unknown> => store.commit([put('a', '{"from":"an earlier node"}')]),
      ])
        await moving.withStore(node, use).catch((error: AppError) => refused.push(error.code));
      await moving.service.acceptKey(...args);
    });
    await moving.move({ ...moving.ports, calls });
    expect(refused).toEqual(['project_moving', 'project_elsewhere']);
    expect(await moving.held('rows')).toEqual(HELD);
  });
});
