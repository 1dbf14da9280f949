import {
  createCipheriv,
  createDecipheriv,
  createHash,
  createHmac,
  createSecretKey,
  hkdfSync,
} from 'node:crypto';
import { copyFileSync, readFileSync, rmSync } from 'node:fs';
import type { DatabaseSync } from 'node:sqlite';
import { type AuditRecord, auditRecordSchema } from '@bundoc/shared/contract/audit';
import { kmsEventSchema } from '@bundoc/shared/contract/events';
import { keyDetailSchema, keyPageSchema } from '@bundoc/shared/contract/keys';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { lineOf } from '../src/audit/ship/shipper.ts';
import { ciphertextKeyOf, decryptFrom, encryptionKeyOf } from '../src/encryption/ciphertext.ts';
import { blockOf, placeOf } from '../src/events/record-events.ts';
import { recordHash, verifyChain } from '../src/records/chain.ts';
import { foldKekRecords } from '../src/records/kek-state.ts';
import {
  isGenuineVersion,
  type KeyRecord,
  type KeyVersionRecord,
  keyFault,
} from '../src/records/key-record.ts';
import { tokenFault } from '../src/records/token-record.ts';
import { kekIdOf } from '../src/records/wrapped-key.ts';
import { databasePathOf } from '../src/store/sqlite/sqlite-store.ts';
import { Vault } from '../src/vault/vault.ts';
import { withDatabase } from './support/database.ts';
import { completed } from './support/keks.ts';
import { newDataDir, startKms } from './support/kms.ts';
import { KeyCalls } from './support/lifecycle.ts';

const golden = (name: string) =>
  JSON.parse(readFileSync(new URL(`golden/${name}.golden.json`, import.meta.url), 'utf8'));
const hex = (text: string) => Buffer.from(text, 'hex');

describe('docs/formats/wrapped-key.md', () => {
  const file = golden('wrapped-key');
  const vault = new Vault([createSecretKey(hex(file.kek))]);

  test('describes what this release reads', () => {
    expect(vault.currentKekId).toBe(file.kekId);
    expect(vault.checkValueOf(file.kekId)).toBe(file.kekCheckValue);
    expect(vault.unwrapDek(hex(file.dek.wrapped), file.dek).toString('hex')).toBe(file.dek.plaintext);
    expect(vault.unwrapSecret(hex(file.secret.wrapped), file.secret.name).toString('hex')).toBe(
      file.secret.plaintext,
    );
  });

  test('suffices to unwrap a key without this code', () => {
    const wrapped = hex(file.dek.wrapped);
    const kek = hex(file.kek);
    const kekId = wrapped.subarray(1, 9).toString('hex');
    expect(wrapped[0]).toBe(1);
    expect(kekId).toBe(Buffer.from(hkdfSync('sha256', kek, '', 'bunkms/kek-id/v1', 8)).toString('hex'));
    const { keyId, name, version } = file.dek;
    const decipher = createDecipheriv('aes-256-gcm', kek, wrapped.subarray(9, 21), { authTagLength: 16 });
    decipher.setAAD(Buffer.from(`bunkms/dek/v1\0${1}\0${kekId}\0${keyId}\0${name}\0${version}`));
    decipher.setAuthTag(wrapped.subarray(53));
    const dek = Buffer.concat([decipher.update(wrapped.subarray(21, 53)), decipher.final()]);
    expect(dek.toString('hex')).toBe(file.dek.plaintext);
  });
});

