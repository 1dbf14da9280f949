import { randomUUID } from 'node:crypto';
import { HOLDER_UNKNOWN } from '@bundoc/shared/contract/keys';
import type { IssueToken } from '@bundoc/shared/contract/tokens';
import { describe, expect, it } from 'vitest';
import { FaultyStore } from './support/faulty-store.ts';
import {
  admin,
  clock,
  expectRefused,
  keys,
  kms,
  LEASE_MS,
  latest,
  NAME,
  recordOf,
  s,
  t,
  takeOverKey,
  USE_MS,
  useHolders,
} from './support/holders.ts';
import { startKms } from './support/kms.ts';
import { testStorage } from './support/storage.ts';
import { keyIn, setKey, TestStorageNode } from './support/storages.ts';

useHolders();

describe('a client without a storage', () => {
  it('can create a key that does not exist and then export it', async () => {
    expect((await keys.export(NAME)).status).toBe(404);
    const made = await keys.create(NAME);
    expect(made.status).toBe(201);
    expect(made.json().holder).toBeUndefined();
    const exported = await keys.export(NAME);
    expect(exported.status).toBe(200);
    expect(exported.json()).toMatchObject({ algorithm: 'AES-256-GCM', name: NAME, version: 1 });
    expect((await latest('key.export'))?.detail).toEqual({
      key_id: made.json().id,
      lease_ttl_ms: LEASE_MS,
    });
  });

  it('can export a key that a storage or an unknown holder holds', async () => {
    await s.create(NAME);
    const material = (await s.export(NAME)).json().key_material_b64;
    for (const holder of [s.id, t.id, HOLDER_UNKNOWN]) {
      await setKey(kms, NAME, { holder });
      const answer = await keys.export(NAME);
      expect([answer.status, answer.json().key_material_b64]).toEqual([200, material]);
    }
  });
});

