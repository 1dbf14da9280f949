import { createSecretKey, randomBytes } from 'node:crypto';
import { AppError } from '@bundoc/shared/contract/app-error';
import {
  type ExportedKey,
  exportedKeySchema,
  KEY_VERSIONS_MAX,
  keyDetailSchema,
  keyInfoSchema,
  keyPageSchema,
} from '@bundoc/shared/contract/keys';
import { keyCheckValue } from '@bundoc/shared/crypto/aead';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { keyChangeDraft, withDigests } from '../src/records/key-record.ts';
import { kekIdOf } from '../src/records/wrapped-key.ts';
import { parseKekRing } from '../src/vault/kek-provider.ts';
import { Vault } from '../src/vault/vault.ts';
import { FaultyStore } from './support/faulty-store.ts';
import { newKek, startKms, type TestKms } from './support/kms.ts';
import { testStorage } from './support/storage.ts';

const NAME = 'a-dek';
const SWAPPED = `UPDATE key_versions SET wrapped = (SELECT wrapped FROM key_versions WHERE version = 2) WHERE version = 1`;

describe('rotation', () => {
  let kms: TestKms;
  let faulty: FaultyStore;
  let token: string;
  beforeEach(async () => {
    faulty = new FaultyStore();
    kms = await startKms({ decorate: faulty.decorate });
    token = await kms.fullToken();
    await kms.api('/v1/keys', { token, body: { name: NAME, type: 'aes-256' } });
  });
  afterEach(() => kms[Symbol.asyncDispose]());

  const rotate = (query = '', at = kms) =>
    at.api(`/v1/keys/${NAME}/rotate${query}`, { method: 'POST', token });
  const rotated = async (query = '', at = kms) => {
    const answer = await rotate(query, at);
    expect(answer.status).toBe(200);
    return keyInfoSchema.strict().parse(answer.json());
  };
  const exported = async (query = '', at = kms) => {
    const answer = await at.internal(`/v1/export/${NAME}${query}`, { token });
    expect(answer.status, answer.text).toBe(200);
    return exportedKeySchema.strict().parse(answer.json());
  };
  const codeOf = async (query = '') =>
    (await kms.internal(`/v1/export/${NAME}${query}`, { token })).json().code;
  const recordsOf = async (action: string) =>
    (await kms.records()).filter((record) => record.action === action);
  const edit = (sql: string) => testStorage().edit(kms.dataDir, sql);
  const dekOf = (key: ExportedKey) => Buffer.from(key.key_material_b64, 'base64');
  /** Expects material, check value and wrapped bytes that belong to each other and to the version. */
  const expectConsistent = (key: ExportedKey) => {
    expect(keyCheckValue(createSecretKey(dekOf(key)))).toBe(key.kcv);
    const vault = new Vault(parseKekRing('test', kms.kek));
    const identity = { keyId: key.key_id, name: key.name, version: key.version };
    expect(vault.unwrapDek(Buffer.from(key.wrapped_b64, 'base64'), identity)).toEqual(dekOf(key));
  };

  it('creates a new current version and does not change the older one, even after a restart', async () => {
    const first = await exported();
    const info = await rotated();
    expect(info).toMatchObject({ id: first.key_id, name: NAME, state: 'enabled', version: 2 });
    const second = await exported();
    expect(second).toMatchObject({ version: 2, kcv: info.kcv, key_id: first.key_id });
    expect(second.key_material_b64).not.toBe(first.key_material_b64);
    const restarted = async (at: TestKms) => {
      const one = await exported('?version=1', at);
      const two = await exported('?version=2', at);
      expect([one.key_material_b64, one.kcv, one.wrapped_b64]).toEqual([
        first.key_material_b64,
        first.kcv,
        first.wrapped_b64,
      ]);
      expect([two.key_material_b64, two.kcv, two.wrapped_b64]).toEqual([
        second.key_material_b64,
        second.kcv,
        second.wrapped_b64,
      ]);
      for (const key of [one, two]) expectConsistent(key);
    };
    await restarted(kms);
    await kms.running.close();
    await using again = await startKms({ dataDir: kms.dataDir, kek: kms.kek });
    await restarted(again);
  });

  it('is visible in the key with all its versions, and in the list with the current one', async () => {
    const created = keyPageSchema.parse((await kms.api('/v1/keys', { token })).json()).keys[0];
    const info = await rotated();
    expect(info.created_at).toBe(created?.created_at);
    const detail = keyDetailSchema.strict().parse((await kms.api(`/v1/keys/${NAME}`, { token })).json());
    expect(detail).toMatchObject(info);
    expect(detail.versions.map(({ version, kcv }) => [version, kcv])).toEqual([
      [1, created?.kcv],
      [2, info.kcv],
    ]);
    expect(detail.versions[1]!.created_at >= detail.versions[0]!.created_at).toBe(true);
    const answer = await kms.api('/v1/keys', { token });
    expect(answer.json().keys).toEqual([info]);
  });

  it('works on the internal listener as well', async () => {
    const answer = await kms.internal(`/v1/keys/${NAME}/rotate`, { method: 'POST', token });
    expect(keyInfoSchema.parse(answer.json()).version).toBe(2);
  });

  it('leaves one INFO record that names the version, and exports name theirs', async () => {
    const rotator = await kms.issue({ sub: 'bundoc', scope: ['kms:rotate_key'], keys: ['*-dek'] });
    const answer = await kms.api(`/v1/keys/${NAME}/rotate`, { method: 'POST', token: rotator.token });
    const info = keyInfoSchema.parse(answer.json());
    expect(await recordsOf('key.rotate')).toMatchObject([
      {
        severity: 'INFO',
        outcome: 'allowed',
        actor: 'bundoc',
        jti: rotator.jti,
        key: NAME,
        version: 2,
        source: '127.0.0.1',
        request_id: expect.any(String),
        detail: { key_id: info.id, kcv: info.kcv },
      },
    ]);
    await exported('?version=1');
    await exported();
    expect((await recordsOf('key.export')).map(({ severity, version }) => [severity, version])).toEqual([
      ['CRITICAL', 1],
      ['CRITICAL', 2],
    ]);
    expect(await kms.verify()).toMatchObject({ intact: true });
  });

  it('a rotation with an expected version happens only if this version is current, and is recorded', async () => {
    expect(await rotated('?expected_version=1')).toMatchObject({ version: 2 });
    const present = await exported();
    for (const expected of [1, 3, 1_000])
      expect(await rotated(`?expected_version=${expected}`)).toMatchObject({ version: 2, kcv: present.kcv });
    expect(await rotated('?expected_version=2')).toMatchObject({ version: 3 });
    expect((await recordsOf('key.rotate')).map(({ version }) => version)).toEqual([2, 3]);
    expect(await recordsOf('key.rotate_unneeded')).toMatchObject(
      [1, 3, 1_000].map((expected) => ({
        severity: 'INFO',
        outcome: 'allowed',
        key: NAME,
        version: 2,
        detail: { expected_version: expected },
      })),
    );
  });

  it('concurrent rotations with the same expected version happen once, across processes', async () => {
    await using other = await startKms({ dataDir: kms.dataDir, kek: kms.kek });
    const answers = await Promise.all(
      Array.from({ length: 30 }, (_, number) =>
        rotated('?expected_version=1', number % 2 === 0 ? kms : other),
      ),
    );
    const present = await exported();
    expect(present.version).toBe(2);
    for (const info of answers) expect(info).toMatchObject({ version: 2, kcv: present.kcv });
    expect(await recordsOf('key.rotate')).toHaveLength(1);
    expect(await recordsOf('key.rotate_unneeded')).toHaveLength(29);
    expect(await kms.verify()).toMatchObject({ intact: true });
  });

  it('concurrent rotations give each caller a version from after its request, without gaps', async () => {
    await using other = await startKms({ dataDir: kms.dataDir, kek: kms.kek });
    const answers = await Promise.all(
      Array.from({ length: 30 }, (_, number) => rotated('', number % 2 === 0 ? kms : other)),
    );
    const detail = keyDetailSchema.parse((await kms.api(`/v1/keys/${NAME}`, { token })).json());
    expect(detail.versions.map(({ version }) => version)).toEqual(
      Array.from({ length: detail.version }, (_, index) => index + 1),
    );
    expect(detail.version).toBe(Math.max(...answers.map(({ version }) => version)));
    for (const { version, kcv } of answers) {
      expect(version).toBeGreaterThan(1);
      expect(detail.versions[version - 1]?.kcv).toBe(kcv);
    }
    expect((await recordsOf('key.rotate')).map(({ version }) => version)).toEqual(
      detail.versions.slice(1).map(({ version }) => version),
    );
    for (const { version } of detail.versions) expectConsistent(await exported(`?version=${version}`));
    expect(await kms.verify()).toMatchObject({ intact: true });
  });

  it('a repeated rotation gives a new version each time', async () => {
    for (let version = 2; version < 6; version++) expect((await rotated()).version).toBe(version);
  });

  it('leaves each concurrent export with version, check value and material of one key', async () => {
    const keys: ExportedKey[] = [];
    let isRotating = true;
    const EXPORTERS = 8;
    const exporting = Array.from({ length: EXPORTERS }, async (_, number) => {
      while (isRotating) keys.push(await exported(number % 4 === 0 ? '?version=1' : ''));
    });
    const hasSeenMany = () => new Set(keys.map(({ version }) => version)).size > 3;
    const rotating = (async () => {
      try {
        for (let time = 0; time < 25 || (time < 500 && !hasSeenMany()); time++) {
          // An export that is overtaken too often is refused, so each rotation waits for most running
          // exports.
          const ended = keys.length + EXPORTERS;
          await rotated();
          await vi.waitUntil(() => keys.length >= ended, { timeout: 60_000, interval: 2 });
        }
      } finally {
        isRotating = false;
      }
    })();
    await Promise.all([rotating, ...exporting]);
    keys.push(await exported());

    const materials = new Map<number, string>();
    for (const key of keys) {
      expectConsistent(key);
      expect(materials.get(key.version) ?? key.key_material_b64).toBe(key.key_material_b64);
      materials.set(key.version, key.key_material_b64);
    }
    expect(materials.size).toBeGreaterThan(3);
    expect(new Set(materials.values()).size).toBe(materials.size);
    const records = new Map((await recordsOf('key.export')).map((record) => [record.seq, record]));
    for (const { audit, version } of keys)
      expect(records.get(audit.seq)).toMatchObject({ hash: audit.hash, version });
    expect(await kms.verify()).toMatchObject({ intact: true });
  });

  it('a rotation of a missing key is 404, and so is the export of a version that never existed', async () => {
    const answer = await kms.api('/v1/keys/none-dek/rotate', { method: 'POST', token });
    expect(answer.json()).toMatchObject({ status: 404, code: 'key_not_found' });
    expect(await codeOf('?version=2')).toBe('key_not_found');
    await rotated();
    expect((await exported('?version=2')).version).toBe(2);
    expect((await kms.internal(`/v1/export/${NAME}?version=3`, { token })).json()).toMatchObject({
      code: 'key_not_found',
      detail: 'the key has no such version: its latest is 2',
    });
    expect((await recordsOf('key.export')).map(({ outcome, version }) => [outcome, version])).toEqual([
      ['failed', 2],
      ['allowed', 2],
      ['failed', 3],
    ]);
  });

  it('is refused beyond the maximum number of versions', async () => {
    const stored = await kms.store.findKey(NAME, 'current');
    const record = stored!.record!;
    const vault = new Vault(parseKekRing('test', kms.kek));
    const version = KEY_VERSIONS_MAX - 1;
    const dek = randomBytes(32);
    const added = {
      ...stored!.versions[0]!,
      version,
      kcv: keyCheckValue(createSecretKey(dek)),
      wrapped: vault.wrapDek(dek, { keyId: record.id, name: NAME, version }),
    };
    const versionDigests = withDigests(record.versionDigests, [added]);
    const next = { ...record, version, revision: 2, versionDigests };
    const origin = { caller: {}, time: record.createdAt, action: 'key.rotate' };
    const audit = keyChangeDraft(origin, next);
    await kms.store.updateKey({ record: next, versions: [added], audit, previous: record });

    const last = await rotated();
    expect(last.version).toBe(KEY_VERSIONS_MAX);
    const refusal = await rotate();
    expect(refusal.json()).toMatchObject({ status: 409, code: 'key_versions_exhausted' });
    expect((await rotate(`?expected_version=${KEY_VERSIONS_MAX}`)).status).toBe(409);
    expect(await rotated('?expected_version=7')).toEqual(last);
    expect((await exported()).kcv).toBe(last.kcv);
    expect((await exported(`?version=${KEY_VERSIONS_MAX}`)).kcv).toBe(last.kcv);
  });

  it.each([
    ['does not unwrap', `UPDATE key_versions SET wrapped = x'${'00'.repeat(69)}' WHERE version = 1`],
    ['holds the bytes of another version', SWAPPED],
    ['has another check value', `UPDATE key_versions SET kcv = '${'0'.repeat(32)}' WHERE version = 1`],
    ['is lost', 'DELETE FROM key_versions WHERE version = 1'],
  ])('works when an older version %s; only that version is key_damaged', async (_what, sql) => {
    await rotated();
    await edit(sql);
    expect(await codeOf('?version=1')).toBe('key_damaged');
    expectConsistent(await exported());
    expect((await rotated()).version).toBe(3);
    expectConsistent(await exported('?version=2'));
    expectConsistent(await exported('?version=3'));
    expect(await codeOf('?version=1')).toBe('key_damaged');
    expect((await kms.internal('/ready')).status).toBe(200);
  });

  it.each([
    ['does not unwrap', `UPDATE key_versions SET wrapped = x'${'00'.repeat(69)}' WHERE version = 2`],
    ['has another check value', `UPDATE key_versions SET kcv = '' WHERE version = 2`],
    ['is lost', 'DELETE FROM key_versions WHERE version = 2'],
  ])('is refused while the current version %s, and changes nothing', async (_what, sql) => {
    await rotated();
    await edit(sql);
    expect((await rotate()).json()).toMatchObject({ status: 503, code: 'key_damaged' });
    expect(await codeOf()).toBe('key_damaged');
    expectConsistent(await exported('?version=1'));
    expect((await kms.api(`/v1/keys/${NAME}`, { token })).json()).toMatchObject({ version: 2 });
    expect(await recordsOf('key.rotate')).toHaveLength(1);
  });

  it.each([
    ['before it is written', false, 1],
    ['after it was written', true, 2],
  ])(
    'a rotation that fails %s can be repeated with the expected version, and happens once',
    async (_when, isWritten, version) => {
      faulty.replaced.updateKey = async (real, ...args) => {
        if (isWritten) await real(...args);
        throw new AppError('storage_unavailable', { cause: new Error('injected') });
      };
      const failed = await rotate('?expected_version=1');
      expect(failed).toMatchObject({ status: 503, headers: { 'retry-after': '1' } });
      expect((await exported()).version).toBe(version);
      delete faulty.replaced.updateKey;
      expect((await rotated('?expected_version=1')).version).toBe(2);
      expect(await recordsOf('key.rotate')).toHaveLength(1);
    },
  );

  it('wraps with the recorded current KEK, not with the first of the ring', async () => {
    await kms.running.close();
    const further = newKek();
    await using ring = await startKms({ dataDir: kms.dataDir, kek: `${further}\n${kms.kek}` });
    await rotated('', ring);
    const kekOf = async (version: number) =>
      kekIdOf(Buffer.from((await exported(`?version=${version}`, ring)).wrapped_b64, 'base64'));
    expect(await kekOf(1)).toBe(new Vault(parseKekRing('test', kms.kek)).currentKekId);
    expect(await kekOf(2)).toBe(new Vault(parseKekRing('test', kms.kek)).currentKekId);
    expect((await ring.api('/v1/kek/rotate', { method: 'POST', token })).status).toBe(202);
    await rotated('', ring);
    expect(await kekOf(3)).toBe(new Vault(parseKekRing('test', further)).currentKekId);
  });
});
