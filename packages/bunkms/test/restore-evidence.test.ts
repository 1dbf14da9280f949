import { readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { exportedKeySchema, keyDetailSchema, leasePageSchema } from '@bundoc/shared/contract/keys';
import { describe, expect, it } from 'vitest';
import { verifyChain } from '../src/records/chain.ts';
import { bunkms } from './support/command.ts';
import { MAY_ISSUE_ALL } from './support/kms.ts';
import { KeyCalls } from './support/lifecycle.ts';
import { auditCopyOf, backupOf } from './support/recovery.ts';
import {
  dataDir,
  keys,
  kms,
  materialOf,
  openRestored,
  restoreHere,
  statesOf,
  useRestores,
} from './support/restored-stores.ts';
import { expectSound } from './support/soundness.ts';

useRestores();

describe('a backup with later evidence', () => {
  it('restores nothing that was withdrawn since', async () => {
    const names = ['kept', 'gone', 'held', 'ending', 'secret', 'worn', 'turned', 'freed', 'policy'];
    for (const name of names) await keys.make(`${name}-dek`, 'enabled');
    await keys.post('freed-dek', 'disable');
    const revoked = await kms.issue({ scope: ['kms:read_key'], keys: ['*'] });
    // These are revoked before the backup: the restore revokes them no more.
    for (let n = 0; n < 2; n++) {
      const { jti } = await kms.issue({ scope: ['kms:read_key'], keys: ['*'] });
      const { token } = await kms.issue({ scope: ['kms:admin'], may_issue: MAY_ISSUE_ALL });
      await kms.api(`/v1/tokens/${jti}`, { method: 'DELETE', token });
    }
    const kept = await kms.issue({ scope: ['kms:read_key'], keys: ['*'] });
    const material = await materialOf(keys, 'turned-dek', 2);
    const { archive, facts } = await backupOf(kms);

    await keys.shred('gone-dek');
    await keys.post('held-dek', 'disable');
    await keys.delete('ending-dek', '?pending_days=9');
    await keys.patch('secret-dek', { exportable: false });
    await keys.destroyVersion('worn-dek', 1);
    await keys.post('turned-dek', 'rotate');
    await keys.post('freed-dek', 'enable');
    await keys.patch('policy-dek', { rotate_after_days: 30 });
    await keys.make('new-dek', 'enabled');
    await keys.make('short-dek', 'destroyed');
    const admin = (await kms.issue({ scope: ['kms:admin'], may_issue: MAY_ISSUE_ALL })).token;
    await kms.api(`/v1/tokens/${revoked.jti}`, { method: 'DELETE', token: admin });
    const issued = await kms.issue({ scope: ['kms:read_key'], keys: ['*'] });
    const lost = await kms.issue({ typ: 'client', scope: ['docs:read'], projects: ['p'] });
    await kms.api(`/v1/tokens/${lost.jti}`, { method: 'DELETE', token: admin });
    const states = await statesOf(kms);
    const released = exportedKeySchema.parse((await keys.export('kept-dek')).json());
    const report = await restoreHere({ archive, auditCopy: await auditCopyOf(kms) });
    expect(report).toMatchObject({
      knowledge: 'audit-copy',
      held: [],
      destroyed: ['gone-dek', 'short-dek'],
      incomplete: ['new-dek', 'turned-dek'],
      damaged: [],
      tokens_revoked: 1,
      signing_key_kept: true,
    });
    expect(report.as_of.seq).toBeGreaterThan(facts.audit.seq);
    await using restored = await openRestored();
    expect(await statesOf(restored)).toEqual(states);
    await expectSound(restored);
    const calls = await KeyCalls.of(restored);
    for (const name of ['gone-dek', 'short-dek']) {
      expect((await calls.export(name)).json()).toMatchObject({ code: 'key_destroyed' });
      expect((await calls.create(name)).json()).toMatchObject({ code: 'key_destroyed' });
    }
    expect((await calls.export('held-dek')).json()).toMatchObject({ code: 'key_disabled' });
    expect((await calls.export('secret-dek')).json()).toMatchObject({ code: 'key_not_exportable' });
    const ending = keyDetailSchema.parse((await calls.read('ending-dek')).json());
    expect(ending.deletion_at).toBe(
      keyDetailSchema.parse((await keys.read('ending-dek')).json()).deletion_at,
    );
    expect((await calls.export('worn-dek', 1)).json()).toMatchObject({ code: 'key_version_destroyed' });
    expect((await calls.export('worn-dek')).status).toBe(200);
    const policy = keyDetailSchema.parse((await calls.read('policy-dek')).json());
    expect(policy).toMatchObject({ rotate_after_days: 30, next_rotation_at: expect.any(String) });
    // The number of a version that is known to exist is not reused.
    expect((await calls.export('turned-dek')).json()).toMatchObject({ code: 'key_damaged' });
    expect((await calls.post('turned-dek', 'rotate')).json()).toMatchObject({ code: 'key_damaged' });
    expect(await materialOf(calls, 'turned-dek', 2)).toBe(material);
    for (const name of ['new-dek', 'kept-dek'])
      expect((await calls.create(name)).json()).toMatchObject({ code: 'key_exists' });

    for (const [{ token }, status] of [
      [revoked, 401],
      [kept, 200],
      [issued, 200],
    ] as const)
      expect((await restored.api('/v1/keys', { token })).status).toBe(status);
    // Bundoc gets the revocation event again.
    const revokedJtis = (await restored.store.listRevoked('2020-01-01T00:00:00.000Z', { limit: 100 })).items;
    expect(revokedJtis.map(({ detail }) => detail?.['token'])).toEqual(
      expect.arrayContaining([revoked.jti, lost.jti]),
    );

    const { chainKey } = await restored.secrets();
    const fault = await verifyChain(chainKey, await restored.records(), [released.audit]);
    const leases = leasePageSchema.parse(
      (
        await restored.api('/v1/keys/kept-dek/leases', {
          token: (await restored.issue({ scope: ['kms:read_key'], keys: ['*'] })).token,
        })
      ).json(),
    );
    // The chain loses nothing, and neither does anything derived from it.
    expect(fault).toMatchObject({ intact: true });
    expect(leases.leases.map(({ id }) => id)).toContain(released.lease.id);
  });

  it('restores nothing that only a rollback of the store had brought back, unless somebody enables it', async () => {
    const names = ['gone', 'held', 'secret', 'worn', 'kept', 'chosen'];
    for (const name of names) await keys.make(`${name}-dek`, 'enabled');
    const revoked = await kms.issue({ scope: ['kms:read_key'], keys: ['*'] });
    const { archive } = await backupOf(kms);
    const atBackup = await auditCopyOf(kms, join(kms.dataDir, 'at-backup'));
    await keys.shred('gone-dek');
    for (const name of ['held', 'chosen']) await keys.post(`${name}-dek`, 'disable');
    await keys.patch('secret-dek', { exportable: false });
    await keys.destroyVersion('worn-dek', 1);
    await keys.patch('kept-dek', { rotate_after_days: 30 });
    const { token } = await kms.issue({ scope: ['kms:admin'], may_issue: MAY_ISSUE_ALL });
    await kms.api(`/v1/tokens/${revoked.jti}`, { method: 'DELETE', token });
    // Issued and revoked in the end that is lost: the store never hears of it, but Bundoc would accept it.
    const short = await kms.issue({ typ: 'client', scope: ['docs:read'], projects: ['p'] });
    await kms.api(`/v1/tokens/${short.jti}`, { method: 'DELETE', token });
    const lost = await readFile(await auditCopyOf(kms));

    // As after a rollback: the chain continues from the backup, and everything works again.
    await restoreHere({ archive, auditCopy: atBackup });
    const copy = join(kms.dataDir, 'both');
    {
      await using rolledBack = await openRestored();
      const calls = await KeyCalls.of(rolledBack);
      for (const name of names) expect((await calls.export(`${name}-dek`)).status).toBe(200);
      for (const act of ['disable', 'enable'] as const) await calls.post('chosen-dek', act);
      await auditCopyOf(rolledBack, copy);
    }
    await writeFile(copy, Buffer.concat([lost, await readFile(copy)]));
    await rm(dataDir, { recursive: true });

    const report = await restoreHere({ archive, auditCopy: copy });
    expect(report).toMatchObject({ held: ['gone-dek', 'held-dek', 'kept-dek', 'secret-dek', 'worn-dek'] });
    // What the lost end did is shown, and all of them at once are not enabled.
    const review = { BUNKMS_DATA_DIR: dataDir, BUNKMS_KEK: kms.kek };
    const { stdout } = await bunkms(review, 'key', 'review', '--enable-all', '--json');
    expect(JSON.parse(stdout)).toMatchObject({
      enabled: [],
      keys: [
        { name: 'gone-dek', was: 'enabled', lost_withdrawal: 'key.destroy' },
        { name: 'held-dek', was: 'enabled', lost_withdrawal: 'key.disable' },
        { name: 'kept-dek', was: 'enabled', lost_withdrawal: 'key.update' },
        { name: 'secret-dek', was: 'enabled', lost_withdrawal: 'key.update' },
        { name: 'worn-dek', was: 'enabled', lost_withdrawal: 'key.destroy_version' },
      ],
    });
    await using restored = await openRestored();
    expect(await statesOf(restored)).toEqual({
      'chosen-dek': 'enabled',
      'gone-dek': 'disabled',
      'held-dek': 'disabled',
      'kept-dek': 'disabled',
      'secret-dek': 'disabled',
      'worn-dek': 'disabled',
    });
    expect((await restored.api('/v1/keys', { token: revoked.token })).status).toBe(401);
    const events = (await restored.store.listRevoked('2020-01-01T00:00:00.000Z', { limit: 100 })).items;
    expect(new Set(events.map(({ detail }) => detail?.['token']))).toEqual(new Set([revoked.jti, short.jti]));
    await expectSound(restored);
  });
});
