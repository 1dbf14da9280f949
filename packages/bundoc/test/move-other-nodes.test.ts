import { randomUUID } from 'node:crypto';
import { createLogger } from '@bundoc/shared/logs/logger';
import { needs } from '@bundoc/shared/testing/programs';
import { describe, expect, it, vi } from 'vitest';
import { StorageGeneration } from '../src/engine/identity/storage-generation.ts';
import type { StorageCalls } from '../src/kms/port.ts';
import { moving, useMoves, withCall } from './support/moves-with-obstacles.ts';
import { HELD } from './support/moving.ts';

describe('a move', needs('postgresql'), () => {
  useMoves();

  it('succeeds when other nodes advance the database during the copy', async () => {
    await moving.fill('files');
    let nodes = 0;
    const another = async <T>(answer: T): Promise<T> => {
      if (nodes++ < 4) await moving.start('rows');
      return answer;
    };
    const calls = withCall('advanceStorage', async (...args) =>
      another(await moving.service.advanceStorage(...args)),
    );
    await moving.move({ ...moving.ports, calls });
    expect(nodes).toBeGreaterThan(2);
    expect([await moving.held('files'), await moving.held('rows')]).toEqual(['project_elsewhere', HELD]);
  });

  it('succeeds beside a node that advances the database at every step, and that node continues', async () => {
    await moving.fill('files');
    const identity = await moving.identity('rows');
    const { id } = await identity.read();
    const [confirmed, superseded] = [vi.fn(), vi.fn()];
    await using node = new StorageGeneration({
      id,
      identity,
      calls: moving.service,
      kmsUrl: 'http://kms:8082',
      outage: async () => undefined,
      logger: createLogger({ service: 'bundoc', level: 'silent' }),
      onConfirmed: confirmed,
      onSuperseded: superseded,
    });
    await node.start();
    let advances = 0;
    const advance = async <T>(answer: T): Promise<T> => {
      if (advances++ < 4) await node.advance();
      return answer;
    };
    const { service } = moving;
    // An advance of the source invalidates its offer, so there it comes before.
    const hooks: Partial<StorageCalls> = {
      advanceStorage: async (...args) => advance(await service.advanceStorage(...args)),
      offerKey: async (...args) => {
        await service.offerKey(...args);
        await node.advance();
      },
    };
    const calls = new Proxy<StorageCalls>(service, {
      get: (target, key) => {
        const value: unknown = Reflect.get(hooks, key) ?? Reflect.get(target, key);
        return typeof value === 'function' ? value.bind(target) : value;
      },
    });
    await moving.move({ ...moving.ports, calls });
    expect(advances).toBeGreaterThan(2);
    await node.advance();
    expect([node.state, confirmed.mock.calls.length, superseded.mock.calls.length]).toEqual([
      ...['confirmed', 1, 0],
    ]);
    expect([await moving.held('files'), await moving.held('rows')]).toEqual(['project_elsewhere', HELD]);
  });

  it('succeeds when another node advances the database between the offer and the acceptance', async () => {
    await moving.fill('files');
    const calls = withCall('offerKey', async (...args) => {
      await moving.service.offerKey(...args);
      await moving.start('rows');
    });
    await moving.move({ ...moving.ports, calls });
    expect([await moving.held('files'), await moving.held('rows')]).toEqual(['project_elsewhere', HELD]);
  });

  it('fails when another copy of the database took over before the acceptance', async () => {
    await moving.fill('files');
    const { id } = await (await moving.identity('rows')).read();
    const calls = withCall('offerKey', async (...args) => {
      await moving.service.offerKey(...args);
      moving.service.takeOverStorage(id, randomUUID());
    });
    await expect(moving.move({ ...moving.ports, calls })).rejects.toMatchObject({
      code: 'storage_superseded',
    });
    expect(await moving.held('files')).toEqual(HELD);
  });
});
