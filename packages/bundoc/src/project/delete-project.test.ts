import { AppError } from '@bundoc/shared/errors';
import { describe, expect, it } from 'vitest';
import { put } from '../storage/conformance.ts';
import type { FakeKeyService } from '../testing/fake-key-service.ts';
import { newPlace, openInstances } from '../testing/open-instances.ts';
import type { SimulatedDisk, Survival } from '../testing/simulated-disk.ts';
import { ProjectDeletion } from './delete-project.ts';

const MARK = '/projects/p/deleted.json';
const DOWN = new AppError('kms_unavailable', { retryAfterS: 2 });

/** A process. */
function start(left?: SimulatedDisk, known?: FakeKeyService) {
  const { clock, disk, service: own } = newPlace(left);
  const service = known ?? own;
  const forgotten: string[] = [];
  const { keys, projects, instances, logger, write } = openInstances(
    { clock, disk, service },
    { onContentRemoved: (project) => forgotten.push(project) },
  );
  const ended: string[] = [];
  const outOfUse = Promise.withResolvers<void>();
  const feed = {
    end: (project: string) => {
      ended.push(project);
      outOfUse.resolve();
    },
  };
  const deletion = new ProjectDeletion({ projects, instances, keys, service, feed, clock, logger });
  const stateOf = async (project = 'p') => {
    try {
      using lease = await instances.acquire(project, 'existing');
      return lease === undefined ? 'absent' : 'open';
    } catch (error) {
      return error instanceof AppError ? error.code : String(error);
    }
  };
  const told = { ended, forgotten, outOfUse };
  return { clock, service, keys, disk, projects, instances, deletion, write, stateOf, ...told };
}

const filesOf = (disk: SimulatedDisk) => [...disk.files().keys()];

