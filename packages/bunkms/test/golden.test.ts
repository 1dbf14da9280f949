import {
  createCipheriv,
  createDecipheriv,
  createHash,
  createHmac,
  createSecretKey,
  hkdfSync,
} from 'node:crypto';
import { readFileSync } from 'node:fs';
import { type AuditRecord, auditRecordSchema } from '@bundoc/shared/contract/audit';
import { kmsEventSchema } from '@bundoc/shared/contract/events';
import { describe, expect, it } from 'vitest';
import { formatLine } from '../src/audit/ship/shipper.ts';
import { ciphertextKeyOf, decryptFrom, encryptionKeyOf } from '../src/encryption/ciphertext.ts';
import { blockOf, parsePlace } from '../src/events/record-events.ts';
import { verifyChain } from '../src/records/chain.ts';
import { foldKekRecords } from '../src/records/kek-state.ts';
import {
  isGenuineVersion,
  type KeyRecord,
  type KeyVersionRecord,
  keyFault,
} from '../src/records/key-record.ts';
import { combineShares, readShare } from '../src/recovery/kek-shares.ts';
import { writeShareText } from '../src/recovery/share-text.ts';
import { ringText } from '../src/vault/kek-provider.ts';
import { openSealedRing, parseSealedRing } from '../src/vault/sealed-ring.ts';
import { Vault } from '../src/vault/vault.ts';
import { joined } from './support/gf256.ts';
import { golden, hex } from './support/golden-files.ts';

