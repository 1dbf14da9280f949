import { join } from 'node:path';
import { exportedKeySchema } from '@bundoc/shared/contract/keys';
import { describe, expect, it } from 'vitest';
import { bunkms } from './support/command.ts';
import { edit, KeyCalls } from './support/lifecycle.ts';
import { auditCopyOf, backupOf, recoverFrom, restoreInto, writeProject } from './support/recovery.ts';
import {
  dataDir,
  keys,
  kms,
  openRestored,
  restoreHere,
  statesOf,
  useRestores,
} from './support/restored-stores.ts';

useRestores();

const run = (...args: string[]) =>
  bunkms({ BUNKMS_DATA_DIR: dataDir, BUNKMS_KEK: kms.kek }, 'key', 'review', ...args);

async function review(...args: string[]) {
  const { code, stdout, stderr } = await run(...args, '--json');
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  return JSON.parse(stdout);
}

const STATES = ['enabled', 'disabled', 'pending_deletion', 'destroyed'] as const;
const nameOf = (state: string) => `${state.replace('_', '-')}-dek`;

async function makeAndRestore() {
  for (const state of STATES) await keys.make(nameOf(state), state);
  await keys.make('other-dek', 'enabled');
  const { archive } = await backupOf(kms);
  return restoreHere({ archive });
}

describe('bunkms key review', () => {
  it('lists the keys that came back disabled without evidence, with their last known state', async () => {
    const { held } = await makeAndRestore();
    const { keys: waiting, enabled } = await review();
    expect(waiting).toMatchObject([
      { name: 'disabled-dek', was: 'disabled' },
      { name: 'enabled-dek', was: 'enabled', version: expect.any(Number), since: expect.any(String) },
      { name: 'other-dek', was: 'enabled' },
      { name: 'pending-deletion-dek', was: 'pending_deletion' },
    ]);
    expect(waiting.map(({ name }: { name: string }) => name)).toEqual(held);
    expect(enabled).toEqual([]);
    const { code, stdout } = await run();
    expect(code).toBe(0);
    expect(stdout).toMatch(/^disabled-dek {2}disabled {2}\d+ {2}was disabled {2}\S+Z\n/);
    expect(Object.values(await states())).not.toContain('enabled');
  });

  it('enables the chosen keys only, or all but those that were withdrawn before the backup', async () => {
    await makeAndRestore();
    const chosen = await review('--enable', 'other-dek,pending-deletion-dek', '--enable', 'other-dek');
    expect(chosen.enabled).toEqual(['other-dek', 'pending-deletion-dek']);
    expect(chosen.keys).toMatchObject([{ name: 'disabled-dek' }, { name: 'enabled-dek' }]);
    expect(await states()).toEqual({
      'destroyed-dek': 'destroyed',
      'disabled-dek': 'disabled',
      'enabled-dek': 'disabled',
      'other-dek': 'enabled',
      'pending-deletion-dek': 'enabled',
    });
    const all = await review('--enable-all');
    expect(all).toMatchObject({ enabled: ['enabled-dek'], keys: [{ name: 'disabled-dek' }] });
    // Again: nothing is left that it enables.
    expect(await review('--enable-all')).toMatchObject({ enabled: [], keys: [{ name: 'disabled-dek' }] });
    expect((await states())['disabled-dek']).toBe('disabled');
  });

  it('refuses wrong input, and then enables nothing', async () => {
    await makeAndRestore();
    const before = await states();
    for (const [code, message, ...args] of [
      [2, /not both/, '--enable', 'other-dek', '--enable-all'],
      [2, /--enable <names>/, '--enable', 'other-dek,'],
      [2, /--enable <names>/, '--enable', 'OTHER'],
      [2, /too many arguments/, 'other-dek'],
      [5, /do not wait for a review: no-dek;/, '--enable', 'other-dek,no-dek'],
      [5, /do not wait for a review: destroyed-dek;/, '--enable', 'other-dek,destroyed-dek'],
    ] as const) {
      const finished = await run(...args);
      expect({ args, code: finished.code, stdout: finished.stdout }).toEqual({ args, code, stdout: '' });
      expect(finished.stderr).toMatch(message);
    }
    expect(await states()).toEqual(before);
    // A key that an administrator has disabled does not wait.
    await review('--enable', 'other-dek');
    await disable('other-dek');
    expect((await run('--enable', 'other-dek')).code).toBe(5);
    expect((await review()).keys.map(({ name }: { name: string }) => name)).not.toContain('other-dek');
  });

  it('still lists a key after other changes, and after a restore with a copy of the chain', async () => {
    await makeAndRestore();
    let next: { archive: Buffer; auditCopy: string };
    {
      await using service = await openRestored();
      const calls = await KeyCalls.of(service);
      const { archive } = await backupOf(service);
      await calls.patch('enabled-dek', { rotate_after_days: 30 });
      await calls.delete('enabled-dek');
      await calls.post('enabled-dek', 'restore');
      next = { archive, auditCopy: await auditCopyOf(service, join(kms.dataDir, 'copy')) };
    }
    const again = join(dataDir, '..', 'again');
    expect(await restoreInto({ ...next, kek: kms.kek, dataDir: again })).toMatchObject({ held: [] });
    const finished = await bunkms(
      { BUNKMS_DATA_DIR: again, BUNKMS_KEK: kms.kek },
      ...['key', 'review', '--json'],
    );
    expect(JSON.parse(finished.stdout).keys).toContainEqual(
      expect.objectContaining({ name: 'enabled-dek', was: 'enabled' }),
    );
  });

  it('lists keys that a recovery brought back: unknown ones, and those that were damaged in a backup', async () => {
    const bundoc = join(dataDir, '..', 'bundoc');
    for (const project of ['late', 'torn']) {
      await keys.create(`${project}-dek`);
      writeProject(bundoc, project, [exportedKeySchema.parse((await keys.export(`${project}-dek`)).json())]);
    }
    edit(kms, `UPDATE keys SET exportable = 0 WHERE name = 'torn-dek'`);
    const { archive } = await backupOf(kms);
    await restoreHere({ archive });
    {
      await using service = await openRestored();
      await keys.create('new-dek');
      writeProject(bundoc, 'new', [exportedKeySchema.parse((await keys.export('new-dek')).json())]);
      await recoverFrom(service, bundoc);
    }
    expect((await review()).keys).toMatchObject([
      { name: 'late-dek', was: 'enabled' },
      { name: 'new-dek', was: 'unknown' },
      { name: 'torn-dek', was: 'enabled' },
    ]);
    expect((await review('--enable-all')).enabled).toEqual(['late-dek', 'new-dek', 'torn-dek']);
  });
});

async function states() {
  await using service = await openRestored();
  return await statesOf(service);
}

async function disable(name: string) {
  await using service = await openRestored();
  expect((await (await KeyCalls.of(service)).post(name, 'disable')).status).toBe(200);
}
