import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ExportedKey } from '@bundoc/shared/contract/keys';
import { describe, expect, it } from 'vitest';
import { FaultyStore } from './support/faulty-store.ts';
import { KeyCalls } from './support/lifecycle.ts';
import {
  bundoc,
  codeOf,
  expectNoDamage,
  expectWhole,
  keys,
  kms,
  makeProject,
  NAME,
  newService,
  useRecovery,
  withoutForeignKeys,
} from './support/recovered-stores.ts';
import { recoverFrom } from './support/recovery.ts';

useRecovery();

describe('a recovery', () => {
  it('a recovery that fails at any write can be run again, and ends with every key restored', async () => {
    const all: ExportedKey[] = [];
    for (const project of ['p', 'q', 'r']) all.push(...(await makeProject(project, 2)));
    let failAt = 1;
    for (; ; failAt++) {
      const faulty = new FaultyStore();
      const service = await newService();
      const store = faulty.decorate(service.store);
      let writes = 0;
      for (const method of ['appendAudit', 'addKek', 'replaceKey', 'updateKey'] as const)
        faulty.replaced[method] = async (real, ...args) => {
          const isLast = ++writes === failAt;
          // Half of the time the write happens, and its answer is lost.
          if (!isLast || failAt % 2 === 0) await real(...args);
          if (isLast) throw new Error('injected');
          return true;
        };
      const failing = recoverFrom({ ...service, store }, bundoc);
      const outcome = await failing.then(
        () => 'done',
        (error: Error) => error.message,
      );
      const again = await recoverFrom(service, bundoc);
      expect(again.every(({ outcome: one }) => one === 'recovered' || one === 'sound')).toBe(true);
      const calls = await KeyCalls.of(service);
      for (const project of ['p', 'q', 'r']) await calls.post(`${project}-dek`, 'enable');
      await expectWhole(service, all);
      await expectNoDamage(service);
      if (outcome === 'done') break;
      expect(outcome).toBe('injected');
    }
    expect(failAt).toBeGreaterThan(4);
  });

  it('does not overwrite concurrent changes of a key', async () => {
    await makeProject('p', 2);
    withoutForeignKeys(`DELETE FROM key_versions WHERE version = 1`);
    const faulty = new FaultyStore();
    let isRaced = false;
    faulty.replaced.updateKey = async (real, ...args) => {
      if (!isRaced) {
        isRaced = true;
        await keys.post(NAME, 'disable');
      }
      return real(...args);
    };
    const store = faulty.decorate(kms.store);
    expect(await recoverFrom({ ...kms, store }, bundoc)).toMatchObject([
      { outcome: 'recovered', state: 'disabled', versions: [1] },
    ]);
    expect(isRaced).toBe(true);
    expect(await codeOf(keys, NAME)).toBe('key_disabled');
    await expectNoDamage(kms);
  });

  it('does not restore a key that was destroyed since the start of the run, however many changes it had since', async () => {
    await makeProject('p', 2);
    const faulty = new FaultyStore();
    faulty.replaced.listAudit = (real, query: object) => real({ ...query, limit: 1 });
    let isRaced = false;
    faulty.replaced.findKey = async (real, name, versions) => {
      if (!isRaced && versions === 'all') {
        isRaced = true;
        for (const action of ['disable', 'enable']) await keys.post(NAME, action);
        await keys.shred(NAME);
        // Then only the chain says that it is destroyed.
        withoutForeignKeys(`UPDATE keys SET state = 'enabled', destroyed_at = NULL`);
      }
      return real(name, versions);
    };
    const store = faulty.decorate(kms.store);
    expect(await recoverFrom({ ...kms, store }, bundoc)).toMatchObject([{ outcome: 'destroyed' }]);
    expect(isRaced).toBe(true);
  });

  it('a recovery that runs many times at once beside the service recovers each key once', async () => {
    const all = await makeProject('p', 3);
    withoutForeignKeys(`DELETE FROM keys WHERE name = '${NAME}'`);
    const runs = await Promise.all(Array.from({ length: 5 }, () => recoverFrom(kms, bundoc)));
    const outcomes = runs.flat().map(({ outcome }) => outcome);
    expect(outcomes.filter((outcome) => outcome === 'recovered')).toHaveLength(1);
    expect(outcomes.filter((outcome) => outcome === 'sound')).toHaveLength(4);
    await expectWhole(kms, all);
    await expectNoDamage(kms);
  });

  it('changes nothing in the folder that it reads', async () => {
    await makeProject('p', 2);
    const filesOf = () =>
      readdirSync(join(bundoc, 'projects', 'p')).map((name) => [
        name,
        readFileSync(join(bundoc, 'projects', 'p', name), 'utf8'),
      ]);
    const before = filesOf();
    await recoverFrom(await newService(), bundoc);
    expect(filesOf()).toEqual(before);
  });
});
