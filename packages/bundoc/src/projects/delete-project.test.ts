import { randomUUID } from 'node:crypto';
import { AppError } from '@bundoc/shared/contract/app-error';
import { describe, expect, it } from 'vitest';
import type { FakeKeyService } from '../testing/fake-key-service.ts';
import { newPlace, openInstances } from '../testing/open-instances.ts';
import type { SimulatedDisk } from '../testing/simulated-disk.ts';
import type { Survival } from '../testing/simulated-file.ts';
import { put } from '../testing/writes.ts';
import { ProjectDeletion } from './delete-project.ts';

const OTHER = randomUUID();
const MARK = '/projects/p/deleted.json';
const DOWN = new AppError('kms_unavailable', { retryAfterS: 2 });

/** A process. */
function start(left?: SimulatedDisk, known?: FakeKeyService) {
  const { clock, disk, service: own } = newPlace(left);
  const service = known ?? own;
  const forgotten: string[] = [];
  const { keys, projects, instances, logger, write, setAside } = openInstances(
    { clock, disk, service },
    { onContentRemoved: (project) => forgotten.push(project) },
  );
  const ended: string[] = [];
  /** How many changes BunKMS had made each time that what was not answered lost its effect. */
  const settled: number[] = [];
  const outOfUse = Promise.withResolvers<void>();
  const feed = {
    end: (project: string) => {
      ended.push(project);
      outOfUse.resolve();
    },
  };
  const deletion = new ProjectDeletion({
    projects,
    instances,
    keys,
    service: service.held,
    settleDoubt: async () => {
      if (service.failure !== undefined) throw service.failure;
      settled.push(service.changes.length);
    },
    feed,
    clock,
    logger,
  });
  const stateOf = async (project = 'p') => {
    try {
      using lease = await instances.acquire(project, 'existing');
      return lease === undefined ? 'absent' : 'open';
    } catch (error) {
      return error instanceof AppError ? error.code : String(error);
    }
  };
  const told = { ended, forgotten, outOfUse, settled };
  return { clock, service, keys, disk, projects, instances, deletion, write, stateOf, setAside, ...told };
}

