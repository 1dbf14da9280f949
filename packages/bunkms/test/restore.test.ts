import { rmSync } from 'node:fs';
import { parseReceipt, RECEIPT_HEADER } from '@bundoc/shared/contract/kms-receipt';
import { describe, expect, it } from 'vitest';
import { verifyChain } from '../src/records/chain.ts';
import { readAuditCopy } from '../src/recovery/audit-copy.ts';
import { EvidenceOfCopy, requireReceipts } from '../src/recovery/evidence.ts';
import { surveyArchive } from '../src/recovery/survey.ts';
import { KeyCalls } from './support/lifecycle.ts';
import { auditCopyOf, backupOf, restoreInto, sourceOf, vaultOf } from './support/recovery.ts';
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

describe('a backup', () => {
  it('a restore without later evidence disables all keys, revokes all tokens, and records this in the chain', async () => {
    for (const state of ['enabled', 'disabled', 'pending_deletion', 'destroyed'] as const)
      await keys.make(`${state.replace('_', '-')}-dek`, state);
    const before = await materialOf(keys, 'enabled-dek', 1);
    const { token } = await kms.issue({ scope: ['kms:read_key'], keys: ['*'] });
    const { archive, facts } = await backupOf(kms);
    await keys.export('enabled-dek');
    const later = await kms.store.auditHead();

    const report = await restoreHere({ archive });
    expect(report).toMatchObject({
      archive: facts.id,
      backup_audit: facts.audit,
      knowledge: 'none',
      keys: 4,
      held: ['disabled-dek', 'enabled-dek', 'pending-deletion-dek'],
      destroyed: [],
      incomplete: [],
      damaged: [],
      signing_key_kept: false,
    });
    await using restored = await openRestored();
    expect(await statesOf(restored)).toEqual({
      'destroyed-dek': 'destroyed',
      'disabled-dek': 'disabled',
      'enabled-dek': 'disabled',
      'pending-deletion-dek': 'disabled',
    });
    await expectSound(restored);
    expect((await restored.api('/v1/keys', { token })).status).toBe(401);
    expect((await restored.secrets()).publicKey.kid).not.toBe((await kms.secrets()).publicKey.kid);

    const records = await restored.records();
    expect(records[facts.audit.seq]).toMatchObject({
      severity: 'CRITICAL',
      action: 'store.restore',
      detail: {
        archive: facts.id,
        backup_seq: facts.audit.seq,
        backup_hash: facts.audit.hash,
        knowledge: 'none',
      },
    });
    const recovered = records.filter(({ action }) => action === 'key.recover');
    expect(recovered.map(({ key, severity, detail }) => [key, severity, detail])).toEqual(
      ['disabled-dek', 'enabled-dek', 'pending-deletion-dek'].map((name) => [
        name,
        'CRITICAL',
        expect.objectContaining({ state: 'disabled', later_state: 'unknown' }),
      ]),
    );
    expect(records.find(({ action }) => action === 'store.restored')).toMatchObject({ detail: { held: 3 } });
    // A receipt from after the backup no longer matches; one from before does, and that of the restore.
    const { chainKey } = await restored.secrets();
    expect(await verifyChain(chainKey, records, [later])).toMatchObject({
      intact: false,
      fault: { seq: later.seq, reason: 'not the record of the receipt' },
    });
    expect(await verifyChain(chainKey, records, [facts.audit, report.audit])).toMatchObject({ intact: true });

    const calls = await KeyCalls.of(restored);
    expect((await calls.export('enabled-dek')).json()).toMatchObject({ code: 'key_disabled' });
    expect((await calls.post('enabled-dek', 'enable')).status).toBe(200);
    expect(await materialOf(calls, 'enabled-dek', 1)).toBe(before);
    expect((await calls.create('destroyed-dek')).json()).toMatchObject({ code: 'key_destroyed' });
  });

  it('is restored unchanged when a copy of the chain has no later changes', async () => {
    for (const state of ['enabled', 'disabled', 'pending_deletion', 'destroyed'] as const)
      await keys.make(`${state.replace('_', '-')}-dek`, state);
    const { token } = await kms.issue({ scope: ['kms:read_key'], keys: ['*'] });
    const { archive } = await backupOf(kms);
    const before = await statesOf(kms);
    const report = await restoreHere({ archive, auditCopy: await auditCopyOf(kms) });
    expect(report).toMatchObject({
      held: [],
      destroyed: [],
      incomplete: [],
      tokens_revoked: 0,
      signing_key_kept: true,
    });
    await using restored = await openRestored();
    expect(await statesOf(restored)).toEqual(before);
    await expectSound(restored);
    expect((await restored.records()).filter(({ action }) => action === 'key.recover')).toEqual([]);
    expect((await restored.api('/v1/keys', { token })).status).toBe(200);
  });

  it('is checked against receipts: of another history, or beyond the evidence', async () => {
    await keys.make('a-dek', 'enabled');
    const { archive, facts } = await backupOf(kms);
    await keys.export('a-dek');
    const copied = await kms.store.auditHead();
    const auditCopy = await auditCopyOf(kms);
    await keys.export('a-dek');
    const later = await kms.store.auditHead();
    const survey = await surveyArchive(vaultOf(kms.kek), sourceOf(archive), {
      receipts: [facts.audit, later],
    });
    await expect(
      surveyArchive(vaultOf(kms.kek), sourceOf(archive), {
        receipts: [{ ...facts.audit, hash: '0'.repeat(64) }],
      }),
    ).rejects.toMatchObject({ name: 'DamagedFile' });
    const copy = await readAuditCopy([auditCopy], survey.secrets.chainKey, survey.end.audit);
    const evidence = new EvidenceOfCopy(copy, survey);
    requireReceipts(survey, evidence, [facts.audit, copied]);
    requireReceipts(survey, undefined, [facts.audit]);
    for (const [known, receipt] of [
      [evidence, later],
      [undefined, copied],
    ] as const)
      expect(() => requireReceipts(survey, known, [receipt])).toThrow(/nothing is known after/);
    expect(() => requireReceipts(survey, evidence, [{ ...copied, hash: '0'.repeat(64) }])).toThrow(
      /to another history/,
    );
  });

  it('a backup that is restored ends all receipts from before, even when it is restored twice', async () => {
    await keys.make('a-dek', 'enabled');
    const { archive } = await backupOf(kms);
    const receiptOf = async (of: KeyCalls) => String((await of.export('a-dek')).headers[RECEIPT_HEADER]);
    const receipts = [await receiptOf(keys)];
    for (let time = 0; time < 2; time++) {
      await restoreHere({ archive });
      await using restored = await openRestored();
      const calls = await KeyCalls.of(restored);
      await calls.post('a-dek', 'enable');
      const token = await restored.fullToken();
      for (const receipt of receipts) {
        const headers = { [RECEIPT_HEADER]: receipt };
        expect((await restored.internal('/v1/export/a-dek', { token, headers })).status).toBe(200);
      }
      receipts.push(await receiptOf(calls));
      const [last] = (await restored.records()).filter(({ action }) => action === 'chain.restored');
      expect(last).toMatchObject({ severity: 'CRITICAL', detail: { epoch: expect.any(Number) } });
      await restored.running.close();
      rmSync(dataDir, { recursive: true });
    }
    const epochs = receipts.map((receipt) => parseReceipt(receipt)?.epoch ?? Number.NaN);
    expect(epochs).toEqual([...epochs].sort((one, other) => one - other));
    expect(new Set(epochs).size).toBe(3);
  });

  it('is never restored over an existing store, even while its service runs', async () => {
    await keys.make('a-dek', 'enabled');
    const { archive } = await backupOf(kms);
    await keys.make('b-dek', 'enabled');
    const head = await kms.store.auditHead();
    await expect(restoreInto({ archive, kek: kms.kek, dataDir: kms.dataDir })).rejects.toMatchObject({
      name: 'StoreNotEmpty',
    });
    expect(await kms.store.auditHead()).toEqual(head);
    expect((await keys.export('b-dek')).status).toBe(200);
  });
});
