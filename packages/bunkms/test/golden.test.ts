import { createDecipheriv, createHmac, createSecretKey, hkdfSync } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { type AuditRecord, auditRecordSchema } from '@bundoc/shared/contract/audit';
import { describe, expect, test } from 'vitest';
import { verifyChain } from '../src/audit/chain.ts';
import { Vault } from '../src/vault/vault.ts';

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