describe('docs/formats/ciphertext.md', () => {
  const file = golden('ciphertext');

  test('describes what this release reads', () => {
    const key = encryptionKeyOf(createSecretKey(hex(file.dek)));
    expect(key.export().toString('hex')).toBe(file.encryptionKey);
    for (const { plaintext, aad, ciphertext } of file.items) {
      expect(ciphertextKeyOf(hex(ciphertext))).toEqual({ keyId: file.keyId, version: file.version });
      expect(decryptFrom(key, hex(ciphertext), hex(aad)).toString('hex')).toBe(plaintext);
    }
  });

  test('suffices to decrypt without this code', () => {
    const key = Buffer.from(hkdfSync('sha256', hex(file.dek), '', 'bunkms/encrypt/v1', 32));
    const ecb = (block: Buffer) =>
      createCipheriv('aes-256-ecb', key, null).setAutoPadding(false).update(block);
    for (const { plaintext, aad, ciphertext } of file.items) {
      const bytes = hex(ciphertext);
      expect(bytes[0]).toBe(1);
      expect(bytes.toString('hex', 1, 17)).toBe(file.keyId.replaceAll('-', ''));
      expect(bytes.readUInt32BE(17)).toBe(file.version);
      const nonce = bytes.subarray(21, 45);
      const l = BigInt(`0x${ecb(Buffer.alloc(16)).toString('hex')}`);
      const k1 = ((l << 1n) & ((1n << 128n) - 1n)) ^ (l >> 127n === 1n ? 0x87n : 0n);
      const derived = [1, 2].map((counter) => {
        const block = Buffer.concat([Buffer.of(0, counter, 0x58, 0), nonce.subarray(0, 12)]);
        const masked = BigInt(`0x${block.toString('hex')}`) ^ k1;
        return ecb(hex(masked.toString(16).padStart(32, '0')));
      });
      const decipher = createDecipheriv('aes-256-gcm', Buffer.concat(derived), nonce.subarray(12));
      decipher.setAAD(Buffer.concat([bytes.subarray(0, 21), hex(aad)]));
      decipher.setAuthTag(bytes.subarray(-16));
      const opened = Buffer.concat([decipher.update(bytes.subarray(45, -16)), decipher.final()]);
      expect(opened.toString('hex')).toBe(plaintext);
    }
  });
});

describe('docs/formats/audit-chain.md', () => {
  const file = golden('audit-chain') as { chainKey: string; records: AuditRecord[] };

  test('describes what this release reads', async () => {
    for (const record of file.records) auditRecordSchema.strict().parse(record);
    expect(await verifyChain(createSecretKey(hex(file.chainKey)), file.records)).toEqual({
      intact: true,
      head: { seq: 4, hash: file.records[3]?.hash },
    });
  });

  test('suffices to verify a chain without this code', () => {
    let previous = '0'.repeat(64);
    for (const record of file.records) {
      const { time, severity, action, outcome, actor, jti, key, version, source, request_id, code, detail } =
        record;
      const optional = [actor, jti, key, version, source, request_id, code].map((field) => field ?? null);
      const pairs =
        detail === undefined
          ? null
          : Object.keys(detail)
              .sort()
              .map((name) => [name, detail[name]]);
      const fields = ['bunkms/audit/v1', record.seq, time, severity, action, outcome, ...optional, pairs];
      const mac = createHmac('sha256', hex(file.chainKey))
        .update(hex(previous))
        .update(JSON.stringify(fields));
      expect(record.prev_hash).toBe(previous);
      previous = mac.digest('hex');
      expect(record.hash).toBe(previous);
    }
  });
});

describe('docs/formats/key-record.md', () => {
  const file = golden('key-record');
  const record: KeyRecord = { ...file.record, versionDigests: hex(file.record.versionDigests) };
  const versions: KeyVersionRecord[] = file.versions.map((version: { wrapped: string }) => ({
    ...version,
    wrapped: hex(version.wrapped),
  }));

  test('describes what this release reads', () => {
    const stored = { record, versions, lastChange: auditRecordSchema.strict().parse(file.change) };
    expect(keyFault(createSecretKey(hex(file.chainKey)), 'project-a-dek', stored)).toBeUndefined();
    for (const version of versions) expect(isGenuineVersion(record, version)).toBe(true);
  });

  test('suffices to authenticate a key without this code', () => {
    const sha256 = (fields: unknown[]) => createHash('sha256').update(JSON.stringify(fields)).digest('hex');
    for (const [index, one] of file.versions.entries()) {
      const { keyId, version, kcv, state, createdAt, destroyedAt, wrapped } = one;
      const fields = ['bunkms/key-version/v1', keyId, version, kcv, state, createdAt, destroyedAt, wrapped];
      expect(sha256(fields)).toBe(one.digest);
      expect(file.record.versionDigests.slice(index * 64, index * 64 + 64)).toBe(one.digest);
    }
    const { id, name, type, state, version, revision, exportable, rotateAfterDays, dueAt } = file.record;
    const { createdAt, destroyedAt, kekIds, idempotency, versionDigests } = file.record;
    const { holder, offer, intendedAt } = file.record;
    const early = ['bunkms/key/v2', id, name, type, state, version, revision, exportable, rotateAfterDays];
    const pair = [idempotency.key, idempotency.request];
    const middle = [...early, dueAt, createdAt, destroyedAt, kekIds, pair, versionDigests];
    const digest = sha256([...middle, holder, [offer.to, offer.move, offer.generation], intendedAt]);
    expect(file.change).toMatchObject({ key: name, detail: { key_id: id, revision, record: digest } });
  });
});

