import { createDecipheriv, createHmac, createSecretKey, hkdfSync } from 'node:crypto';
import { copyFileSync, readFileSync, rmSync } from 'node:fs';
import { DatabaseSync } from 'node:sqlite';
import { type AuditRecord, auditRecordSchema } from '@bundoc/shared/contract/audit';
import { kmsEventSchema } from '@bundoc/shared/contract/events';
import { keyDetailSchema } from '@bundoc/shared/contract/keys';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { verifyChain } from '../src/audit/chain.ts';
import { lineOf } from '../src/audit/ship/line.ts';
import { blockOf, placeOf } from '../src/service/events.ts';
import { databasePathOf } from '../src/store/sqlite.ts';
import { Vault } from '../src/vault/vault.ts';
import { newDataDir, startKms } from './support/kms.ts';

const golden = (name: string) =>
  JSON.parse(readFileSync(new URL(`golden/${name}.golden.json`, import.meta.url), 'utf8'));
const hex = (text: string) => Buffer.from(text, 'hex');

describe('docs/formats/wrapped-key.md', () => {
  const file = golden('wrapped-key');
  const vault = new Vault([createSecretKey(hex(file.kek))]);

  test('is what this release reads', () => {
    expect(vault.currentKekId).toBe(file.kekId);
    expect(vault.checkValueOf(file.kekId)).toBe(file.kekCheckValue);
    expect(vault.unwrapDek(hex(file.dek.wrapped), file.dek).toString('hex')).toBe(file.dek.plaintext);
    expect(vault.unwrapSecret(hex(file.secret.wrapped), file.secret.name).toString('hex')).toBe(
      file.secret.plaintext,
    );
  });

  test('is enough to unwrap a key without this code', () => {
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

describe('docs/formats/audit-chain.md', () => {
  const file = golden('audit-chain') as { chainKey: string; records: AuditRecord[] };

  test('is what this release reads', async () => {
    for (const record of file.records) auditRecordSchema.strict().parse(record);
    expect(await verifyChain(createSecretKey(hex(file.chainKey)), file.records)).toEqual({
      intact: true,
      head: { seq: 4, hash: file.records[3]?.hash },
    });
  });

  test('is enough to verify a chain without this code', () => {
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

describe('docs/formats/shipped-audit.md', () => {
  const text = readFileSync(new URL('golden/shipped-audit.golden.ndjson', import.meta.url), 'utf8');
  const file = golden('audit-chain') as { chainKey: string; records: AuditRecord[] };

  test('is what this release writes, and holds the chain', async () => {
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

  test('is what this release writes, and the contract reads', () => {
    const blocks = text.trimEnd().split('\n\n');
    const written = blocks.map((block) => {
      const field = (name: string) => new RegExp(`^${name}: (.*)$`, 'm').exec(block)?.[1];
      const event = kmsEventSchema.parse({ ...JSON.parse(String(field('data'))), type: field('event') });
      return blockOf(event, placeOf(field('id')));
    });
    expect(written.join('')).toBe(text);
  });
});

interface GoldenStore {
  readonly kek: string;
  /** A token that was issued and not revoked. */
  readonly token: string;
  readonly head: { readonly seq: number; readonly hash: string };
  readonly keys: readonly {
    readonly id: string;
    readonly name: string;
    readonly created_at: string;
    readonly versions: readonly { version: number; kcv: string; material: string; wrapped: string }[];
  }[];
}

describe.each([1, 2])('a store of schema %i', (schema) => {
  const file = golden(`store-${schema}`) as GoldenStore;
  let dataDir: string;
  const open = () => startKms({ dataDir, kek: hex(file.kek).toString('base64') });
  const readDatabase = <T>(read: (database: DatabaseSync) => T): T => {
    const database = new DatabaseSync(databasePathOf(dataDir));
    try {
      return read(database);
    } finally {
      database.close();
    }
  };
  beforeEach(() => {
    dataDir = newDataDir();
    copyFileSync(new URL(`golden/store-${schema}.golden.sqlite`, import.meta.url), databasePathOf(dataDir));
  });
  afterEach(() => rmSync(dataDir, { recursive: true }));

  test('is what it says it is, and is brought to schema 3', async () => {
    const versionOf = (database: DatabaseSync) => database.prepare('PRAGMA user_version').get();
    expect(readDatabase(versionOf)).toEqual({ user_version: schema });
    await (await open())[Symbol.asyncDispose]();
    expect(readDatabase(versionOf)).toEqual({ user_version: 3 });
    expect(readDatabase((database) => database.prepare('PRAGMA integrity_check').get())).toEqual({
      integrity_check: 'ok',
    });
    expect(readDatabase((database) => database.prepare('PRAGMA foreign_key_check').all())).toEqual([]);
  });

  test('keeps its keys, tokens and audit chain, once by several processes at the same time', async () => {
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
      expect(await kms.store.findToken(file.token)).toMatchObject({ sub: 'bundoc' });
      const records = await kms.records();
      expect(records[file.head.seq - 1]?.hash).toBe(file.head.hash);
      expect(await kms.verify()).toMatchObject({ intact: true });
    }
    for (const kms of services) await kms[Symbol.asyncDispose]();
  });

  test('goes on: a sound key rotates, the damaged version stays damaged alone', async () => {
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
    expect((await kms.internal('/v1/export/damaged-dek', { token })).status).toBe(schema === 1 ? 503 : 200);
  });
});