describe('a key that a storage holds', () => {
  it('is released only to that storage, with its id in the record', async () => {
    const made = await s.create(NAME);
    expect(made.status).toBe(201);
    expect(made.json()).toMatchObject({ holder: s.id });
    expect((await latest('key.create'))?.detail).toMatchObject({ holder: s.id });
    expect((await s.export(NAME)).status).toBe(200);
    expect((await latest('key.export'))?.detail).toMatchObject({ storage: s.id });
    expectRefused(await t.export(NAME), 409, 'key_held_elsewhere', { storage: s.id });
    expect(await latest('key.export')).toMatchObject({ outcome: 'refused', code: 'key_held_elsewhere' });
    expect((await keys.read(NAME)).json()).toMatchObject({ holder: s.id });
    expect((await keys.list()).json().keys).toMatchObject([{ name: NAME, holder: s.id }]);
  });

  it('stays with it through rotation, policy changes and disabling', async () => {
    await s.create(NAME);
    const move = randomUUID();
    keyIn(await s.act('offer', NAME, { to: t.id, move }));
    await keys.post(NAME, 'rotate');
    await keys.patch(NAME, { rotate_after_days: 90 });
    await keys.post(NAME, 'disable');
    await keys.post(NAME, 'enable');
    expect((await keys.read(NAME)).json()).toMatchObject({ holder: s.id, offered_to: t.id, move });
  });

  it('is created only by a service that names the present generation of the storage, or with kms:manage_key', async () => {
    const create = async (token: string, more: object) =>
      await kms.api('/v1/keys', { token, body: { name: NAME, type: 'aes-256', ...more } });
    const issue = async (typ: 'service' | 'client', ...scope: IssueToken['scope']) =>
      (await kms.issue({ typ, scope, keys: ['*'] })).token;
    const creator = await issue('service', 'kms:create_key');
    const { generation } = s;
    const before = await kms.store.auditHead();
    expectRefused(await create(creator, { storage: s.id }), 403, 'forbidden');
    for (const unknown of [t.generation, randomUUID()])
      expectRefused(await create(creator, { storage: s.id, generation: unknown }), 409, 'storage_superseded');
    expectRefused(await create(creator, { storage: randomUUID(), generation }), 409, 'storage_superseded');
    for (const scope of [['kms:create_key'], ['kms:create_key', 'kms:manage_key']] as const)
      expectRefused(
        await create(await issue('client', ...scope), { storage: s.id, generation }),
        403,
        'forbidden',
      );
    expectRefused(await create(creator, { generation }), 400, 'invalid_request');
    expect(await kms.store.findKey(NAME, 'current')).toBeUndefined();
    expect((await kms.records()).filter(({ seq, key }) => seq > before.seq && key === NAME)).toEqual([]);

    expect((await create(creator, { storage: s.id, generation })).status).toBe(201);
    const administrator = await issue('client', 'kms:create_key', 'kms:manage_key');
    const another = await create(administrator, { name: 'other-dek', storage: t.id });
    expect([another.status, another.json().holder]).toEqual([201, t.id]);
  });

  it('is not created by a superseded copy of the storage, whether or not it is a repetition', async () => {
    const copy = s.copy();
    expect((await s.create(NAME)).status).toBe(201);
    await s.advance();
    for (const name of [NAME, 'new-dek']) expectRefused(await copy.create(name), 409, 'storage_superseded');
    expect(await kms.store.findKey('new-dek', 'current')).toBeUndefined();
  });

  it('is not created when the storage advances between the check and the write', async () => {
    const faulty = new FaultyStore();
    await using other = await startKms({ decorate: faulty.decorate });
    const storage = await TestStorageNode.of(other);
    const copy = storage.copy();
    faulty.replaced.insertKey = async (real, ...args) => {
      delete faulty.replaced.insertKey;
      await storage.advance();
      return await real(...args);
    };
    expectRefused(await copy.create(NAME), 409, 'storage_superseded');
    expect(await other.store.findKey(NAME, 'current')).toBeUndefined();
  });

  it('is created once for a repeated request, even after the storage has advanced', async () => {
    const creator = (await kms.issue({ scope: ['kms:create_key'], keys: ['*'] })).token;
    const create = async () =>
      await kms.api('/v1/keys', {
        token: creator,
        headers: { 'idempotency-key': 'one' },
        body: { name: NAME, type: 'aes-256', ...s.acting },
      });
    const first = await create();
    await s.advance();
    const second = await create();
    expect([first.status, second.status, second.json()]).toEqual([201, 201, first.json()]);
  });

  it('is not created twice with one idempotency key for two storages', async () => {
    const create = (storage: string) => keys.create(NAME, { storage }, { 'idempotency-key': 'one' });
    expect((await create(s.id)).json()).toMatchObject({ holder: s.id });
    expect((await create(s.id)).json()).toMatchObject({ holder: s.id });
    expectRefused(await create(t.id), 422, 'idempotency_mismatch');
  });

  it('cannot be offered to its holder', async () => {
    await s.create(NAME);
    expectRefused(await s.act('offer', NAME, { to: s.id, move: randomUUID() }), 400, 'invalid_request');
  });

  it('is damaged when its holder, offer or intent is edited in the database', async () => {
    const id = randomUUID();
    for (const [at, sql] of [
      `holder = '${t.id}'`,
      'holder = NULL',
      `offered_to = '${t.id}', move = '${id}', offer_generation = '${s.generation}'`,
      `move = '${id}'`,
      `intended_at = '2026-01-01T00:00:00.000Z'`,
    ].entries()) {
      const name = `k${at}-dek`;
      await s.create(name);
      await testStorage().edit(kms.dataDir, `UPDATE keys SET ${sql} WHERE name = '${name}'`);
      expectRefused(await s.export(name), 503, 'key_damaged');
      expectRefused(await t.act('accept', name, { move: id }), 503, 'key_damaged');
      expectRefused(await s.act('deletion-intent', name), 503, 'key_damaged');
    }
    expect(await s.deletions()).toEqual({ deletions: [] });
  });
});