/** Of the log, only what is in it is of a project. */
const filesOf = (disk: SimulatedDisk) => [...disk.files().keys()].filter((path) => !path.startsWith('/log/'));

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

  it('has BunKMS record the intent before anything changes, and the end when nothing is left', async () => {
    const { deletion, service, write } = start();
    await write();
    await deletion.delete('p');
    expect(service.changes.map(({ kind }) => kind)).toEqual(['create', 'intend', 'destroy', 'removed']);
    expect(await service.held.unfinishedDeletions()).toEqual([]);
  });

  it('burns its id: nothing opens it or makes it again, in this process or a later one', async () => {
    const first = start();
    await first.write();
    await first.deletion.delete('p');
    for (const process of [first, start(first.disk.powerCut('synced only'), first.service)]) {
      expect(await process.stateOf()).toBe('project_destroyed');
      await expect(process.write()).rejects.toMatchObject({ code: 'project_destroyed' });
    }
  });

  it('answers as before when somebody has put the mark of a move there since', async () => {
    const { deletion, disk, service, write } = start();
    await write();
    const answer = await deletion.delete('p');
    const ofFirstVersion = Buffer.from([0, 0, 0, 1, ...Buffer.alloc(60)]).toString('base64url');
    const plant = () =>
      disk.createFile('/projects/p/move.mark', Buffer.from(`bundoc-move-mark-1.${ofFirstVersion}`));
    await plant();
    expect(await deletion.delete('p')).toEqual(answer);
    await disk.remove('/projects/p/deleted.json');
    await plant();
    expect(await deletion.delete('p')).toMatchObject({ project: 'p' });
    expect([await disk.list('/projects/p'), service.destructions]).toEqual([['deleted.json'], 1]);
  });

  it('that does not exist is refused, and nothing is made or destroyed', async () => {
    const { deletion, disk, service } = start();
    await expect(deletion.delete('p')).rejects.toMatchObject({ code: 'project_not_found' });
    expect([service.changes, disk.operations]).toEqual([[], 0]);
  });

  it.each([
    ['this service may not shred keys', { mayShred: false }],
    ['BunKMS is down', { failure: DOWN }],
  ])('is refused while %s, and nothing has changed', async (_why, obstacle) => {
    const { deletion, disk, service, stateOf, write } = start();
    await write();
    const before = filesOf(disk);
    Object.assign(service, obstacle);
    await expect(deletion.delete('p')).rejects.toMatchObject({ code: 'kms_unavailable' });
    expect(filesOf(disk)).toEqual(before);
    expect([service.changes.map(({ kind }) => kind), await stateOf()]).toEqual([['create'], 'open']);
  });

  it('that another storage holds is refused with that storage, and nothing has changed', async () => {
    const { deletion, disk, service, write } = start();
    await write();
    const before = filesOf(disk);
    service.takeOverKey('p-dek', OTHER);
    const refused = { code: 'project_elsewhere', storage: OTHER };
    await expect(deletion.delete('p')).rejects.toMatchObject(refused);
    expect([filesOf(disk), service.destructions]).toEqual([before, 0]);
  });

  it('whose intent is not answered asks once more, when the first can have no late effect any more', async () => {
    const { deletion, service, settled, write } = start();
    await write();
    service.unanswered.add('intendDeletion');
    expect(await deletion.delete('p')).toMatchObject({ key: { name: 'p-dek' } });
    expect(settled).toEqual([2]);
    expect(service.changes.map(({ kind }) => kind)).toEqual(['create', 'intend', 'destroy', 'removed']);
  });

  it('whose intent was not answered is looked for only when it can have no late effect any more', async () => {
    const { deletion, service, settled, stateOf, write } = start();
    await write();
    service.failure = DOWN;
    await expect(deletion.delete('p')).rejects.toMatchObject({ code: 'kms_unavailable' });
    await deletion.resume();
    expect(settled).toEqual([]);
    service.failure = undefined;
    await deletion.resume();
    expect([settled, service.destructions, await stateOf()]).toEqual([[1], 0, 'open']);
  });

  it.each(['shredKey', 'contentRemoved'] as const)(
    'whose answer of %s is lost is finished in the background',
    async (call) => {
      const { deletion, disk, service, stateOf, write } = start();
      await write();
      service.unanswered.add(call);
      await expect(deletion.delete('p')).rejects.toMatchObject({ code: 'kms_unavailable' });
      expect(await stateOf()).toBe('project_destroyed');
      deletion.look();
      await expect.poll(() => service.changes.at(-1)?.kind).toBe('removed');
      expect([service.destructions, filesOf(disk)]).toEqual([1, [MARK]]);
    },
  );

  it('stays on record while keys are destroyed too fast: clients hear that it is being deleted, and the background finishes it', async () => {
    const { deletion, disk, service, stateOf, write } = start();
    await write();
    service.isRateLimited = true;
    await expect(deletion.delete('p')).rejects.toMatchObject({
      code: 'kms_unavailable',
      detail: 'the deletion is on record, and is finished in the background',
    });
    expect([await stateOf(), service.destructions]).toEqual(['project_deleting', 0]);
    await deletion.resume();
    expect(service.destructions).toBe(0);
    service.isRateLimited = false;
    await deletion.resume();
    expect([service.destructions, filesOf(disk), await stateOf()]).toEqual([1, [MARK], 'project_destroyed']);
  });

  it('that an administrator takes back before the key is destroyed leaves the project as it was', async () => {
    const { deletion, service, stateOf, write, keys } = start();
    await write();
    service.isRateLimited = true;
    await expect(deletion.delete('p')).rejects.toMatchObject({ code: 'kms_unavailable' });
    service.restore('p-dek');
    service.isRateLimited = false;
    await deletion.resume();
    keys.evict('p');
    expect([service.destructions, await stateOf()]).toEqual([0, 'open']);
  });

  it('whose key is changed after it was listed is finished all the same, the next time', async () => {
    const { deletion, disk, service, stateOf, write } = start();
    await write();
    service.isRateLimited = true;
    await expect(deletion.delete('p')).rejects.toMatchObject({ code: 'kms_unavailable' });
    service.isRateLimited = false;
    const { unfinishedDeletions } = service;
    service.unfinishedDeletions = async (acting) => {
      const found = await unfinishedDeletions.call(service, acting);
      await service.rotateKey('p-dek', 1);
      return found;
    };
    await deletion.resume();
    expect(service.destructions).toBe(0);
    await deletion.resume();
    expect([service.destructions, filesOf(disk), await stateOf()]).toEqual([1, [MARK], 'project_destroyed']);
  });

  it.each(['changed', 'taken back'])(
    'whose key is %s before it is destroyed does not promise an end',
    async (what) => {
      const { deletion, service, stateOf, write } = start();
      await write();
      const { intendDeletion } = service;
      service.intendDeletion = async (name, acting) => {
        const intent = await intendDeletion.call(service, name, acting);
        if (what === 'changed') await service.rotateKey(name, 1);
        else service.restore(name);
        return intent;
      };
      await expect(deletion.delete('p')).rejects.toMatchObject({
        code: 'kms_unavailable',
        detail:
          'the key was changed during the deletion. Unless an administrator took the deletion back, it is finished in the background',
      });
      await deletion.resume();
      expect([service.destructions, await stateOf()]).toEqual(
        what === 'changed' ? [1, 'project_destroyed'] : [0, 'open'],
      );
    },
  );

  it('is asked of BunKMS while something is unfinished, and no longer', async () => {
    const { deletion, service, write } = start();
    await write();
    let asked = 0;
    const { unfinishedDeletions } = service;
    service.unfinishedDeletions = (acting) => {
      asked++;
      return unfinishedDeletions.call(service, acting);
    };
    await deletion.resume();
    expect(asked).toBe(0);
    service.isRateLimited = true;
    await deletion.delete('p').catch(() => undefined);
    for (let n = 0; n < 3; n++) await deletion.resume();
    expect(asked).toBe(3);
    service.isRateLimited = false;
    for (let n = 0; n < 5; n++) await deletion.resume();
    // Once to finish it, and not again: nothing is left.
    expect(asked).toBe(4);
  });

  it('that another node has finished meanwhile keeps the receipt', async () => {
    const { deletion, projects, service, write } = start();
    await write();
    const { unfinishedDeletions } = service;
    const [listed, over] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    service.unfinishedDeletions = async (acting) => {
      const found = await unfinishedDeletions.call(service, acting);
      listed.resolve();
      await over.promise;
      return found;
    };
    service.isRateLimited = true;
    await deletion.delete('p').catch(() => undefined);
    service.isRateLimited = false;
    const late = deletion.resume();
    await listed.promise;
    const answer = await deletion.delete('p');
    over.resolve();
    await late;
    expect(answer.key).toMatchObject({ name: 'p-dek' });
    expect((await projects.deletionOf('p'))?.receipt).toEqual(answer.key);
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

  it('whose key an administrator has destroyed before removes what is left, and has no receipt', async () => {
    const { deletion, disk, service, write } = start();
    await write();
    service.destroy('p-dek');
    expect(await deletion.delete('p')).not.toHaveProperty('key');
    expect(filesOf(disk)).toEqual([MARK]);
  });

  it('works on a full disk', async () => {
    const { deletion, disk, service, write } = start();
    await write();
    let mark = 0;
    const { createFile } = disk;
    disk.createFile = async (path, content) => {
      // There is room again once the content is gone.
      if (disk.files().has('/projects/p/project.json')) throw new AppError('disk_full');
      mark++;
      await createFile.call(disk, path, content);
    };
    await deletion.delete('p');
    expect([mark, service.destructions, filesOf(disk)]).toEqual([1, 1, [MARK]]);
  });

  it('that a crash cut short at any step is finished by the next process, or had not begun', {
    timeout: 60_000,
  }, async () => {
    const whole = start();
    await whole.write();
    const made = whole.disk.operations;
    await whole.deletion.delete('p');
    const operations = whole.disk.operations - made;
    expect(operations).toBeGreaterThan(9);
    let seed = 11;
    const random = () => {
      seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648;
      return seed / 2_147_483_648;
    };
    const survivals: Survival[] = ['synced only', 'everything', { random }, { random }];
    for (let operation = 1; operation <= operations; operation++)
      for (const when of ['before', 'after'] as const)
        for (const survival of survivals) {
          const before = start();
          await before.write();
          before.disk.failAt({ operation, when, what: 'crash' });
          // What is under way when the process dies never settles.
          await Promise.race([before.deletion.delete('p'), before.disk.crashes]).catch(() => undefined);
          const label = `crash ${when} ${before.disk.trace.at(-1)}, ${JSON.stringify(survival)}`;
          const after = start(before.disk.powerCut(survival), before.service);
          // A process that was killed leaves no state that looks like damage.
          if (survival === 'everything') expect(await after.stateOf(), label).not.toBe('project_damaged');
          after.deletion.look();
          await expect.poll(() => after.service.changes.at(-1)?.kind, { message: label }).toBe('removed');
          expect(after.service.destructions, label).toBe(1);
          const left = start(after.disk.powerCut('synced only'), before.service);
          expect(await left.stateOf(), label).toBe('project_destroyed');
          expect(
            filesOf(left.disk).filter((path) => /docs|carried|project|catalog/.test(path.slice(11))),
            label,
          ).toEqual([]);
          await expect(left.write(), label).rejects.toMatchObject({ code: 'project_destroyed' });
          expect(filesOf(left.disk), label).toContain(MARK);
        }
  });
});

