import { randomUUID } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { storageInfoSchema } from '@bundoc/shared/contract/storages';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { storageDraft } from '../src/records/storage-record.ts';
import {
  clock,
  expectRefused,
  kms,
  NAME,
  s,
  storageOf,
  t,
  takeOverStorage,
  useHolders,
} from './support/holders.ts';
import { startKms, type TestKms } from './support/kms.ts';
import { auditCopyOf, backupOf, type RestoreFrom, restoreInto } from './support/recovery.ts';
import { testStorage } from './support/storage.ts';
import { TestStorageNode } from './support/storages.ts';

useHolders();

let folder: string;
const opened: TestKms[] = [];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'bunkms-restored-storages-'));
});
afterEach(async () => {
  for (const one of opened.splice(0)) {
    await one[Symbol.asyncDispose]();
    await testStorage().forget(one.dataDir);
  }
  rmSync(folder, { recursive: true });
});

/** Restores a backup into a new store, and starts a service on it. */
async function restored(from: Omit<RestoreFrom, 'kek' | 'dataDir'>) {
  const dataDir = join(folder, randomUUID());
  const report = await restoreInto({ kek: kms.kek, dataDir, clock, ...from });
  const service = await startKms({ dataDir, kek: kms.kek, clock });
  opened.push(service);
  return { service, report };
}

async function infoAt(service: TestKms, id: string) {
  const answer = await service.api(`/v1/storages/${id}`, { token: await service.fullToken() });
  expect(answer.status, answer.text).toBe(200);
  return storageInfoSchema.strict().parse(answer.json());
}

/** By how much a take-over is later than one that the clock has not passed. */
const MINUTE_MS = 60_000;

const takeOverAt = async (service: TestKms, id: string) =>
  service.api(`/v1/storages/${id}/take-over`, { token: await service.fullToken(), body: { force: true } });

/** Takes the storage over, starts the next copy, and returns the take-over that this copy knows of. */
async function takenOver(): Promise<number> {
  expect((await takeOverStorage(s.id, { force: true })).status).toBe(200);
  return (await s.advance()).json().taken_over_ms;
}

