import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { auditPageSchema } from '@bundoc/shared/contract/audit';
import { exportedKeySchema } from '@bundoc/shared/contract/keys';
import { startInBackground } from '@bundoc/shared/testing/timing';
import { describe, expect, it } from 'vitest';
import { surveyArchive } from '../src/recovery/survey.ts';
import { databasePathOf } from '../src/store/sqlite/sqlite-store.ts';
import { backupOf, sourceOf, vaultOf } from './support/recovery.ts';
import { dataDir, keys, kms, openRestored, restoreHere, useRestores } from './support/restored-stores.ts';

useRestores();

describe('a backup', () => {
  it('a backup that is made during changes of keys is always a consistent snapshot', async () => {
    let isDone = false;
    const work = async (worker: number): Promise<void> => {
      for (let n = 0; !isDone; n++) {
        const name = `w${worker}-${n}`;
        await keys.create(name);
        await keys.post(name, 'rotate');
        await keys.export(name);
        if (n % 2 === 0) await keys.shred(name);
      }
    };
    const working = startInBackground(Promise.all(Array.from({ length: 4 }, (_, worker) => work(worker))));
    const archives: Buffer[] = [];
    for (let n = 0; n < 5; n++) archives.push((await backupOf(kms)).archive);
    isDone = true;
    await working;
    for (const archive of archives) {
      const { chainFault, findings } = await surveyArchive(vaultOf(kms.kek), sourceOf(archive));
      expect({ chainFault, findings }).toEqual({ chainFault: undefined, findings: [] });
    }
    expect(await kms.verify()).toMatchObject({ intact: true });
  });

  it('is recorded before it is made, so it contains that record', async () => {
    const { archive, facts } = await backupOf(kms);
    await restoreHere({ archive });
    await using restored = await openRestored();
    const { token } = await restored.issue({ scope: ['kms:audit'] });
    const page = auditPageSchema.parse((await restored.api('/v1/audit?limit=500', { token })).json());
    expect(page.records[facts.audit.seq - 1]).toMatchObject({
      action: 'store.backup',
      actor: 'tester',
      detail: { archive: facts.id },
    });
  });

  it('contains no plaintext, and no bytes of destroyed keys', async () => {
    await keys.make('planted-dek', 'enabled');
    const wrapped = Buffer.from(
      exportedKeySchema.parse((await keys.export('planted-dek')).json()).wrapped_b64,
      'base64',
    );
    await keys.shred('planted-dek');
    const { archive } = await backupOf(kms);
    for (const text of ['planted-dek', 'key.create', 'aes-256']) expect(archive.includes(text)).toBe(false);
    await restoreHere({ archive });
    expect(existsSync(databasePathOf(dataDir))).toBe(true);
    for (const file of readdirSync(dataDir))
      expect(readFileSync(join(dataDir, file)).includes(wrapped)).toBe(false);
  });
});