describe('docs/formats/kek-records.md', () => {
  const file = golden('kek-records') as { chainKey: string; records: AuditRecord[] };
  const [old, current] = ['bbf08bdade8d60dd', '5c541a715d5d0d22'];

  test('describes what this release reads', () => {
    for (const record of file.records) auditRecordSchema.strict().parse(record);
    expect(foldKekRecords(createSecretKey(hex(file.chainKey)), file.records)).toEqual({
      current,
      seq: 32,
      keks: new Map([
        [old, { standing: 'retired', since: '2026-01-01T00:00:23.000Z' }],
        [current, { standing: 'current', since: '2026-01-01T00:00:10.000Z' }],
      ]),
      rotation: {
        seq: 23,
        from: old,
        startedAt: '2026-01-01T00:00:10.000Z',
        completedAt: '2026-01-01T00:00:23.000Z',
      },
    });
  });

  test('has records of which any change is detected', () => {
    for (const [at, record] of file.records.entries()) {
      const records = file.records.with(at, { ...record, time: '2026-01-02T00:00:00.000Z' });
      expect(foldKekRecords(createSecretKey(hex(file.chainKey)), records)).toEqual({ seq: record.seq });
    }
  });

  test('has records of an earlier release, which make the latest added KEK current', () => {
    const chainKey = createSecretKey(hex(file.chainKey));
    const [made, staged] = file.records as [AuditRecord, AuditRecord];
    const { seq, prev_hash: previous } = staged;
    const draft = { ...staged, action: 'kek.added' };
    const added = { ...draft, hash: recordHash(chainKey, previous, seq, draft) };
    expect(foldKekRecords(chainKey, [made, added])).toMatchObject({ current, rotation: undefined });
  });
});

describe('docs/formats/shipped-audit.md', () => {
  const text = readFileSync(new URL('golden/shipped-audit.golden.ndjson', import.meta.url), 'utf8');
  const file = golden('audit-chain') as { chainKey: string; records: AuditRecord[] };

  test('describes what this release writes, and contains the chain', async () => {
    expect(file.records.map(lineOf).join('')).toBe(text);
    const records = text
      .trimEnd()
      .split('\n')
      .map((line) => {
        const { format, ...record } = JSON.parse(line) as { format: string } & AuditRecord;
        expect(format).toBe('bunkms/audit/v1');
        return record;
      });
    expect(await verifyChain(createSecretKey(hex(file.chainKey)), records)).toMatchObject({ intact: true });
  });
});

describe('docs/formats/events.md', () => {
  const text = readFileSync(new URL('golden/events.golden.txt', import.meta.url), 'utf8');

  test('describes what this release writes and the contract reads', () => {
    const blocks = text.trimEnd().split('\n\n');
    const written = blocks.map((block) => {
      const field = (name: string) => new RegExp(`^${name}: (.*)$`, 'm').exec(block)?.[1];
      const event = kmsEventSchema.parse({ ...JSON.parse(String(field('data'))), type: field('event') });
      return blockOf(event, placeOf(field('id')));
    });
    expect(written.join('')).toBe(text);
  });
});

