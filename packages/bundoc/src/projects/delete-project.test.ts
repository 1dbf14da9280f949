import { AppError } from '@bundoc/shared/contract/app-error';
import { runInShare } from '@bundoc/shared/shares/share-key';
import { describe, expect, it } from 'vitest';
import { DOWN, filesOf, MARK, OTHER, startProcess } from '../testing/project-deletions.ts';
import { put } from '../testing/writes.ts';

describe('the deletion of a project', () => {
  it('destroys its key, leaves only a marker, ends its readers, and repeats its receipt', async () => {
    const { deletion, disk, ended, forgotten, keys, projects, service, stateOf, write } = startProcess();
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

  it('makes BunKMS record the intent before anything changes, and the end when no content is left', async () => {
    const { deletion, service, write } = startProcess();
    await write();
    await deletion.delete('p');
    expect(service.changes.map(({ kind }) => kind)).toEqual(['create', 'intend', 'destroy', 'removed']);
    expect(await service.held.unfinishedDeletions()).toEqual([]);
  });

  it('blocks its id permanently: no process opens or creates the project again', async () => {
    const first = startProcess();
    await first.write();
    await first.deletion.delete('p');
    for (const process of [first, startProcess(first.disk.powerCut('synced only'), first.service)]) {
      expect(await process.stateOf()).toBe('project_destroyed');
      await expect(process.write()).rejects.toMatchObject({ code: 'project_destroyed' });
    }
  });

  it('repeats its answer even if somebody has planted the marker of a move since', async () => {
    const { deletion, disk, service, write } = startProcess();
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

  it('is refused when the project does not exist, and creates and destroys nothing', async () => {
    const { deletion, disk, service } = startProcess();
    await expect(deletion.delete('p')).rejects.toMatchObject({ code: 'project_not_found' });
    expect([service.changes, disk.operations]).toEqual([[], 0]);
  });

  it.each([
    ['this service may not shred keys', { mayShred: false }],
    ['BunKMS is down', { failure: DOWN }],
  ])('is refused while %s, and changes nothing', async (_why, obstacle) => {
    const { deletion, disk, service, stateOf, write } = startProcess();
    await write();
    const before = filesOf(disk);
    Object.assign(service, obstacle);
    await expect(deletion.delete('p')).rejects.toMatchObject({ code: 'kms_unavailable' });
    expect(filesOf(disk)).toEqual(before);
    expect([service.changes.map(({ kind }) => kind), await stateOf()]).toEqual([['create'], 'open']);
  });

  it('is refused when another storage holds the project, names that storage, and changes nothing', async () => {
    const { deletion, disk, service, write } = startProcess();
    await write();
    const before = filesOf(disk);
    service.takeOverKey('p-dek', OTHER);
    const refused = { code: 'project_elsewhere', storage: OTHER };
    await expect(deletion.delete('p')).rejects.toMatchObject(refused);
    expect([filesOf(disk), service.destructions]).toEqual([before, 0]);
  });

  it.each(['rate_limited', 'overloaded'] as const)(
    'is refused with the time of BunKMS while it answers %s, and changes nothing',
    async (code) => {
      const { deletion, disk, ended, service, stateOf, write } = startProcess();
      await write();
      const before = filesOf(disk);
      service.intentRefusal = new AppError(code, { retryAfterS: 7 });
      await expect(deletion.delete('p')).rejects.toMatchObject({ code, retryAfterS: 7 });
      await deletion.resume();
      expect([filesOf(disk), ended, service.changes.map(({ kind }) => kind)]).toEqual([
        ...[before, [], ['create']],
      ]);
      expect(await stateOf()).toBe('open');
    },
  );

  it('the deletion of a project waits only briefly for a burst of another subject, of which two run at once', async () => {
    const { clock, deletion, service, share, write } = startProcess();
    const names = Array.from({ length: 20 }, (_, n) => `p${n}`);
    for (const name of [...names, 'other']) await write(name);
    const gate = Promise.withResolvers<void>();
    const full = Promise.withResolvers<void>();
    const asked: string[] = [];
    service.onIntent = async (_name, client) => {
      if (asked.push(client) === 2) full.resolve();
      if (client === 'one') await gate.promise;
    };
    const burst = names.map((name) =>
      runInShare({ subject: 'one', project: '' }, () => deletion.delete(name)),
    );
    const results = Promise.allSettled(burst);
    await full.promise;
    await runInShare({ subject: 'other', project: '' }, () => deletion.delete('other'));
    expect(asked).toEqual(['one', 'one', 'other']);
    clock.advance(5_000);
    share.sweep();
    gate.resolve();
    const refused = (await results).flatMap((one) => (one.status === 'rejected' ? [one.reason] : []));
    expect(refused.map(({ code, retryAfterS }) => [code, retryAfterS >= 1])).toEqual(
      Array.from({ length: 18 }, () => ['rate_limited', true]),
    );
    expect([service.destructions, share.held]).toEqual([3, 0]);
  });

  it('continues in the background when BunKMS goes away, and clients get project_deleting until its end', async () => {
    const { deletion, disk, service, stateOf, write } = startProcess();
    await write();
    service.shredsFail = true;
    await expect(deletion.delete('p')).rejects.toMatchObject({
      code: 'kms_unavailable',
      detail: 'the deletion is on record, and is finished in the background',
    });
    expect([await stateOf(), service.destructions]).toEqual(['project_deleting', 0]);
    await deletion.resume();
    expect(service.destructions).toBe(0);
    service.shredsFail = false;
    await deletion.resume();
    expect([service.destructions, filesOf(disk), await stateOf()]).toEqual([1, [MARK], 'project_destroyed']);
  });

  it('waits for running requests, and admits no new ones', async () => {
    const { deletion, instances, outOfUse, service, stateOf, write } = startProcess();
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

  it('works on a full disk', async () => {
    const { deletion, disk, service, write } = startProcess();
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
});