describe('a restore from a backup that is older than two take-overs', () => {
  it('counts as a take-over later than each one that a Bundoc has seen, and leaves the generation', async () => {
    await takenOver();
    const { archive } = await backupOf(kms, clock);
    const atBackup = s.acting;
    const seen = [await takenOver(), await takenOver()];
    expect(seen).toEqual([clock.now() + MINUTE_MS, clock.now() + 2 * MINUTE_MS]);
    clock.advance(3 * MINUTE_MS);

    const { service, report } = await restored({ archive });
    expect(report).toMatchObject({ storages: 2 });
    const info = await infoAt(service, s.id);
    const raised = clock.now();
    expect(info).toMatchObject({ generation: atBackup.generation, taken_over_ms: raised });
    expect((await infoAt(service, t.id)).taken_over_ms).toBe(raised);
    // A Bundoc with the generation of the backup continues without a take-over.
    const running = await TestStorageNode.at(service, atBackup);
    expect((await running.create(NAME)).status).toBe(201);
    expect((await running.advance()).json()).toMatchObject({ taken_over_ms: raised });
    // A later one needs a take-over, as before, and that has a later time.
    const later = await TestStorageNode.at(service, s.acting);
    expectRefused(await later.advance(), 409, 'storage_superseded');
    await takeOverAt(service, s.id);
    expect((await later.advance()).json()).toMatchObject({ taken_over_ms: raised + MINUTE_MS });
  });

  it('a second restore from the same old backup does not repeat a take-over of the first', async () => {
    await takenOver();
    const { archive } = await backupOf(kms, clock);
    clock.advance(60_000);
    const first = (await restored({ archive })).service;
    clock.advance(1);
    const seen = (await takeOverAt(first, s.id)).json().taken_over_ms;
    clock.advance(2_000);
    const second = (await restored({ archive })).service;
    expect((await infoAt(second, s.id)).taken_over_ms).toBeGreaterThan(seen);
  });

  it('counts as later than a take-over after a changed record, and than earlier restores', async () => {
    const { archive: first } = await backupOf(kms, clock);
    clock.advance(300_000);
    const between = (await restored({ archive: first })).service;
    const { archive: second } = await backupOf(between, clock);
    clock.advance(300_000);
    const seen = (await infoAt((await restored({ archive: second })).service, s.id)).taken_over_ms;
    clock.advance(300_000);
    expect((await infoAt((await restored({ archive: first })).service, s.id)).taken_over_ms).toBeGreaterThan(
      seen,
    );

    await testStorage().edit(
      kms.dataDir,
      `UPDATE audit SET detail = replace(detail, '"taken_over_ms":0', '"taken_over_ms":7') WHERE detail LIKE '%${s.id}%'`,
    );
    clock.advance(60_000);
    const afterChange = (await takeOverAt(kms, s.id)).json().taken_over_ms;
    clock.advance(3_600_000);
    expect((await infoAt((await restored({ archive: first })).service, s.id)).taken_over_ms).toBeGreaterThan(
      afterChange,
    );
  });

  it('counts from the copy of the audit chain where there is one, and ends with the new epoch', async () => {
    await takenOver();
    const { archive } = await backupOf(kms, clock);
    await takenOver();
    const auditCopy = await auditCopyOf(kms, join(folder, 'copy'));
    clock.advance(2 * MINUTE_MS);
    const { service } = await restored({ archive, auditCopy });
    expect(await infoAt(service, s.id)).toMatchObject({
      generation: s.generation,
      taken_over_ms: clock.now(),
    });
    const records = await service.records();
    const end = records.findIndex(({ action }) => action === 'chain.restored');
    const raised = records
      .slice(0, end)
      .filter(({ detail }) => Number(detail?.['taken_over_ms']) >= clock.now());
    expect(raised).toMatchObject([
      { action: 'storage.take_over', severity: 'CRITICAL', detail: { storage: s.id } },
      { action: 'storage.take_over', severity: 'CRITICAL', detail: { storage: t.id } },
    ]);
    expect(records[end - 1]).toMatchObject({ action: 'store.restored', detail: { storages: 2 } });
    expect(await service.verify()).toMatchObject({ intact: true });
  });

  it('keeps the next start accepted, and a changed record refused', async () => {
    await takeOverStorage(t.id, { force: true });
    await testStorage().edit(
      kms.dataDir,
      `UPDATE audit SET detail = replace(detail, '"taken_over_ms":0', '"taken_over_ms":7') WHERE detail LIKE '%${s.id}%'`,
    );
    const { archive } = await backupOf(kms, clock);
    clock.advance(2 * MINUTE_MS);
    const { service, report } = await restored({ archive });
    expect(report).toMatchObject({ storages: 1 });
    expect(await infoAt(service, t.id)).not.toHaveProperty('generation');
    expect((await infoAt(service, t.id)).taken_over_ms).toBe(clock.now());
    const changed = await service.api(`/v1/storages/${s.id}`, { token: await service.fullToken() });
    expectRefused(changed, 500, 'integrity_error');
    // The former time is unknown from then on.
    const taken = (await takeOverAt(service, s.id)).json();
    expect(taken.taken_over_ms).toBeGreaterThan(clock.now());
  });

  it('a restore from an old backup makes one record for each of 10,000 storages, and no more', async () => {
    const time = new Date(clock.now()).toISOString();
    const ids = Array.from({ length: 10_000 }, () => randomUUID());
    const drafts = ids.map((id) =>
      storageDraft({ caller: { actor: 'test' }, time }, 'storage.advance', {
        id,
        generation: randomUUID(),
        takenOverMs: 3,
      }),
    );
    for (let at = 0; at < drafts.length; at += 1_000)
      await kms.store.appendAudit(drafts.slice(at, at + 1_000));
    const { archive, facts } = await backupOf(kms, clock);
    const { service, report } = await restored({ archive });
    expect(report).toMatchObject({ storages: 10_002 });
    expect(report.audit.seq - facts.audit.seq).toBeLessThan(10_020);
    expect((await infoAt(service, ids[9_999] ?? '')).taken_over_ms).toBe(clock.now());
  });
});

describe('a storage that BunKMS does not know', () => {
  it('has no take-overs when it is new', async () => {
    expect((await storageOf(s.id)).taken_over_ms).toBe(0);
  });

  it('counts as taken over at that moment, if it has had a generation', async () => {
    await takenOver();
    const fresh = await startKms({ kek: kms.kek, clock });
    opened.push(fresh);
    const known = await TestStorageNode.at(fresh, s.acting);
    const now = clock.now();
    expect((await known.advance()).json()).toMatchObject({ taken_over_ms: now });
    expect((await known.advance()).json()).toMatchObject({ taken_over_ms: now });
    expect((await takeOverAt(fresh, s.id)).json()).toMatchObject({ taken_over_ms: now + MINUTE_MS });
  });
});
