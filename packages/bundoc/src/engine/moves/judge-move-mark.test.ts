import { randomUUID } from 'node:crypto';
import { AppError } from '@bundoc/shared/contract/app-error';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { describe, expect, it } from 'vitest';
import { FakeKeyService } from '../../testing/fake-key-service.ts';
import { settleMove } from './judge-move-mark.ts';

const [MOVE, TARGET] = [randomUUID(), randomUUID()];

/**
 * A source that has made an offer. @param overtakes how often another node advances the storage after this
 * one.
 */
async function offering(overtakes: number) {
  const service = new FakeKeyService(new FakeClock());
  const { storage } = service.acting;
  service.put('p-dek');
  await service.offerKey('p-dek', TARGET, MOVE, service.acting);
  let left = overtakes;
  const advanceOnce = () => {
    const generation = randomUUID();
    service.storages.set(storage, { generation, takenOverMs: 0 });
    return { storage, generation };
  };
  const advance = async () => {
    const acting = advanceOnce();
    if (left-- > 0) advanceOnce();
    return acting;
  };
  const isOffered = () => service.standings.get('p-dek')?.offer !== undefined;
  return { service, source: { calls: service, advance }, isOffered };
}

describe('an interrupted move', () => {
  it('is settled even if another node advances the storage between the two calls', async () => {
    const { source, isOffered } = await offering(1);
    await settleMove(source, 'p', MOVE);
    expect(isOffered()).toBe(false);
  });

  it('refuses requests like a running move while other nodes keep advancing the storage', async () => {
    const { source } = await offering(Number.POSITIVE_INFINITY);
    await expect(settleMove(source, 'p', MOVE)).rejects.toMatchObject({ code: 'project_moving' });
  });

  it('cannot be settled by a superseded copy of the storage', async () => {
    const { source, isOffered } = await offering(0);
    const advance = async () => Promise.reject(new AppError('storage_superseded'));
    await expect(settleMove({ ...source, advance }, 'p', MOVE)).rejects.toMatchObject({
      code: 'storage_superseded',
    });
    expect(isOffered()).toBe(true);
  });
});