describe('the mark of a deletion that BunKMS does not confirm', () => {
  const plant = async (disk: SimulatedDisk, project: string, text: string) => {
    await disk.makeDirectory(`/projects/${project}`);
    await disk.createFile(`/projects/${project}/deleted.json`, Buffer.from(text));
  };
  const since = '2026-01-01T00:00:00.000Z';
  const texts = [
    JSON.stringify({ deleted: 'p', format: 1, since }),
    JSON.stringify({ deleted: 'p', format: 1, since, keyDestroyedAt: since, finishedAt: since }),
    'no mark at all',
  ];

  it.each(texts)('is set aside: the project is served, and its key is whole (%s)', async (text) => {
    const first = start();
    await first.write();
    await plant(first.disk, 'p', text);
    const { deletion, disk, projects, service, setAside, stateOf, write } = start(
      first.disk.restart(),
      first.service,
    );
    deletion.look();
    await deletion.resume();
    expect(await projects.names('', 10)).toEqual(['p']);
    expect(await stateOf()).toBe('open');
    await write('p', 'b');
    expect(setAside).toEqual([{ project: 'p', file: expect.stringMatching(/^p-.*-deleted\.json$/) }]);
    expect(disk.files().get(`/set-aside/${setAside[0]?.file}`)?.toString()).toBe(text);
    expect(service.changes.map(({ kind }) => kind)).toEqual(['create']);
  });

  it.each(texts)(
    'of an id that never was there destroys nothing, and the id can be used (%s)',
    async (text) => {
      const { deletion, disk, service, setAside, stateOf, write } = start();
      await plant(disk, 'p', text);
      deletion.look();
      await deletion.resume();
      await expect(deletion.delete('p')).rejects.toMatchObject({ code: 'project_not_found' });
      expect([await stateOf(), service.changes]).toEqual(['absent', []]);
      await write();
      expect([setAside.length, service.changes.map(({ kind }) => kind)]).toEqual([1, ['create']]);
    },
  );

  it('of a project that another storage holds destroys nothing there, and stays', async () => {
    const { deletion, disk, service, setAside, stateOf } = start();
    service.put('p-dek', OTHER);
    await plant(disk, 'p', texts[0]!);
    deletion.look();
    await deletion.resume();
    expect(await stateOf()).toBe('project_elsewhere');
    await expect(deletion.delete('p')).rejects.toMatchObject({ code: 'project_elsewhere' });
    expect([service.changes, setAside]).toEqual([[], []]);
  });

  it('stays, and the project waits, while BunKMS is away', async () => {
    const first = start();
    await first.write();
    await plant(first.disk, 'p', texts[0]!);
    const { service, setAside, stateOf } = start(first.disk.restart(), first.service);
    service.failure = DOWN;
    expect([await stateOf(), setAside]).toEqual(['kms_unavailable', []]);
  });
});
