import { appendFileSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { kekVerificationSchema, retiredKekSchema } from '@bundoc/shared/contract/kek';
import { type ExportedKey, exportedKeySchema } from '@bundoc/shared/contract/keys';
import { startInBackground } from '@bundoc/shared/testing/timing';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { KeyVerification } from '../src/audit/verify-keys.ts';
import { rotateKek } from '../src/kek/kek-rotation.ts';
import { CLI_CALLER } from '../src/records/caller.ts';
import { kekIdOf } from '../src/records/wrapped-key.ts';
import { FaultyStore } from './support/faulty-store.ts';
import type { Answer } from './support/http.ts';
import { completed, kekIdOfText, openBare, openUnsealed, rotateKeks, statusOf } from './support/keks.ts';
import { newDataDir, newKek, startKms, type TestKms } from './support/kms.ts';
import { infoIn, KeyCalls } from './support/lifecycle.ts';
import { testStorage } from './support/storage.ts';

let dataDir: string;
let old: string;
let further: string;
beforeEach(() => {
  dataDir = newDataDir();
  [old, further] = [newKek(), newKek()];
});
afterEach(() => rmSync(dataDir, { recursive: true }));

const start = (kek: string) => startKms({ dataDir, kek });
/** A service with both KEKs in the ring; their order does not matter. */
const startBoth = (kek = `${old}\n${further}`) => start(kek);
const bytesOf = ({ wrapped_b64 }: ExportedKey) => Buffer.from(wrapped_b64, 'base64');
const keyIn = (answer: Answer) => exportedKeySchema.strict().parse(answer.json());
const retire = async (kms: TestKms, more: object = {}) =>
  kms.api('/v1/kek/retire', {
    token: await kms.fullToken(),
    body: { kek_id: kekIdOfText(old), ...more },
  });
const unfetched = async (kms: TestKms) => {
  const token = await kms.fullToken();
  return (await kms.api(`/v1/kek/${kekIdOfText(old)}/unfetched`, { token })).json().keys;
};
const actionsOf = async (kms: TestKms, action: RegExp) =>
  (await kms.records()).filter((record) => action.test(record.action));
const isStored = (bytes: Buffer) => testStorage().holds(dataDir, bytes);
const damagedKeys = async (kms: TestKms) => {
  const verification = new KeyVerification();
  for (const record of await kms.records()) verification.note(record);
  return verification.damagedKeys(kms.store, (await kms.secrets()).chainKey);
};

describe('a rotation of the KEK', () => {
  test('rewraps every version of every key and every secret with the new one, and changes nothing else', async () => {
    await using kms = await startBoth();
    const keys = await KeyCalls.of(kms);
    const ciphertexts = await keys.make('enabled-dek', 'enabled');
    await keys.make('disabled-dek', 'disabled');
    await keys.make('pending-dek', 'pending_deletion');
    await keys.make('destroyed-dek', 'destroyed');
    await keys.make('half-dek', 'enabled');
    await keys.destroyVersion('half-dek', 1);
    const before = [keyIn(await keys.export('enabled-dek', 1)), keyIn(await keys.export('enabled-dek'))];
    const read = await keys.read('enabled-dek');
    const token = await kms.fullToken();
    const destroyed = (await kms.store.findKey('destroyed-dek', 'all'))?.record;

    const status = await rotateKeks(kms);
    expect(status.current).toBe(kekIdOfText(further));
    expect(status.rotation).toMatchObject({ from: kekIdOfText(old), total: 7, done: 7 });
    expect(status.keks).toMatchObject([
      { id: kekIdOfText(old), state: 'previous', in_ring: true, versions: 0, secrets: 0 },
      { id: kekIdOfText(further), state: 'current', in_ring: true, versions: 7, secrets: 2 },
    ]);
    for (const { version, ...earlier } of before) {
      const key = keyIn(await keys.export('enabled-dek', version));
      expect(key).toMatchObject({ version, kcv: earlier.kcv, key_material_b64: earlier.key_material_b64 });
      expect(kekIdOf(bytesOf(key))).toBe(kekIdOfText(further));
    }
    // Entity tags, tokens and ciphertexts stay valid.
    expect((await keys.read('enabled-dek')).json()).toEqual(read.json());
    expect((await keys.read('enabled-dek')).headers['etag']).toBe(read.headers['etag']);
    expect(
      (
        await keys.patch(
          'enabled-dek',
          { rotate_after_days: 9 },
          { 'if-match': String(read.headers['etag']) },
        )
      ).status,
    ).toBe(200);
    expect((await kms.api('/v1/keys', { token })).status).toBe(200);
    for (const ciphertext_b64 of ciphertexts)
      expect((await keys.crypto('decrypt', 'enabled-dek', { ciphertext_b64 })).status).toBe(200);
    for (const name of ['disabled-dek', 'pending-dek']) {
      const stored = await kms.store.findKey(name, 'all');
      expect(stored?.versions.map(({ wrapped }) => kekIdOf(wrapped))).toEqual(
        Array(2).fill(kekIdOfText(further)),
      );
    }
    expect((await keys.post('pending-dek', 'restore')).status).toBe(200);
    expect((await keys.post('pending-dek', 'enable')).status).toBe(200);
    expect((await keys.export('pending-dek')).status).toBe(200);
    expect((await kms.store.findKey('destroyed-dek', 'all'))?.record).toEqual(destroyed);
    expect((await keys.export('half-dek', 1)).json()).toMatchObject({ code: 'key_version_destroyed' });
    expect(await kms.verify()).toMatchObject({ intact: true });
    expect(await damagedKeys(kms)).toEqual([]);
  });

  test('has records of the caller, each rewrapped key, the secrets and the end', async () => {
    await using kms = await startBoth();
    const keys = await KeyCalls.of(kms);
    for (const name of ['a-dek', 'b-dek']) await keys.create(name);
    await rotateKeks(kms);
    const [from, to] = [kekIdOfText(old), kekIdOfText(further)];
    const records = await actionsOf(kms, /^kek\./);
    expect(records).toMatchObject([
      { action: 'kek.stage', actor: 'system', detail: { kek_id: to, check_value: expect.any(String) } },
      { action: 'kek.rotate', actor: 'tester', severity: 'CRITICAL', detail: { kek_id: to, from } },
      {
        action: 'kek.rewrap',
        actor: 'system',
        detail: { kek_id: to, revision: 1, record: expect.any(String) },
      },
      { action: 'kek.rewrap', actor: 'system', detail: { kek_id: to, revision: 1 } },
      { action: 'kek.rewrap_secrets', actor: 'system', detail: { kek_id: to } },
      { action: 'kek.rewrapped', detail: { kek_id: to, damaged: 0, rotation: records[1]?.seq } },
    ]);
    expect(new Set(records.map(({ key }) => key))).toEqual(new Set([undefined, 'a-dek', 'b-dek']));
  });

  test('accepts a KEK that is added to the ring file while the service runs, first or last', async () => {
    const path = join(dataDir, 'ring');
    writeFileSync(path, `${old}\n`, { mode: 0o600 });
    const third = newKek();
    await using kms = await startKms({
      dataDir,
      kek: `${old}\n${further}\n${third}`,
      config: { kek: { kind: 'file', path } },
    });
    const keys = await KeyCalls.of(kms);
    await keys.create('a-dek');
    const made = keyIn(await keys.export('a-dek'));
    appendFileSync(path, `${further}\n`);
    expect((await rotateKeks(kms)).current).toBe(kekIdOfText(further));
    writeFileSync(path, `${third}\n${readFileSync(path, 'utf8')}`);
    expect((await rotateKeks(kms)).current).toBe(kekIdOfText(third));
    // A ring that is invalid or lacks a needed KEK changes nothing.
    for (const text of [`${third}\n`, 'nonsense', '']) {
      writeFileSync(path, text);
      expect(
        (await kms.api('/v1/kek/rotate', { token: await kms.fullToken(), body: {} })).json(),
      ).toMatchObject({
        code: 'kek_unusable',
      });
      expect((await statusOf(kms)).keks.map(({ in_ring }) => in_ring)).toEqual([true, true, true]);
    }
    expect(kms.logs.join('')).toContain(
      'the new KEK ring lacks KEKs that are needed: keeping the last valid ring',
    );
    expect(kms.logs.join('')).toContain('the new KEK ring is invalid: keeping the last valid ring');
    expect(keyIn(await keys.export('a-dek')).key_material_b64).toBe(made.key_material_b64);
    expect(infoIn(await keys.create('b-dek'))).toMatchObject({ version: 1 });
  });

  test('needs a KEK of the ring, and its id unless exactly one is staged', async () => {
    const third = newKek();
    await using kms = await start(`${old}\n${further}\n${third}`);
    const token = await kms.fullToken();
    const rotate = async (body: object) => (await kms.api('/v1/kek/rotate', { token, body })).json();
    expect(await rotate({})).toMatchObject({
      status: 409,
      code: 'kek_unusable',
      detail: 'several KEKs are staged: name one',
    });
    expect(await rotate({ kek_id: '0'.repeat(16) })).toMatchObject({ status: 404, code: 'kek_not_found' });
    expect((await rotateKeks(kms, kekIdOfText(third))).current).toBe(kekIdOfText(third));
    expect((await rotateKeks(kms)).current).toBe(kekIdOfText(further));
    expect(await rotate({})).toMatchObject({ code: 'kek_unusable' });
    // Rotating back to a former KEK is allowed.
    expect((await rotateKeks(kms, kekIdOfText(old))).current).toBe(kekIdOfText(old));
    await kms.running.close();
    await using without = await start(`${old}\n${further}`);
    const answer = await without.api('/v1/kek/rotate', { token, body: { kek_id: kekIdOfText(third) } });
    expect(answer.json()).toMatchObject({ status: 409, detail: 'the ring lacks the KEK' });
  });

  test('is refused while another running service lacks the KEK', async () => {
    await using kms = await startBoth();
    {
      await using lacking = await start(old);
      const token = await lacking.fullToken();
      const answer = await kms.api('/v1/kek/rotate', { token, body: {} });
      expect(answer.json()).toMatchObject({
        status: 409,
        code: 'kek_unusable',
        detail: expect.stringMatching(/^a running service lacks the KEK/),
      });
      expect((await statusOf(kms)).current).toBe(kekIdOfText(old));
    }
    expect((await rotateKeks(kms)).current).toBe(kekIdOfText(further));
  });

  test('waits, if the caller allows it, until the other service has stopped or holds the KEK', async () => {
    await using kms = await openUnsealed({ dataDir, ring: `${old}\n${further}` });
    await kms.deps.keks.reload();
    let rotation: Promise<void> | undefined;
    {
      await using _lacking = await start(old);
      await expect(rotateKek(kms.deps, {}, CLI_CALLER)).rejects.toMatchObject({ code: 'kek_unusable' });
      rotation = rotateKek(kms.deps, {}, CLI_CALLER, 60_000);
      expect((await kms.deps.keks.refresh()).current).toBe(kekIdOfText(old));
    }
    await rotation;
    expect((await kms.deps.keks.refresh()).current).toBe(kekIdOfText(further));
  });

  test('takes effect at once in another service: it wraps new keys with the new KEK', async () => {
    await using kms = await startBoth();
    await using other = await startBoth(`${further}\n${old}`);
    const keys = await KeyCalls.of(other);
    await keys.create('a-dek');
    await rotateKeks(kms);
    expect((await keys.create('b-dek')).status).toBe(201);
    expect((await keys.post('a-dek', 'rotate')).status).toBe(200);
    for (const [name, version] of [
      ['a-dek', 1],
      ['a-dek', 2],
      ['b-dek', 1],
    ] as const)
      expect(kekIdOf(bytesOf(keyIn(await keys.export(name, version))))).toBe(kekIdOfText(further));
    expect((await statusOf(other)).keks[0]).toMatchObject({ versions: 0, secrets: 0 });
  });

  test('is done by one of two services: the other does not interfere, and finds nothing left afterwards', async () => {
    {
      // A running service would look for work too, as a fourth process.
      await using kms = await startBoth();
      const keys = await KeyCalls.of(kms);
      for (let number = 0; number < 12; number++) await keys.create(`k${number}`);
    }
    const faulty = { first: new FaultyStore(), late: new FaultyStore() };
    const ring = `${old}\n${further}`;
    await using first = await openUnsealed({ dataDir, ring, batch: 1, decorate: faulty.first.decorate });
    await using second = await openUnsealed({ dataDir, ring, batch: 1 });
    await using late = await openUnsealed({ dataDir, ring, batch: 1, decorate: faulty.late.decorate });
    await second.deps.store.appendAudit([
      {
        time: '2026-01-01T00:00:00.000Z',
        severity: 'CRITICAL',
        action: 'kek.rotate',
        outcome: 'allowed',
        detail: { kek_id: kekIdOfText(further), from: kekIdOfText(old) },
      },
    ]);
    const [begun, goOn] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    faulty.first.replaced.updateKeys = async (real, ...args) => {
      begun.resolve();
      await goOn.promise;
      return real(...args);
    };
    const running = startInBackground(first.rewrap.run());
    await begun.promise;
    expect(await second.rewrap.run()).toBe('others are working');
    // It has seen work, but claims it only after it is done.
    faulty.late.replaced.claim = async (real, ...args) => {
      goOn.resolve();
      await running;
      return real(...args);
    };
    expect(await late.rewrap.run()).toBe('nothing to do');
    expect(await running).toBe('done');
    expect(await second.rewrap.run()).toBe('nothing to do');
    const { items } = await second.deps.store.listAudit({ limit: 1_000 });
    expect(items.filter(({ action }) => action === 'kek.rewrap')).toHaveLength(12);
    expect(items.filter(({ action }) => action === 'kek.rewrapped')).toHaveLength(1);
  });

  test('does not touch keys that an earlier release wrapped with several KEKs before a rotation is requested', async () => {
    await using kms = await startBoth();
    const keys = await KeyCalls.of(kms);
    await keys.create('a-dek');
    const added = { kek_id: kekIdOfText(further) };
    await kms.store.appendAudit([
      {
        time: '2026-01-01T00:00:00.000Z',
        severity: 'INFO',
        action: 'kek.added',
        outcome: 'allowed',
        detail: added,
      },
    ]);
    await keys.create('b-dek');
    await using bare = await openUnsealed({ dataDir, ring: `${old}\n${further}` });
    expect(await bare.rewrap.run()).toBe('nothing to do');
    expect((await statusOf(kms)).keks).toMatchObject([
      { state: 'previous', versions: 1, secrets: 2 },
      { state: 'current', versions: 1, secrets: 0 },
    ]);
    const status = await rotateKeks(kms, kekIdOfText(further));
    expect(status.keks).toMatchObject([
      { versions: 0, secrets: 0 },
      { versions: 2, secrets: 2 },
    ]);
  });

  test('runs concurrently with every kind of change, none of which is lost or undone', async () => {
    await using kms = await startBoth();
    const keys = await KeyCalls.of(kms);
    const names = Array.from({ length: 60 }, (_, number) => `k${number}-dek`);
    await Promise.all(names.map((name) => keys.create(name)));
    const rotating = startInBackground(rotateKeks(kms));
    const changes = await Promise.all(
      names.map((name, number) => {
        switch (number % 6) {
          case 0:
            return keys.post(name, 'rotate');
          case 1:
            return keys.post(name, 'disable');
          case 2:
            return keys.shred(name);
          case 3:
            return keys.patch(name, { rotate_after_days: 30 });
          case 4:
            return keys.crypto('encrypt', name, { plaintext_b64: 'AAAA' });
          default:
            return keys.export(name);
        }
      }),
    );
    for (const change of changes) expect(change.status, change.text).toBe(200);
    await rotating;
    expect(await kms.verify()).toMatchObject({ intact: true });
    expect(await damagedKeys(kms)).toEqual([]);
    for (const [number, name] of names.entries()) {
      const exported = await keys.export(name);
      if (number % 6 === 1) expect(exported.json()).toMatchObject({ code: 'key_disabled' });
      else if (number % 6 === 2) expect(exported.json()).toMatchObject({ code: 'key_destroyed' });
      else expect(kekIdOf(bytesOf(keyIn(exported)))).toBe(kekIdOfText(further));
      const record = (await kms.store.findKey(name, 'current'))?.record;
      expect(record?.revision).toBe(number % 6 < 4 ? 2 : 1);
    }
    expect((await statusOf(kms)).keks[0]).toMatchObject({ versions: 0, secrets: 0 });
  });

  test('is visible in a metric', async () => {
    await using kms = await startBoth();
    const keys = await KeyCalls.of(kms);
    await keys.create('a-dek');
    const left = async () =>
      /^bunkms_key_versions_pending_rewrap (\d+)$/m.exec((await kms.internal('/metrics')).text)?.[1];
    expect(await left()).toBe('0');
    const [time, detail] = ['2026-01-01T00:00:00.000Z', { kek_id: kekIdOfText(further) }];
    await kms.store.appendAudit([
      { time, severity: 'INFO', action: 'kek.added', outcome: 'allowed', detail },
    ]);
    await statusOf(kms);
    expect(await left()).toBe('1');
    await rotateKeks(kms, kekIdOfText(further));
    expect(await left()).toBe('0');
  });

  test('lets receipts of destroyed keys name every KEK that wrapped a copy', async () => {
    await using kms = await startBoth();
    const keys = await KeyCalls.of(kms);
    await keys.create('a-dek');
    await rotateKeks(kms);
    expect((await keys.shred('a-dek')).json().kek_ids).toEqual([kekIdOfText(old), kekIdOfText(further)]);
  });
});

describe('damaged keys', () => {
  const edit = (sql: string) => testStorage().edit(dataDir, sql);
  const literalOf = (bytes: Uint8Array) => `x'${Buffer.from(bytes).toString('hex')}'`;
  const damage = (name: string, set: string, version = 1) =>
    edit(
      `UPDATE key_versions SET ${set} WHERE key_id = (SELECT id FROM keys WHERE name = '${name}') AND version = ${version}`,
    );

  test('are not changed by a rotation, are reported by a verification, and prevent the retirement until accepted', async () => {
    await using kms = await startBoth();
    const keys = await KeyCalls.of(kms);
    await keys.make('half-dek', 'enabled');
    await keys.make('lost-dek', 'enabled');
    await keys.make('sound-dek', 'enabled');
    const flip = `wrapped = CAST(substr(wrapped, 1, 68) || x'00' AS BLOB)`;
    await damage('half-dek', flip);
    await edit(`UPDATE keys SET exportable = false WHERE name = 'lost-dek'`);
    const status = await rotateKeks(kms);
    expect(status.rotation).toMatchObject({ total: 6, done: 3 });
    expect((await actionsOf(kms, /^kek\.rewrapped$/)).at(-1)?.detail).toMatchObject({ damaged: 3 });
    expect((await keys.export('half-dek')).status).toBe(200);
    const token = await kms.fullToken();
    const verified = await kms.api('/v1/kek/verify', { method: 'POST', token });
    expect(kekVerificationSchema.strict().parse(verified.json())).toEqual({
      checked: 3,
      under_others: 0,
      damaged: ['half-dek', 'lost-dek'],
    });
    expect((await retire(kms, { accept_unfetched: true })).json()).toMatchObject({
      status: 409,
      code: 'kek_in_use',
      detail: 'wrapped with it: 3 versions of keys, 0 secrets',
    });
    await edit(
      `INSERT INTO key_versions (key_id, version, kcv, state, created_at, wrapped) SELECT id, 9, '', 'available', '', x'01ab' FROM keys LIMIT 1`,
    );
    expect((await statusOf(kms)).keks.at(-1)).toMatchObject({ id: 'ab', state: 'unknown', versions: 1 });
    await kms.running.close();
    {
      // Without the KEK, all keys under it look damaged.
      await using without = await start(further);
      expect(without.logs.join('')).toContain('the ring lacks KEKs that are not retired');
      const answer = await retire(without, { accept_unfetched: true, accept_damaged: true });
      expect(answer.json()).toMatchObject({
        code: 'kek_in_use',
        detail: 'it is not in the ring, so it is unknown what it can open',
      });
    }
    await using again = await startBoth();
    expect((await retire(again, { accept_unfetched: true, accept_damaged: true })).status).toBe(200);
    expect(await again.verify()).toMatchObject({ intact: true });
  });

  test('that open again later are then rewrapped with the current KEK', async () => {
    await using kms = await startBoth();
    const keys = await KeyCalls.of(kms);
    await keys.make('a-dek', 'enabled');
    const kept = (await kms.store.findKey('a-dek', 1))?.versions[0]?.wrapped ?? new Uint8Array();
    await damage('a-dek', `wrapped = x'01${kekIdOfText(old)}${'00'.repeat(60)}'`);
    await rotateKeks(kms);
    await edit(`UPDATE key_versions SET wrapped = ${literalOf(kept)} WHERE version = 1`);
    expect((await keys.export('a-dek', 1)).status).toBe(200);
    expect((await retire(kms, { accept_damaged: true, accept_unfetched: true })).json()).toMatchObject({
      code: 'kek_in_use',
      detail: 'versions of keys that can be opened are wrapped with it',
    });
    await using bare = await openUnsealed({ dataDir, ring: `${old}\n${further}` });
    expect(await bare.rewrap.run()).toBe('done');
    expect(kekIdOf(bytesOf(keyIn(await keys.export('a-dek', 1))))).toBe(kekIdOfText(further));
  });

  test('are the result of restoring a wrapping from before the rotation', async () => {
    await using kms = await startBoth();
    const keys = await KeyCalls.of(kms);
    await keys.make('a-dek', 'enabled');
    const [first] = (await kms.store.findKey('a-dek', 'all'))?.versions ?? [];
    await rotateKeks(kms);
    await edit(
      `UPDATE key_versions SET wrapped = ${literalOf(first?.wrapped ?? new Uint8Array())} WHERE version = 1`,
    );
    expect((await keys.export('a-dek', 1)).json()).toMatchObject({ code: 'key_damaged' });
    expect((await keys.export('a-dek')).status).toBe(200);
    // Together with the complete former row of the key.
    await edit(`UPDATE keys SET kek_ids = '${kekIdOfText(old)}'`);
    expect((await keys.export('a-dek')).json()).toMatchObject({ code: 'key_damaged' });
  });

  test('are all keys if somebody changes the record of the rotation to another KEK', async () => {
    await using kms = await startBoth();
    await rotateKeks(kms);
    await kms.running.close();
    await edit(
      `UPDATE audit SET detail = replace(detail, '${kekIdOfText(further)}', '${kekIdOfText(old)}') WHERE action = 'kek.rotate'`,
    );
    expect(await openBare({ dataDir, ring: `${old}\n${further}` })).toMatchObject({
      kind: 'sealed',
      reason: expect.stringMatching(/^the audit record \d+ of the KEKs was changed$/),
    });
  });
});

describe('the retirement of a KEK', () => {
  test('requires that everything was rewrapped and fetched; then the other KEK suffices, and this one opens nothing', async () => {
    const exported = new Map<string, ExportedKey>();
    const former: Buffer[] = [];
    {
      await using kms = await startBoth();
      const keys = await KeyCalls.of(kms);
      for (const name of ['a-dek', 'b-dek', 'never-dek']) await keys.make(name, 'enabled');
      for (const name of ['a-dek', 'b-dek'])
        for (const version of [1, 2]) {
          const key = keyIn(await keys.export(name, version));
          exported.set(`${name} ${version}`, key);
          former.push(bytesOf(key));
        }
      expect((await retire(kms)).json()).toMatchObject({
        code: 'kek_in_use',
        detail: 'it is the current KEK',
      });
      await rotateKeks(kms);
      expect(await unfetched(kms)).toEqual(['a-dek', 'b-dek']);
      expect((await retire(kms)).json()).toMatchObject({ status: 409, code: 'kek_unfetched' });
      await keys.export('a-dek');
      await keys.export('b-dek');
      expect(await unfetched(kms)).toEqual(['a-dek', 'b-dek']);
      await keys.export('a-dek', 1);
      expect(await unfetched(kms)).toEqual(['b-dek']);
      await keys.export('b-dek', 1);
      expect(await unfetched(kms)).toEqual([]);
      const answer = await retire(kms);
      const receipt = retiredKekSchema.strict().parse(answer.json());
      expect((await kms.records())[receipt.audit.seq - 1]).toMatchObject({
        hash: receipt.audit.hash,
        severity: 'CRITICAL',
        action: 'kek.retire',
        detail: { kek_id: kekIdOfText(old), accept_unfetched: false, accept_damaged: false },
      });
      expect((await statusOf(kms)).keks[0]).toMatchObject({ state: 'retired' });
      const token = await kms.fullToken();
      const back = await kms.api('/v1/kek/rotate', { token, body: { kek_id: kekIdOfText(old) } });
      expect(back.json()).toMatchObject({ code: 'kek_unusable', detail: 'the KEK is retired' });
      for (const bytes of former) expect(await isStored(bytes)).toBe(false);
      for (const bytes of former) expect(await isStored(bytes.subarray(21))).toBe(false);
    }
    await using kms = await start(further);
    const keys = await KeyCalls.of(kms);
    for (const [id, key] of exported) {
      const [name, version] = id.split(' ') as [string, string];
      expect(keyIn(await keys.export(name, Number(version))).key_material_b64).toBe(key.key_material_b64);
    }
    expect((await keys.export('never-dek', 1)).status).toBe(200);
    expect(await kms.verify()).toMatchObject({ intact: true });
    await kms.running.close();
    expect(await openBare({ dataDir, ring: old })).toMatchObject({ kind: 'sealed' });
  });

  test('can be forced although holders have not fetched, and works for a KEK that was never used', async () => {
    const third = newKek();
    await using kms = await start(`${old}\n${further}\n${third}`);
    const keys = await KeyCalls.of(kms);
    await keys.create('a-dek');
    await keys.export('a-dek');
    await rotateKeks(kms, kekIdOfText(further));
    expect((await retire(kms, { accept_unfetched: true })).status).toBe(200);
    expect((await retire(kms, { kek_id: kekIdOfText(third) })).status).toBe(200);
    expect((await statusOf(kms)).keks.map(({ state }) => state)).toEqual(['retired', 'current', 'retired']);
    expect((await retire(kms, { kek_id: '0'.repeat(16) })).json()).toMatchObject({
      status: 404,
      code: 'kek_not_found',
    });
  });
});

test('a rotation that a stop interrupted continues at the next start', async () => {
  {
    await using kms = await startBoth();
    const keys = await KeyCalls.of(kms);
    for (let number = 0; number < 8; number++) await keys.create(`k${number}`);
    await kms.store.appendAudit([
      {
        time: '2026-01-01T00:00:00.000Z',
        severity: 'CRITICAL',
        action: 'kek.rotate',
        outcome: 'allowed',
        detail: { kek_id: kekIdOfText(further), from: kekIdOfText(old) },
      },
    ]);
  }
  await using again = await startBoth();
  const { rotation } = await completed(again);
  expect(rotation).toMatchObject({ total: 8, done: 8 });
});
