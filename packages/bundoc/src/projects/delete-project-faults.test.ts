import { AppError } from '@bundoc/shared/contract/app-error';
import { describe, expect, it } from 'vitest';
import { DOWN, filesOf, MARK, startProcess } from '../testing/project-deletions.ts';
import type { Survival } from '../testing/simulated-file.ts';

describe('a deletion', () => {
  it('a deletion sends its intent again when it got no answer and the first one can no longer take effect', async () => {
    const { deletion, service, settled, write } = startProcess();
    await write();
    service.unanswered.add('intendDeletion');
    expect(await deletion.delete('p')).toMatchObject({ key: { name: 'p-dek' } });
    expect(settled).toEqual([2]);
    expect(service.changes.map(({ kind }) => kind)).toEqual(['create', 'intend', 'destroy', 'removed']);
  });

  it.each(['rate_limited', 'overloaded'] as const)(
    'a deletion whose intent took effect without an answer is not reported as refused when the next is %s',
    async (code) => {
      const { deletion, disk, service, write } = startProcess();
      await write();
      service.unanswered.add('intendDeletion');
      service.onIntent = async () => {
        if (service.unanswered.size === 0) service.intentRefusal = new AppError(code, { retryAfterS: 7 });
      };
      await expect(deletion.delete('p')).rejects.toMatchObject({ code: 'kms_unavailable', retryAfterS: 7 });
      expect(service.changes.map(({ kind }) => kind)).toEqual(['create', 'intend']);
      await deletion.resume();
      expect([service.destructions, filesOf(disk)]).toEqual([1, [MARK]]);
    },
  );

  it('a deletion looks up an unanswered intent only when that can no longer take effect', async () => {
    const { deletion, service, settled, stateOf, write } = startProcess();
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
    'a deletion whose answer to %s is lost is finished in the background',
    async (call) => {
      const { deletion, disk, service, stateOf, write } = startProcess();
      await write();
      service.unanswered.add(call);
      await expect(deletion.delete('p')).rejects.toMatchObject({ code: 'kms_unavailable' });
      expect(await stateOf()).toBe('project_destroyed');
      deletion.requestCheck();
      await expect.poll(() => service.changes.at(-1)?.kind).toBe('removed');
      expect([service.destructions, filesOf(disk)]).toEqual([1, [MARK]]);
    },
  );

  it('a deletion that an administrator cancels before the key is destroyed leaves the project unchanged', async () => {
    const { deletion, service, stateOf, write, keys } = startProcess();
    await write();
    service.shredsFail = true;
    await expect(deletion.delete('p')).rejects.toMatchObject({ code: 'kms_unavailable' });
    service.restore('p-dek');
    service.shredsFail = false;
    await deletion.resume();
    keys.evict('p');
    expect([service.destructions, await stateOf()]).toEqual([0, 'open']);
  });

  it('a deletion whose key changes after it was listed is finished in the next round', async () => {
    const { deletion, disk, service, stateOf, write } = startProcess();
    await write();
    service.shredsFail = true;
    await expect(deletion.delete('p')).rejects.toMatchObject({ code: 'kms_unavailable' });
    service.shredsFail = false;
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
    'a deletion whose key is %s before it is destroyed does not promise an end',
    async (what) => {
      const { deletion, service, stateOf, write } = startProcess();
      await write();
      const { intendDeletion } = service;
      service.intendDeletion = async (...args) => {
        const intent = await intendDeletion.call(service, ...args);
        if (what === 'changed') await service.rotateKey('p-dek', 1);
        else service.restore('p-dek');
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

  it('makes the process ask BunKMS for unfinished deletions only while there are any', async () => {
    const { deletion, service, write } = startProcess();
    await write();
    let asked = 0;
    const { unfinishedDeletions } = service;
    service.unfinishedDeletions = (acting) => {
      asked++;
      return unfinishedDeletions.call(service, acting);
    };
    await deletion.resume();
    expect(asked).toBe(0);
    service.shredsFail = true;
    await deletion.delete('p').catch(() => undefined);
    for (let n = 0; n < 3; n++) await deletion.resume();
    expect(asked).toBe(3);
    service.shredsFail = false;
    for (let n = 0; n < 5; n++) await deletion.resume();
    // Once to finish it, and not again: nothing is left.
    expect(asked).toBe(4);
  });

  it('a deletion that another node has finished in the meantime keeps the receipt', async () => {
    const { deletion, projects, service, write } = startProcess();
    await write();
    const { unfinishedDeletions } = service;
    const [listed, over] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    service.unfinishedDeletions = async (acting) => {
      const found = await unfinishedDeletions.call(service, acting);
      listed.resolve();
      await over.promise;
      return found;
    };
    service.shredsFail = true;
    await deletion.delete('p').catch(() => undefined);
    service.shredsFail = false;
    const late = deletion.resume();
    await listed.promise;
    const answer = await deletion.delete('p');
    over.resolve();
    await late;
    expect(answer.key).toMatchObject({ name: 'p-dek' });
    expect((await projects.deletionOf('p'))?.receipt).toEqual(answer.key);
  });

  it('a deletion whose key BunKMS does not know is not reported as destroyed', async () => {
    const { deletion, service, write } = startProcess();
    await write();
    const key = service.keys.get('p-dek')!;
    service.keys.delete('p-dek');
    await expect(deletion.delete('p')).rejects.toMatchObject({ code: 'key_missing' });
    service.keys.set('p-dek', key);
    expect(await deletion.delete('p')).toMatchObject({ key: { id: key.keyId } });
  });

  it('a deletion whose key an administrator has already destroyed removes the content, and has no receipt', async () => {
    const { deletion, disk, service, write } = startProcess();
    await write();
    service.destroy('p-dek');
    expect(await deletion.delete('p')).not.toHaveProperty('key');
    expect(filesOf(disk)).toEqual([MARK]);
  });

  it('a deletion that a crash interrupts at any step is finished by the next process, or had not begun', {
    timeout: 60_000,
  }, async () => {
    const whole = startProcess();
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
          const before = startProcess();
          await before.write();
          before.disk.failAt({ operation, when, what: 'crash' });
          // What is under way when the process dies never settles.
          await Promise.race([before.deletion.delete('p'), before.disk.crashes]).catch(() => undefined);
          const label = `crash ${when} ${before.disk.trace.at(-1)}, ${JSON.stringify(survival)}`;
          const after = startProcess(before.disk.powerCut(survival), before.service);
          // A process that was killed leaves no state that looks like damage.
          if (survival === 'everything') expect(await after.stateOf(), label).not.toBe('project_damaged');
          after.deletion.requestCheck();
          await expect.poll(() => after.service.changes.at(-1)?.kind, { message: label }).toBe('removed');
          expect(after.service.destructions, label).toBe(1);
          const left = startProcess(after.disk.powerCut('synced only'), before.service);
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