test.each([5, 6])(
  'a store of an earlier build prevents the start, says what to do, and is not changed: schema %d',
  async (schema) => {
    const dataDir = newDataDir();
    const path = databasePathOf(dataDir);
    copyFileSync(new URL(`golden/store-${schema}.golden.sqlite`, import.meta.url), path);
    const before = readFileSync(path);
    await expect(startKms({ dataDir })).rejects.toMatchObject({
      code: 'storage_unavailable',
      cause: {
        message: `the store was made by an earlier build (schema ${schema}): export the documents with that build, start with an empty store, and import them`,
      },
    });
    expect(withDatabase(dataDir, (database) => database.prepare('PRAGMA user_version').get())).toEqual({
      user_version: schema,
    });
    expect(readFileSync(path).subarray(100)).toEqual(before.subarray(100));
    rmSync(dataDir, { recursive: true });
  },
);

interface GoldenStore {
  readonly kek: string;
  /** A token that was not revoked. */
  readonly token: string;
  readonly head: { readonly seq: number; readonly hash: string };
  readonly keys: readonly {
    readonly id: string;
    readonly name: string;
    readonly created_at: string;
    readonly versions: readonly { version: number; kcv: string; material: string; wrapped: string }[];
  }[];
}

describe('a store of schema 7', () => {
  const file = golden('store-7') as GoldenStore;
  let dataDir: string;
  // At a time when no key is due.
  const clock = new FakeClock();
  const open = () => startKms({ dataDir, kek: hex(file.kek).toString('base64'), clock });
  const readDatabase = <T>(read: (database: DatabaseSync) => T): T => withDatabase(dataDir, read);
  beforeEach(() => {
    dataDir = newDataDir();
    copyFileSync(new URL('golden/store-7.golden.sqlite', import.meta.url), databasePathOf(dataDir));
  });
  afterEach(() => rmSync(dataDir, { recursive: true }));

  test('gets the present schema and is intact', async () => {
    await (await open())[Symbol.asyncDispose]();
    expect(readDatabase((database) => database.prepare('PRAGMA user_version').get())).toEqual({
      user_version: 8,
    });
    expect(readDatabase((database) => database.prepare('PRAGMA integrity_check').get())).toEqual({
      integrity_check: 'ok',
    });
    expect(readDatabase((database) => database.prepare('PRAGMA foreign_key_check').all())).toEqual([]);
  });

  test('keeps its keys, tokens and audit chain, opened by several processes at the same time', async () => {
    const services = await Promise.all([open(), open(), open()]);
    for (const kms of services) {
      const token = await kms.fullToken();
      for (const { versions, ...key } of file.keys) {
        const current = versions.at(-1)!;
        const read = keyDetailSchema
          .strict()
          .parse((await kms.api(`/v1/keys/${key.name}`, { token })).json());
        expect(read).toMatchObject({ ...key, version: current.version, kcv: current.kcv });
        expect(read.versions.map(({ version, kcv }) => [version, kcv])).toEqual(
          versions.map(({ version, kcv }) => [version, kcv]),
        );
        expect(read.versions[0]?.created_at).toBe(key.created_at);
        for (const { version, kcv, material, wrapped } of versions) {
          const answer = await kms.internal(`/v1/export/${key.name}?version=${version}`, { token });
          expect(answer.json()).toMatchObject({
            key_id: key.id,
            version,
            kcv,
            key_material_b64: hex(material).toString('base64'),
            wrapped_b64: hex(wrapped).toString('base64'),
          });
        }
      }
      expect(await kms.store.findToken(file.token)).toMatchObject({ row: { sub: 'bundoc' } });
      expect(await kms.store.findActiveTokenFamily(file.token)).toBe(file.token);
      const { chainKey } = await kms.secrets();
      for (const stored of (await kms.store.listTokens({ limit: 100 })).items)
        expect(tokenFault(chainKey, stored)).toBeUndefined();
      const records = await kms.records();
      expect(records[file.head.seq - 1]?.hash).toBe(file.head.hash);
      expect(await kms.verify()).toMatchObject({ intact: true });
    }
    for (const kms of services) await kms[Symbol.asyncDispose]();
  });

  test('continues to work: a sound key rotates, and only the damaged version stays damaged', async () => {
    await using kms = await open();
    const token = await kms.fullToken();
    const [sound] = file.keys;
    const before = sound!.versions.length;
    const rotated = await kms.api(`/v1/keys/${sound!.name}/rotate`, { method: 'POST', token });
    expect(rotated.json()).toMatchObject({ id: sound!.id, version: before + 1 });
    const first = (await kms.internal(`/v1/export/${sound!.name}?version=1`, { token })).json();
    expect(first.key_material_b64).toBe(hex(sound!.versions[0]!.material).toString('base64'));
    expect((await kms.internal('/v1/export/damaged-dek?version=1', { token })).json()).toMatchObject({
      code: 'key_damaged',
    });
    expect((await kms.internal('/v1/export/damaged-dek', { token })).status).toBe(200);
  });
});

