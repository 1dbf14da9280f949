import { randomBytes, randomUUID } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  type ExportedKey,
  exportedKeySchema,
  KEY_VERSIONS_MAX,
  keyDetailSchema,
} from '@bundoc/shared/contract/keys';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { surveyArchive } from '../src/recovery/survey.ts';
import { encodeOutsideDek } from '../src/vault/outside-dek.ts';
import { ATTITUDES, Customer, REFUSAL } from './support/customer.ts';
import { kekIdOfText, rotateKeks } from './support/keks.ts';
import { newDataDir, newKek, startKms, type TestKms } from './support/kms.ts';
import { KeyCalls } from './support/lifecycle.ts';
import {
  auditCopyOf,
  backupOf,
  recoverFrom,
  restoreInto,
  sourceOf,
  vaultOf,
  writeProject,
} from './support/recovery.ts';
import { expectSound } from './support/soundness.ts';

const NAME = 'p-dek';
const KEKS = [newKek(), newKek()];
let customer: Customer;
let kms: TestKms;
let calls: KeyCalls;
let token: string;
let bundoc: string;
/** What an export of the key has released, version by version. */
let released: ExportedKey[];

const start = (dataDir?: string) =>
  startKms({
    kek: KEKS.join('\n'),
    config: { outsideKeysFile: customer.file },
    ...(dataDir === undefined ? {} : { dataDir }),
  });
const exported = async (by = calls, version?: number) =>
  exportedKeySchema.parse((await by.export(NAME, version)).json());
const attach = (at = kms, by = token) =>
  at.api(`/v1/keys/${NAME}/outside`, { token: by, method: 'PUT', body: { key: 'acme' } });
const detailOf = async (by: KeyCalls) => keyDetailSchema.parse((await by.read(NAME)).json());
/** What exports of both versions answer: the first needs nobody, the second the customer. */
const answersOf = async (by: KeyCalls) => {
  const answers = [await by.export(NAME, 1), await by.export(NAME, 2)].map((answer) => answer.json());
  return answers.map(({ code, key_material_b64: material }) => code ?? material);
};
const expectedOf = (attitude: (typeof ATTITUDES)[number]) => [
  released[0]?.key_material_b64,
  REFUSAL[attitude] ?? released[1]?.key_material_b64,
];

beforeEach(async () => {
  customer = await Customer.start();
  bundoc = mkdtempSync(join(tmpdir(), 'bunkms-bundoc-'));
  kms = await start();
  calls = await KeyCalls.of(kms);
  token = await kms.fullToken();
  await calls.create(NAME);
  await attach();
  released = [await exported(calls, 1), await exported(calls, 2)];
  customer.takeCalls();
});
afterEach(async () => {
  await kms[Symbol.asyncDispose]();
  await customer[Symbol.asyncDispose]();
  rmSync(bundoc, { recursive: true });
});

describe.each(ATTITUDES)('while the customer is %s', (attitude) => {
  beforeEach(() => {
    customer.attitude = attitude;
  });

  it('a backup, its verification, and a rotation and retirement of the KEK ask him nothing', async () => {
    const { archive } = await backupOf(kms);
    expect(await surveyArchive(vaultOf(kms.kek), sourceOf(archive))).toMatchObject({ findings: [] });
    const { rotation } = await rotateKeks(kms);
    expect(rotation).toMatchObject({ total: 2, done: 2 });
    const old = { kek_id: kekIdOfText(String(KEKS[0])), accept_unfetched: true };
    const retired = await kms.api('/v1/kek/retire', { token, body: old });
    expect(retired.status, retired.text).toBe(200);
    expect((await kms.api('/v1/kek/verify', { token, method: 'POST' })).json()).toMatchObject({
      damaged: [],
    });
    expect(customer.takeCalls()).toEqual([]);
    expect(await answersOf(calls)).toEqual(expectedOf(attitude));
  });

  it.each([true, false])(
    'a backup is restored without him, and exports answer as before; with a copy of the chain: %s',
    async (hasCopy) => {
      const { archive } = await backupOf(kms);
      const dataDir = join(newDataDir(), 'kms');
      const copy = hasCopy ? { auditCopy: await auditCopyOf(kms) } : {};
      await restoreInto({ archive, kek: kms.kek, dataDir, ...copy });
      await using restored = await start(dataDir);
      await expectSound(restored);
      const there = await KeyCalls.of(restored);
      if (!hasCopy) expect((await there.post(NAME, 'enable')).status).toBe(200);
      expect(await detailOf(there)).toMatchObject({
        state: 'enabled',
        outside: { key: 'acme', lease_ttl_s: 900 },
        outside_state: { other_versions: [1] },
      });
      expect(customer.takeCalls()).toEqual([]);
      expect(await answersOf(there)).toEqual(expectedOf(attitude));
      rmSync(join(dataDir, '..'), { recursive: true });
    },
  );

  it("a new installation recovers the key from Bundoc's folder without him, and it stays his", async () => {
    writeProject(bundoc, 'p', released);
    await using other = await start();
    expect(await recoverFrom(other, bundoc)).toMatchObject([{ outcome: 'recovered', versions: [1, 2] }]);
    const there = await KeyCalls.of(other);
    await there.post(NAME, 'enable');
    // The shortest lease keeps every promise to him: the former one is not known.
    expect(await detailOf(there)).toMatchObject({
      version: 2,
      outside: { key: 'acme', lease_ttl_s: 60 },
      outside_state: { other_versions: [1] },
    });
    expect(customer.takeCalls()).toEqual([]);
    expect(await answersOf(there)).toEqual(expectedOf(attitude));
    await expectSound(other);
    const rotated = await there.post(NAME, 'rotate');
    expect(rotated.json().code).toBe(REFUSAL[attitude]);
    if (attitude !== 'present') return;
    expect(Buffer.from((await exported(there)).wrapped_b64, 'base64')[0]).toBe(2);
    // Only now is it certain which key of his it is.
    const attached = await attach(other, await other.fullToken());
    expect(attached.json()).toMatchObject({ version: 4, outside: { lease_ttl_s: 900 } });
  });

  it('the key is disabled, enabled, and destroyed without him, as is a version of it', async () => {
    expect((await calls.post(NAME, 'disable')).status).toBe(200);
    expect((await calls.post(NAME, 'enable')).status).toBe(200);
    expect((await calls.destroyVersion(NAME, 1)).status).toBe(200);
    expect((await calls.shred(NAME)).status).toBe(200);
    expect((await calls.export(NAME)).json()).toMatchObject({ code: 'key_destroyed' });
    expect(customer.takeCalls()).toEqual([]);
  });
});

