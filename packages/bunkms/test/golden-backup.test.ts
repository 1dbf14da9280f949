import { createDecipheriv, createHash } from 'node:crypto';
import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { createLogger } from '@bundoc/shared/logs/logger';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { expect, it } from 'vitest';
import { decodeLine } from '../src/recovery/archive-entry.ts';
import { keysToReview } from '../src/recovery/keys-to-review.ts';
import { surveyArchive } from '../src/recovery/survey.ts';
import { newDataDir, startKms } from './support/kms.ts';
import { KeyCalls } from './support/lifecycle.ts';
import { restoreInto, sourceOf, vaultOf } from './support/recovery.ts';

const golden = (name: string) => readFileSync(new URL(`golden/${name}`, import.meta.url));
const archive = golden('backup-2.golden.bin');
const file = JSON.parse(golden('backup-2.golden.json').toString());
const kek = Buffer.from(file.kek, 'hex');
const hex = (text: string) => Buffer.from(text, 'hex');

/** Opens `nonce | ciphertext | tag` of AES-256-GCM, as in every format of both services. */
function open(key: Buffer, sealed: Buffer, aad: string): Buffer {
  const decipher = createDecipheriv('aes-256-gcm', key, sealed.subarray(0, 12), { authTagLength: 16 });
  decipher.setAAD(Buffer.from(aad));
  decipher.setAuthTag(sealed.subarray(-16));
  return Buffer.concat([decipher.update(sealed.subarray(12, -16)), decipher.final()]);
}

function unwrap(wrapped: Buffer, name: string): Buffer {
  return open(kek, wrapped.subarray(9), `bunkms/secret/v1\0${1}\0${wrapped.toString('hex', 1, 9)}\0${name}`);
}

it('this release reads docs/formats/backup.md', async () => {
  const survey = await surveyArchive(vaultOf(file.kek), sourceOf(archive));
  const { id, created_at, audit, records, keys, versions, tokens } = file.facts;
  expect(survey.head).toEqual({ format: 2, id, created_at });
  expect(survey.end).toEqual({ audit, records, keys, versions, tokens });
  expect(survey.chainFault).toBeUndefined();
  expect(survey.findings).toEqual([
    { key: 'damaged-dek', version: 1, problem: 'is lost, changed or rolled back' },
  ]);
});

it('docs/formats/backup.md suffices to open a backup without this code', () => {
  expect(archive.toString('latin1', 0, 8)).toBe('BUNKMSB1');
  expect(createHash('sha256').update(archive.subarray(0, 77)).digest()).toEqual(archive.subarray(77, 109));
  const key = unwrap(archive.subarray(8, 77), 'backup-key');
  let text = '';
  for (let at = 109, chunk = 0; at < archive.length; chunk++) {
    const end = at + 4 + archive.readUInt32BE(at);
    const place = end === archive.length ? 'last' : 'more';
    text += open(key, archive.subarray(at + 4, end), `bunkms/backup/v1\0${chunk}\0${place}`).toString();
    at = end;
  }
  const lines = text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));
  const { id, created_at, audit, records, keys, versions, tokens } = file.facts;
  expect(lines[0]).toEqual(['archive', { format: 2, id, created_at }]);
  expect(lines.at(-1)).toEqual(['end', { audit, records, keys, versions, tokens }]);
  const of = (kind: string) => lines.filter(([one]) => one === kind).map(([, value]) => value);
  expect(of('record').at(-1)).toMatchObject({ seq: audit.seq, hash: audit.hash, action: 'store.backup' });
  expect(Object.fromEntries(of('key').map(({ name, state }) => [name, state]))).toEqual(file.states);
  const offered = of('key').find(({ name }) => name === 'offered-dek');
  const { holder, offered_to: to, move } = file.holders['offered-dek'];
  expect(offered).toMatchObject({ holder, offer: { to, move }, intendedAt: null });
  for (const { id: keyId, versions: all } of file.keys)
    for (const { version, kcv, wrapped } of all)
      expect(of('version')).toContainEqual(
        expect.objectContaining({ keyId, version, kcv, wrapped: hex(wrapped).toString('base64') }),
      );
});

it('a backup of format 2 is restored: its keys wait for a review, and are unchanged once enabled', async () => {
  const dataDir = join(newDataDir(), 'kms');
  const report = await restoreInto({ archive, kek: file.kek, dataDir });
  expect(report).toMatchObject({ destroyed: [], incomplete: ['damaged-dek'] });
  {
    // At a time when no key is due.
    await using kms = await startKms({ dataDir, kek: kek.toString('base64'), clock: new FakeClock() });
    const calls = await KeyCalls.of(kms);
    const { chainKey } = await kms.secrets();
    const logger = createLogger({ service: 'bunkms', level: 'silent' });
    const waiting = await keysToReview({ store: kms.store, chainKey, logger });
    expect(Object.fromEntries(waiting.map(({ name, was }) => [name, was]))).toEqual(
      Object.fromEntries(Object.entries(file.states).filter(([, state]) => state !== 'destroyed')),
    );
    expect(report.held).toEqual(waiting.map(({ name }) => name));
    for (const { name, versions } of file.keys) {
      await calls.post(name, 'enable');
      for (const { version, kcv, material } of versions)
        expect((await calls.export(name, version)).json()).toMatchObject({
          kcv,
          key_material_b64: hex(material).toString('base64'),
        });
    }
    expect(await kms.verify()).toMatchObject({ intact: true });
  }
  rmSync(join(dataDir, '..'), { recursive: true });
});

it('a backup of another format is refused, and the error says what to do', () => {
  expect(() => decodeLine(JSON.stringify(['archive', { ...file.facts, format: 1 }]))).toThrow(
    /restore it with the release that wrote it$/,
  );
});
