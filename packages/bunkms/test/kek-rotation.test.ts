import { appendFileSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { defined } from '@bundoc/shared/contract/defined';
import { describe, expect, it } from 'vitest';
import { kekIdOf } from '../src/records/wrapped-key.ts';
import {
  actionsOf,
  bytesOf,
  dataDir,
  further,
  keyIn,
  old,
  start,
  startBoth,
  useKeks,
} from './support/kek-rings.ts';
import { completed, kekIdOfText, rotateKeks, statusOf } from './support/keks.ts';
import { newKek, startKms } from './support/kms.ts';
import { infoIn, KeyCalls } from './support/lifecycle.ts';
import { damagedKeys } from './support/soundness.ts';

useKeks();

describe('a rotation of the KEK', () => {
  it('rewraps every version of every key and every secret with the new one, and changes nothing else', async () => {
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

  it('has records of the caller, each rewrapped key, the secrets and the end', async () => {
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

  it('accepts a KEK that is added to the ring file while the service runs, first or last', async () => {
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

  it('needs a KEK of the ring, and its id unless exactly one is staged', async () => {
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

  it('needs kms:manage_kek, as do verification and retirement: kms:admin only reads the state of KEKs', async () => {
    await using kms = await startBoth();
    const { token: admin } = await kms.issue({ scope: ['kms:admin'] });
    const { token: manager } = await kms.issue({ scope: ['kms:manage_kek'] });
    const { current } = await statusOf(kms);
    const changes = [
      ['/v1/kek/rotate', {}],
      ['/v1/kek/verify', undefined],
      ['/v1/kek/retire', { kek_id: current }],
    ] as const;
    const statuses = async (token: string) => {
      const answers = [];
      for (const [path, body] of changes)
        answers.push((await kms.api(path, { method: 'POST', token, ...defined({ body }) })).status);
      return answers;
    };
    expect(await statuses(admin)).toEqual([403, 403, 403]);
    expect((await statusOf(kms)).current).toBe(current);
    for (const token of [admin, manager])
      for (const path of ['/v1/kek', `/v1/kek/${current}/unfetched`])
        expect((await kms.api(path, { token })).status).toBe(200);
    expect((await kms.api('/v1/tokens', { token: manager })).status).toBe(403);
    const [rotated, verified, retired] = await statuses(manager);
    expect([rotated, verified]).toEqual([202, 200]);
    expect([200, 409]).toContain(retired);
  });

  it('is visible in a metric', async () => {
    await using kms = await startBoth();
    const keys = await KeyCalls.of(kms);
    await keys.create('a-dek');
    const left = async () =>
      /^bunkms_key_versions_pending_rewrap (\d+)$/m.exec((await kms.internal('/metrics')).text)?.[1];
    expect(await left()).toBe('0');
    // Another process has the work, and stops.
    const [now, until] = [0, 3_000].map((ms) => new Date(Date.now() + ms).toISOString());
    await kms.store.claim({
      task: 'kek-rotation',
      holder: 'another',
      now: String(now),
      until: String(until),
    });
    const rotated = rotateKeks(kms);
    await expect.poll(left).toBe('1');
    await rotated;
    expect(await left()).toBe('0');
  });

  it('lets receipts of destroyed keys name every KEK that wrapped a copy', async () => {
    await using kms = await startBoth();
    const keys = await KeyCalls.of(kms);
    await keys.create('a-dek');
    await rotateKeks(kms);
    expect((await keys.shred('a-dek')).json().kek_ids).toEqual([kekIdOfText(old), kekIdOfText(further)]);
  });

  it('continues at the next start when a stop interrupts it', async () => {
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
});