it('a key that was attached after the backup comes back attached, by what Bundoc has of it', async () => {
  await calls.create('q-dek');
  const { archive } = await backupOf(kms);
  const put = await kms.api('/v1/keys/q-dek/outside', { token, method: 'PUT', body: { key: 'acme' } });
  expect(put.status, put.text).toBe(200);
  const both = [1, 2].map(async (version) =>
    exportedKeySchema.parse((await calls.export('q-dek', version)).json()),
  );
  writeProject(bundoc, 'q', await Promise.all(both));
  const dataDir = join(newDataDir(), 'kms');
  await restoreInto({ archive, kek: kms.kek, dataDir });
  await using restored = await start(dataDir);
  const there = await KeyCalls.of(restored);
  expect((await there.read('q-dek')).json()).not.toHaveProperty('outside');
  expect(await recoverFrom(restored, bundoc)).toMatchObject([{ outcome: 'recovered', versions: [2] }]);
  await there.post('q-dek', 'enable');
  expect((await there.read('q-dek')).json()).toMatchObject({
    version: 2,
    outside: { key: 'acme', lease_ttl_s: 60 },
  });
  customer.attitude = 'denying';
  expect((await there.export('q-dek')).json()).toMatchObject({ code: 'outside_key_denied' });
  rmSync(join(dataDir, '..'), { recursive: true });
});

it('the first export of a recovered key proves its check value', async () => {
  const [first, second] = released as [ExportedKey, ExportedKey];
  writeProject(bundoc, 'p', [first, { ...second, kcv: 'f'.repeat(32) }]);
  await using other = await start();
  await recoverFrom(other, bundoc);
  const there = await KeyCalls.of(other);
  await there.post(NAME, 'enable');
  expect((await there.export(NAME)).json()).toMatchObject({ code: 'key_damaged' });
  expect((await there.export(NAME, 1)).status).toBe(200);
});

it('1,000 versions with the largest wrapped shares are recovered from the copy in the catalog alone', async () => {
  const id = randomUUID();
  const vault = vaultOf(kms.kek);
  const versions = Array.from({ length: KEY_VERSIONS_MAX }, (_, index): ExportedKey => {
    const version = index + 1;
    const dek = encodeOutsideDek({ outside: 'a'.repeat(63), blob: randomBytes(384), inner: randomBytes(60) });
    const wrapped = vault.wrapDek(dek, { keyId: id, name: 'big-dek', version }, 2);
    const kcv = 'f'.repeat(32);
    return {
      ...(released[0] as ExportedKey),
      key_id: id,
      version,
      kcv,
      wrapped_b64: wrapped.toString('base64'),
    };
  });
  rmSync(join(writeProject(bundoc, 'big', versions), 'project.json'));
  await using other = await start();
  const [found] = await recoverFrom(other, bundoc);
  expect(found).toMatchObject({ outcome: 'recovered' });
  expect(found?.versions).toHaveLength(KEY_VERSIONS_MAX);
  // A backup takes them, too.
  const { archive } = await backupOf(other);
  expect(await surveyArchive(vaultOf(other.kek), sourceOf(archive))).toMatchObject({ findings: [] });
});