describe('docs/formats/wrapped-key.md', () => {
  const file = golden('wrapped-key');
  const vault = new Vault([createSecretKey(hex(file.kek))]);

  it('describes what this release reads', () => {
    expect(vault.currentKekId).toBe(file.kekId);
    expect(vault.checkValueOf(file.kekId)).toBe(file.kekCheckValue);
    expect(vault.unwrapDek(hex(file.dek.wrapped), file.dek).toString('hex')).toBe(file.dek.plaintext);
    expect(vault.unwrapSecret(hex(file.secret.wrapped), file.secret.name).toString('hex')).toBe(
      file.secret.plaintext,
    );
  });

  it('suffices to unwrap a key without this code', () => {
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

describe('docs/formats/sealed-ring.md', () => {
  const file = golden('sealed-ring');

  it('describes what this release reads', () => {
    const ring = parseSealedRing(hex(file.ring));
    if (ring === undefined) throw new Error('it is a sealed ring');
    expect(ring.slots.map(({ name, blob }) => ({ name, blob: blob.toString('hex') }))).toEqual(file.slots);
    const keks = openSealedRing(ring, hex(file.ringKey));
    expect(keks.map((kek) => kek.export().toString('hex'))).toEqual(file.keks);
  });

  it('suffices to open a ring without this code', () => {
    const ring = hex(file.ring);
    expect(ring.toString('latin1', 0, 8)).toBe('BUNKMSR1');
    let at = 25;
    for (let slot = 0; slot < (ring[24] ?? 0); slot++) {
      at += 1 + (ring[at] ?? 0);
      at += 2 + ring.readUInt16BE(at);
    }
    const key = Buffer.from(
      hkdfSync('sha256', hex(file.ringKey), ring.subarray(8, 24), 'bunkms/ring/v1', 32),
    );
    const decipher = createDecipheriv('aes-256-gcm', key, ring.subarray(at, at + 12), { authTagLength: 16 });
    decipher.setAAD(ring.subarray(0, at));
    decipher.setAuthTag(ring.subarray(-16));
    const keks = Buffer.concat([decipher.update(ring.subarray(at + 12, -16)), decipher.final()]);
    expect(keks.toString('hex')).toBe(file.keks.join(''));
  });
});

describe('docs/formats/kek-shares.md', () => {
  const file = golden('kek-shares') as Record<'ring' | 'current' | 'split', string> & {
    kekIds: string[];
    threshold: number;
    shares: string[];
  };

  it('describes what this release reads, and what it writes', async () => {
    const shares = file.shares.map((text) => ({ name: 'a share', share: readShare('a share', text) }));
    for (const { share } of shares)
      expect(share).toMatchObject({
        id: file.split,
        shares: 5,
        threshold: 3,
        keks: 2,
        current: file.current,
      });
    for (const some of [shares.slice(0, 3), shares.slice(2), shares.toReversed()]) {
      const keks = await combineShares(some);
      expect(ringText(keks).toString()).toBe(file.ring);
      expect(new Vault(keks).kekIds).toEqual(file.kekIds);
    }
    for (const [at, { share }] of shares.entries())
      expect(writeShareText(share.bytes, [`share ${at + 1} of 5`])).toBe(file.shares[at]);
  });

  it('suffices to combine shares without this code', () => {
    const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567';
    const bytesOf = (text: string) => {
      const bits = [...text].map((one) => alphabet.indexOf(one).toString(2).padStart(5, '0')).join('');
      return Buffer.from((bits.match(/.{8}/g) ?? []).map((byte) => Number.parseInt(byte, 2)));
    };
    const shares = file.shares.slice(1, 4).map((text) => {
      const [tag, , ...lines] = text.trim().split('\n');
      expect(tag).toBe('BUNKMS KEK SHARE 1');
      const words = lines.map((line) => line.split(/\s+/));
      const parts = words.map((word) => bytesOf(word.slice(1, -1).join('')));
      const share = Buffer.concat(parts);
      for (const [at, word] of words.entries()) {
        const hash = createHash('sha256').update('bunkms/kek-share-line/v1\0').update(share.subarray(0, 9));
        const checksum = hash
          .update(Buffer.of(at + 1))
          .update(parts[at] ?? '')
          .digest();
        expect(checksum.subarray(0, 2)).toEqual(bytesOf(word.at(-1) ?? ''));
      }
      return share;
    });
    const ring = joined(shares.map((share) => share.subarray(20, -16)));
    expect(ring.toString()).toBe(file.ring);
    for (const share of shares) {
      const check = createHmac('sha256', ring).update('bunkms/kek-share/v1\0').update(share.subarray(0, -16));
      expect(share.subarray(-16)).toEqual(check.digest().subarray(0, 16));
    }
  });
});

describe('docs/formats/ciphertext.md', () => {
  const file = golden('ciphertext');

  it('describes what this release reads', () => {
    const key = encryptionKeyOf(createSecretKey(hex(file.dek)));
    expect(key.export().toString('hex')).toBe(file.encryptionKey);
    for (const { plaintext, aad, ciphertext } of file.items) {
      expect(ciphertextKeyOf(hex(ciphertext))).toEqual({ keyId: file.keyId, version: file.version });
      expect(decryptFrom(key, hex(ciphertext), hex(aad)).toString('hex')).toBe(plaintext);
    }
  });

  it('suffices to decrypt without this code', () => {
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

  it('describes what this release reads', async () => {
    for (const record of file.records) auditRecordSchema.strict().parse(record);
    expect(await verifyChain(createSecretKey(hex(file.chainKey)), file.records)).toEqual({
      intact: true,
      receipts: [],
      head: { seq: 4, hash: file.records[3]?.hash },
    });
  });

  it('suffices to verify a chain without this code', () => {
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

  it('describes what this release reads', () => {
    const stored = { record, versions, lastChange: auditRecordSchema.strict().parse(file.change) };
    expect(keyFault(createSecretKey(hex(file.chainKey)), 'project-a-dek', stored)).toBeUndefined();
    for (const version of versions) expect(isGenuineVersion(record, version)).toBe(true);
  });

  it('suffices to authenticate a key without this code', () => {
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

  it('describes what this release reads', () => {
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

  it('has records of which any change is detected', () => {
    for (const [at, record] of file.records.entries()) {
      const records = file.records.with(at, { ...record, time: '2026-01-02T00:00:00.000Z' });
      expect(foldKekRecords(createSecretKey(hex(file.chainKey)), records)).toEqual({ seq: record.seq });
    }
  });
});

describe('docs/formats/shipped-audit.md', () => {
  const text = readFileSync(new URL('golden/shipped-audit.golden.ndjson', import.meta.url), 'utf8');
  const file = golden('audit-chain') as { chainKey: string; records: AuditRecord[] };

  it('describes what this release writes, and contains the chain', async () => {
    expect(file.records.map(formatLine).join('')).toBe(text);
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

  it('describes what this release writes and the contract reads', () => {
    const blocks = text.trimEnd().split('\n\n');
    const written = blocks.map((block) => {
      const field = (name: string) => new RegExp(`^${name}: (.*)$`, 'm').exec(block)?.[1];
      const event = kmsEventSchema.parse({ ...JSON.parse(String(field('data'))), type: field('event') });
      return blockOf(event, parsePlace(field('id')));
    });
    expect(written.join('')).toBe(text);
  });
});