describe('deleting a project', () => {
  it('destroys its key, leaves a mark alone, ends its readers, and answers with the receipt, however often it is asked for', async () => {
    const { deletion, disk, ended, forgotten, keys, projects, service, stateOf, write } = start();
    await write();
    await write('q');
    const answer = await deletion.delete('p');
    expect(answer).toMatchObject({ project: 'p', key: { name: 'p-dek', state: 'destroyed' } });
    expect(await deletion.delete('p')).toEqual(answer);
    expect([service.destructions, keys.has('p'), ended, forgotten]).toEqual([1, false, ['p'], ['p']]);
    expect(await disk.list('/projects/p')).toEqual(['deleted.json']);
    expect(await projects.names('', 10)).toEqual(['q']);
    expect(await stateOf('q')).toBe('open');
  });

  it('burns its id: nothing opens it or makes it again, in this process or a later one', async () => {
    const first = start();
    await first.write();
    await first.deletion.delete('p');
    for (const process of [first, start(first.disk.powerCut('synced only'), first.service)]) {
      expect(await process.stateOf()).toBe('project_destroyed');
      await expect(process.write()).rejects.toMatchObject({ code: 'project_destroyed' });
    }
    // Not even under a key that was put in place of the destroyed one.
    first.service.destroyed.clear();
    first.service.put('p-dek');
    await expect(first.write()).rejects.toMatchObject({ code: 'project_destroyed' });
  });

  it('that does not exist is refused, and nothing is made or destroyed', async () => {
    const { deletion, disk, service } = start();
    await expect(deletion.delete('p')).rejects.toMatchObject({ code: 'project_not_found' });
    expect([service.destructions, disk.operations]).toEqual([0, 0]);
  });

  it.each([
    ['this service may not destroy keys', { mayDestroy: false }],
    ['BunKMS is down', { failure: DOWN }],
  ])('is refused while %s, and nothing has changed', async (_why, obstacle) => {
    const { deletion, disk, service, stateOf, write } = start();
    await write();
    const before = filesOf(disk);
    Object.assign(service, obstacle);
    await expect(deletion.delete('p')).rejects.toMatchObject({ code: 'kms_unavailable' });
    expect(filesOf(disk)).toEqual(before);
    expect(await stateOf()).toBe('open');
  });

  it('whose BunKMS goes down in between stays being deleted, and is gone on with once it is up', async () => {
    const { deletion, disk, projects, service, stateOf, write } = start();
    await write();
    service.requireDestroyable = async () => {
      if (disk.files().has(MARK) && service.failure !== undefined) throw service.failure;
    };
    service.failure = DOWN;
    await expect(deletion.delete('p')).rejects.toMatchObject({ code: 'kms_unavailable' });
    expect([await stateOf(), await projects.names('', 10)]).toEqual(['project_destroyed', []]);
    await deletion.resume();
    expect(service.destructions).toBe(0);
    service.failure = undefined;
    await deletion.resume();
    expect([service.destructions, filesOf(disk)]).toEqual([1, [MARK]]);
  });

  it('waits for those who work in it, and lets nobody in behind them', async () => {
    const { deletion, instances, outOfUse, service, stateOf, write } = start();
    await write();
    const lease = await instances.acquire('p', 'existing');
    const deleted = deletion.delete('p');
    await outOfUse.promise;
    const late = stateOf();
    await lease!.store.commit([put('b', '{}')]);
    expect(service.destructions).toBe(0);
    lease![Symbol.dispose]();
    await deleted;
    expect(await late).toBe('project_destroyed');
  });

  it('whose key BunKMS does not know is not said to be destroyed', async () => {
    const { deletion, service, write } = start();
    await write();
    const key = service.keys.get('p-dek')!;
    service.keys.delete('p-dek');
    await expect(deletion.delete('p')).rejects.toMatchObject({ code: 'key_missing' });
    service.keys.set('p-dek', key);
    expect(await deletion.delete('p')).toMatchObject({ key: { id: key.keyId } });
  });

  it('whose key somebody has destroyed before removes what is left, and has no receipt', async () => {
    const { deletion, disk, service, write } = start();
    await write();
    await service.destroyKey('p-dek');
    expect(await deletion.delete('p')).not.toHaveProperty('key');
    expect(filesOf(disk)).toEqual([MARK]);
  });

  it('that a crash cut short at any step is finished by the next process, or had not begun', {
    timeout: 60_000,
  }, async () => {
    const whole = start();
    await whole.write();
    const made = whole.disk.operations;
    await whole.deletion.delete('p');
    const operations = whole.disk.operations - made;
    expect(operations).toBeGreaterThan(15);
    let seed = 11;
    const random = () => {
      seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648;
      return seed / 2_147_483_648;
    };
    const survivals: Survival[] = ['synced only', 'everything', { random }, { random }];
    let unbegun = 0;
    for (let operation = 1; operation <= operations; operation++)
      for (const when of ['before', 'after'] as const)
        for (const survival of survivals) {
          const before = start();
          await before.write();
          before.disk.failAt({ operation, when, what: 'crash' });
          await before.deletion.delete('p').catch(() => undefined);
          const label = `crash ${when} ${before.disk.trace.at(-1)}, ${JSON.stringify(survival)}`;
          const after = start(before.disk.powerCut(survival), before.service);
          const isBegun = after.disk.files().has(MARK);
          if (!isBegun) {
            unbegun++;
            expect(after.service.destructions, label).toBe(0);
            expect(await after.stateOf(), label).toBe('open');
            continue;
          }
          expect(await after.stateOf(), label).toBe('project_destroyed');
          await after.deletion.resume();
          expect(after.service.destructions, label).toBe(1);
          expect(filesOf(after.disk), label).toContain(MARK);
          const left = start(after.disk.powerCut('synced only'), before.service);
          expect(await left.projects.unfinishedDeletions(), label).toEqual([]);
          expect(
            filesOf(left.disk).filter((path) => /docs|journal|project|catalog/.test(path.slice(11))),
            label,
          ).toEqual([]);
          await expect(left.write(), label).rejects.toMatchObject({ code: 'project_destroyed' });
        }
    expect(unbegun).toBeGreaterThan(0);
  });
});