test('a store in the middle of a rotation of the KEK is finished, with every key unchanged', async () => {
  const file = golden('store-7-rotating') as { keks: string[]; current: string; keys: GoldenStore['keys'] };
  const dataDir = newDataDir();
  copyFileSync(new URL('golden/store-7-rotating.golden.sqlite', import.meta.url), databasePathOf(dataDir));
  const kek = file.keks.map((one) => hex(one).toString('base64')).join('\n');
  {
    await using kms = await startKms({ dataDir, kek, clock: new FakeClock() });
    const keys = await KeyCalls.of(kms);
    const status = await completed(kms);
    expect(status).toMatchObject({ current: file.current, rotation: { total: 6, done: 6 } });
    for (const { name, versions } of file.keys)
      for (const { version, kcv, material } of versions) {
        const key = (await keys.export(name, version)).json();
        expect(key).toMatchObject({ kcv, key_material_b64: hex(material).toString('base64') });
        expect(kekIdOf(Buffer.from(key.wrapped_b64, 'base64'))).toBe(file.current);
      }
    expect(await kms.verify()).toMatchObject({ intact: true });
  }
  rmSync(dataDir, { recursive: true });
});

test('a store of schema 7 keeps the states, the policies and the holders of its keys', async () => {
  const file = golden('store-7') as GoldenStore & {
    readonly states: Record<string, string>;
    readonly rotation: string;
    readonly holders: readonly object[];
  };
  const dataDir = newDataDir();
  copyFileSync(new URL('golden/store-7.golden.sqlite', import.meta.url), databasePathOf(dataDir));
  const clock = new FakeClock();
  {
    await using kms = await startKms({ dataDir, kek: hex(file.kek).toString('base64'), clock });
    const keys = await KeyCalls.of(kms);
    const list = keyPageSchema.parse((await keys.list()).json());
    expect(Object.fromEntries(list.keys.map(({ name, state }) => [name, state]))).toEqual(file.states);
    expect(list.keys).toEqual(
      expect.arrayContaining(file.holders.map((one) => expect.objectContaining(one))),
    );
    expect((await keys.create('destroyed-dek')).json()).toMatchObject({ code: 'key_destroyed' });
    expect((await keys.export('kept-dek')).json()).toMatchObject({ code: 'key_not_exportable' });
    expect((await keys.export('pending-dek')).json()).toMatchObject({ code: 'key_pending_deletion' });
    const policy = list.keys.find(({ name }) => name === 'policy-dek');
    expect(policy).toMatchObject({ rotate_after_days: 90, next_rotation_at: file.rotation });
    const again = await keys.create(
      'policy-dek',
      { rotate_after_days: 90 },
      { 'idempotency-key': 'golden-1' },
    );
    const [, described] = file.keys;
    expect(again).toMatchObject({ status: 201 });
    expect(again.json()).toMatchObject({ id: policy?.id, version: 1, kcv: described?.versions[0]?.kcv });
  }
  rmSync(dataDir, { recursive: true });
});