describe('a key without a holder', () => {
  it('is claimed by one of many storages', async () => {
    await keys.create(NAME);
    const nodes = await Promise.all(Array.from({ length: 6 }, () => TestStorageNode.of(kms)));
    const answers = await Promise.all(nodes.map((node) => node.act('claim', NAME)));
    const winners = nodes.filter((_, at) => answers[at]?.status === 200);
    expect(winners.map(({ id }) => id)).toEqual([(await recordOf()).holder]);
    const [winner] = winners;
    for (const answer of answers.filter(({ status }) => status !== 200))
      expectRefused(answer, 409, 'key_held_elsewhere', { storage: winner?.id });
    expect(await latest('key.claim')).toMatchObject({ severity: 'CRITICAL', detail: { holder: winner?.id } });
  });

  it('is released to no storage before a claim', async () => {
    await keys.create(NAME);
    expectRefused(await s.export(NAME), 409, 'key_unheld');
    expect((await s.export(NAME)).json().storage).toBeUndefined();
    keyIn(await s.act('claim', NAME));
    expect((await s.export(NAME)).status).toBe(200);
  });

  it('can be claimed only by an administrator when its holder is unknown', async () => {
    await keys.create(NAME);
    await setKey(kms, NAME, { holder: HOLDER_UNKNOWN });
    expectRefused(await s.act('claim', NAME), 409, 'key_unheld');
    expectRefused(await s.act('claim', NAME, { generation: undefined }), 403, 'forbidden');
    const claim = await kms.api(`/v1/keys/${NAME}/claim`, { token: admin, body: { storage: s.id } });
    expect(keyIn(claim)).toMatchObject({ holder: s.id });
    expect((await latest('key.claim'))?.detail).toMatchObject({ holder: s.id, from: HOLDER_UNKNOWN });
  });
});

describe('the take-over of a key', () => {
  it('waits for the leases of all others than the new holder, unless it is forced', async () => {
    await s.create(NAME);
    await t.export(NAME);
    await s.export(NAME);
    clock.advance(60_000);
    await keys.export(NAME);
    const until = new Date(clock.now() + USE_MS).toISOString();
    expectRefused(await takeOverKey({ storage: t.id }), 409, 'lease_live', { until });
    expect((await recordOf()).holder).toBe(s.id);
    clock.advance(USE_MS - 1);
    expectRefused(await takeOverKey({ storage: t.id }), 409, 'lease_live', { until });
    clock.advance(1);
    expect(keyIn(await takeOverKey({ storage: t.id }))).toMatchObject({ holder: t.id });
    expect((await t.export(NAME)).status).toBe(200);
    // It does not wait for the lease of the storage itself, but for that of the other one.
    await setKey(kms, NAME, { holder: s.id });
    expect(keyIn(await takeOverKey({ storage: t.id }))).toMatchObject({ holder: t.id });
    expectRefused(await takeOverKey({ storage: s.id }), 409, 'lease_live');
    expect(keyIn(await takeOverKey({ storage: s.id, force: true }))).toMatchObject({ holder: s.id });
    expect(await latest('key.take_over')).toMatchObject({
      severity: 'CRITICAL',
      actor: 'tester',
      detail: { holder: s.id, from: t.id, force: true },
    });
  });

  it('ends an offer, works with an unknown holder, and leaves no record when it changes nothing', async () => {
    await s.create(NAME);
    const move = randomUUID();
    await s.act('offer', NAME, { to: t.id, move });
    expect(keyIn(await takeOverKey({ storage: s.id })).offered_to).toBeUndefined();
    expectRefused(await t.act('accept', NAME, { move }), 409, 'key_not_offered');
    await setKey(kms, NAME, { holder: HOLDER_UNKNOWN });
    expect(keyIn(await takeOverKey({ storage: t.id }))).toMatchObject({ holder: t.id });
    const { revision } = await recordOf();
    keyIn(await takeOverKey({ storage: t.id }));
    expect((await recordOf()).revision).toBe(revision);
    await keys.shred(NAME);
    expectRefused(await takeOverKey({ storage: s.id }), 410, 'key_destroyed');
  });
});

describe('the metrics', () => {
  it('count the refusals of holders and the unfinished deletions', async () => {
    await s.create(NAME);
    const copy = s.copy();
    await s.advance();
    await t.export(NAME);
    await t.act('deletion-intent', NAME);
    await copy.export(NAME);
    await s.intend(NAME);
    const { text } = await kms.internal('/metrics', { token: admin });
    expect(text).toContain('bunkms_holder_refusals_total{code="key_held_elsewhere"} 2\n');
    expect(text).toContain('bunkms_holder_refusals_total{code="storage_superseded"} 1\n');
    expect(text).toContain('bunkms_deletion_intents_open 1\n');
  });
});
