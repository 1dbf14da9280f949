import { copyFileSync, readFileSync, rmSync } from 'node:fs';
import type { DatabaseSync } from 'node:sqlite';
import { keyDetailSchema, keyPageSchema } from '@bundoc/shared/contract/keys';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { tokenFault } from '../src/records/token-record.ts';
import { kekIdOf } from '../src/records/wrapped-key.ts';
import { databasePathOf } from '../src/store/sqlite/sqlite-store.ts';
import { withDatabase } from './support/database.ts';
import { golden, hex } from './support/golden-files.ts';
import { completed } from './support/keks.ts';
import { newDataDir, startKms } from './support/kms.ts';
import { KeyCalls } from './support/lifecycle.ts';

it('a store of another schema prevents the start, says what to do, and is not changed', async () => {
  const dataDir = newDataDir();
  withDatabase(dataDir, (database) => database.exec('PRAGMA user_version = 9; CREATE TABLE keys (id)'));
  const before = readFileSync(databasePathOf(dataDir));
  await expect(startKms({ dataDir })).rejects.toMatchObject({
    code: 'storage_unavailable',
    cause: {
      message: expect.stringMatching(/^the store has schema 9, and this release needs 11: .*bundoc export/),
    },
  });
  expect(withDatabase(dataDir, (database) => database.prepare('PRAGMA user_version').get())).toEqual({
    user_version: 9,
  });
  expect(readFileSync(databasePathOf(dataDir)).subarray(100)).toEqual(before.subarray(100));
  rmSync(dataDir, { recursive: true });
});

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

describe('a store of schema 11', () => {
  const file = golden('store') as GoldenStore;
  let dataDir: string;
  // At a time when no key is due.
  const clock = new FakeClock();
  const open = () => startKms({ dataDir, kek: hex(file.kek).toString('base64'), clock });
  const readDatabase = <T>(read: (database: DatabaseSync) => T): T => withDatabase(dataDir, read);
  beforeEach(() => {
    dataDir = newDataDir();
    copyFileSync(new URL('golden/store.golden.sqlite', import.meta.url), databasePathOf(dataDir));
  });
  afterEach(() => rmSync(dataDir, { recursive: true }));

  it('has the present schema and is intact', async () => {
    await (await open())[Symbol.asyncDispose]();
    expect(readDatabase((database) => database.prepare('PRAGMA user_version').get())).toEqual({
      user_version: 11,
    });
    expect(readDatabase((database) => database.prepare('PRAGMA integrity_check').get())).toEqual({
      integrity_check: 'ok',
    });
    expect(readDatabase((database) => database.prepare('PRAGMA foreign_key_check').all())).toEqual([]);
  });

  it('keeps its keys, tokens and audit chain, opened by several processes at the same time', async () => {
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

  it('continues to work: a sound key rotates, and only the damaged version stays damaged', async () => {
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

it('a store in the middle of a rotation of the KEK is finished, with every key unchanged', async () => {
  const file = golden('store-rotating') as { keks: string[]; current: string; keys: GoldenStore['keys'] };
  const dataDir = newDataDir();
  copyFileSync(new URL('golden/store-rotating.golden.sqlite', import.meta.url), databasePathOf(dataDir));
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

it('a store of schema 10 keeps the states, the policies and the holders of its keys', async () => {
  const file = golden('store') as GoldenStore & {
    readonly states: Record<string, string>;
    readonly rotation: string;
    readonly holders: readonly object[];
  };
  const dataDir = newDataDir();
  copyFileSync(new URL('golden/store.golden.sqlite', import.meta.url), databasePathOf(dataDir));
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
    // The idempotency key of another token.
    const again = await keys.create(
      'policy-dek',
      { rotate_after_days: 90 },
      { 'idempotency-key': 'golden-1' },
    );
    expect(again.json()).toMatchObject({ code: 'key_exists' });
  }
  rmSync(dataDir, { recursive: true });
});
