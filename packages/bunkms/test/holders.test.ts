import { randomUUID } from 'node:crypto';
import { destroyReceiptSchema, HOLDER_UNKNOWN } from '@bundoc/shared/contract/keys';
import { storageInfoSchema } from '@bundoc/shared/contract/storages';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import type { KeyRecord } from '../src/records/key-record.ts';
import { openEvents } from './support/events.ts';
import type { Answer } from './support/http.ts';
import { startKms, type TestKms } from './support/kms.ts';
import { KeyCalls } from './support/lifecycle.ts';
import { testStorage } from './support/storage.ts';
import { keyIn, type StorageAction, setKey, TestStorageNode } from './support/storages.ts';

const NAME = 'a-dek';
/** A lease, and the margin added to it before a take-over. */
const LEASE_MS = 900_000;
const USE_MS = LEASE_MS + 5_000;
const DAY_MS = 86_400_000;

let clock: FakeClock;
let kms: TestKms;
let keys: KeyCalls;
let admin: string;
let s: TestStorageNode;
let t: TestStorageNode;
beforeEach(async () => {
  // The service sweeps at its start, but not again during a test.
  vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
  clock = new FakeClock();
  kms = await startKms({ clock });
  keys = await KeyCalls.of(kms);
  admin = await kms.fullToken();
  s = await TestStorageNode.of(kms);
  t = await TestStorageNode.of(kms);
});
afterEach(async () => {
  await kms[Symbol.asyncDispose]();
  vi.useRealTimers();
});

const recordOf = async (name = NAME) => (await kms.store.findKey(name, 'current'))?.record as KeyRecord;
const takeOver = (path: string, body: object) => kms.api(`/v1/${path}/take-over`, { token: admin, body });
const takeOverKey = (body: object) => takeOver(`keys/${NAME}`, body);
const takeOverStorage = (id: string, body: object = {}) => takeOver(`storages/${id}`, body);
const storageOf = async (id: string) => {
  const answer = await kms.api(`/v1/storages/${id}`, { token: admin });
  expect(answer.status, answer.text).toBe(200);
  return storageInfoSchema.strict().parse(answer.json());
};
const latest = async (action: string) => (await kms.records()).findLast((record) => record.action === action);
const expectRefused = (answer: Answer, status: number, code: string, more: object = {}) =>
  expect([answer.status, answer.json()]).toEqual([status, expect.objectContaining({ code, ...more })]);

describe('a client without a storage', () => {
  test('can create a key that does not exist and then export it', async () => {
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

  test('can export a key that a storage or an unknown holder holds', async () => {
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
  test('is released only to that storage, with its id in the record', async () => {
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

  test('stays with it through rotation, policy changes and disabling', async () => {
    await s.create(NAME);
    const move = randomUUID();
    keyIn(await s.act('offer', NAME, { to: t.id, move }));
    await keys.post(NAME, 'rotate');
    await keys.patch(NAME, { rotate_after_days: 90 });
    await keys.post(NAME, 'disable');
    await keys.post(NAME, 'enable');
    expect((await keys.read(NAME)).json()).toMatchObject({ holder: s.id, offered_to: t.id, move });
  });

  test('is not created twice with one idempotency key for two storages', async () => {
    const create = (storage: string) => keys.create(NAME, { storage }, { 'idempotency-key': 'one' });
    expect((await create(s.id)).json()).toMatchObject({ holder: s.id });
    expect((await create(s.id)).json()).toMatchObject({ holder: s.id });
    expectRefused(await create(t.id), 422, 'idempotency_mismatch');
  });

  test('passes to another storage by an offer and its acceptance, each of which may be repeated', async () => {
    await s.create(NAME);
    const move = randomUUID();
    for (let time = 0; time < 2; time++)
      expect(keyIn(await s.act('offer', NAME, { to: t.id, move }))).toMatchObject({ offered_to: t.id, move });
    expect((await recordOf()).revision).toBe(2);
    for (let time = 0; time < 2; time++)
      expect(keyIn(await t.act('accept', NAME, { move }))).toMatchObject({ holder: t.id });
    expect(await recordOf()).toMatchObject({ revision: 3, holder: t.id, offer: null });
    expect(await latest('key.accept')).toMatchObject({
      severity: 'CRITICAL',
      detail: { holder: t.id, from: s.id, move },
    });
    expectRefused(await s.export(NAME), 409, 'key_held_elsewhere', { storage: t.id });
    expect((await t.export(NAME)).status).toBe(200);
    expectRefused(await s.act('withdraw', NAME, { move }), 409, 'key_held_elsewhere', { storage: t.id });
  });

  test('cannot be accepted after the answer to the withdrawal of its offer', async () => {
    await s.create(NAME);
    const [move, other] = [randomUUID(), randomUUID()];
    await s.act('offer', NAME, { to: t.id, move });
    expect(keyIn(await s.act('withdraw', NAME, { move: other })).offered_to).toBe(t.id);
    for (let time = 0; time < 2; time++)
      expect(keyIn(await s.act('withdraw', NAME, { move })).offered_to).toBeUndefined();
    expectRefused(await t.act('accept', NAME, { move }), 409, 'key_not_offered');
    expect((await s.export(NAME)).status).toBe(200);
  });

  test('cannot be accepted once its holder has advanced, however late its offer arrived, until it is offered again', async () => {
    await s.create(NAME);
    const move = randomUUID();
    const late = s.copy();
    expect((await s.act('offer', NAME, { to: t.id, move })).status).toBe(200);
    await s.advance();
    expectRefused(await t.act('accept', NAME, { move }), 409, 'key_not_offered');
    keyIn(await s.act('withdraw', NAME, { move }));
    expectRefused(await late.act('offer', NAME, { to: t.id, move }), 409, 'storage_superseded');
    expectRefused(await t.act('accept', NAME, { move }), 409, 'key_not_offered');
    expect((await s.export(NAME)).status).toBe(200);
    keyIn(await s.act('offer', NAME, { to: t.id, move }));
    expect(keyIn(await t.act('accept', NAME, { move }))).toMatchObject({ holder: t.id });
  });

  test('is accepted before its holder advances or not at all, even when both happen at the same time', async () => {
    for (let round = 0; round < 6; round++) {
      const name = `k${round}-dek`;
      const move = randomUUID();
      await s.create(name);
      await s.act('offer', name, { to: t.id, move });
      const calls = [() => t.act('accept', name, { move }), () => s.advance()];
      const answers = await Promise.all((round % 2 === 0 ? calls : calls.toReversed()).map((call) => call()));
      const accepted = answers.at(round % 2 === 0 ? 0 : 1);
      const { holder } = await recordOf(name);
      expect(accepted?.status).toBe(holder === t.id ? 200 : 409);
      const records = await kms.records();
      const accept = records.findLast(({ action, key }) => action === 'key.accept' && key === name);
      const advance = records.findLast(({ action }) => action === 'storage.advance');
      if (accept !== undefined) expect(accept.seq).toBeLessThan(advance?.seq ?? 0);
    }
  });

  test('cannot be offered to its holder', async () => {
    await s.create(NAME);
    expectRefused(await s.act('offer', NAME, { to: s.id, move: randomUUID() }), 400, 'invalid_request');
  });

  test('is damaged when its holder, offer or intent is edited in the database', async () => {
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
  test('is claimed by one of many storages', async () => {
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

  test('is released to no storage before a claim', async () => {
    await keys.create(NAME);
    expectRefused(await s.export(NAME), 409, 'key_unheld');
    expect((await s.export(NAME)).json().storage).toBeUndefined();
    keyIn(await s.act('claim', NAME));
    expect((await s.export(NAME)).status).toBe(200);
  });

  test('can be claimed only by an administrator when its holder is unknown', async () => {
    await keys.create(NAME);
    await setKey(kms, NAME, { holder: HOLDER_UNKNOWN });
    expectRefused(await s.act('claim', NAME), 409, 'key_unheld');
    expectRefused(await s.act('claim', NAME, { generation: undefined }), 403, 'forbidden');
    const claim = await kms.api(`/v1/keys/${NAME}/claim`, { token: admin, body: { storage: s.id } });
    expect(keyIn(claim)).toMatchObject({ holder: s.id });
    expect((await latest('key.claim'))?.detail).toMatchObject({ holder: s.id, from: HOLDER_UNKNOWN });
  });
});

test('offered to two storages in turn can be accepted only by the second one', async () => {
  await s.create(NAME);
  const other = await TestStorageNode.of(kms);
  const [first, second] = [randomUUID(), randomUUID()];
  await s.act('offer', NAME, { to: t.id, move: first });
  await s.act('offer', NAME, { to: other.id, move: second });
  const answers = await Promise.all([
    t.act('accept', NAME, { move: first }),
    other.act('accept', NAME, { move: second }),
    t.act('accept', NAME, { move: second }),
  ]);
  expect(answers.map(({ status }) => status)).toEqual([409, 200, 409]);
  expect((await recordOf()).holder).toBe(other.id);
});

test('is either accepted or withdrawn when both are requested at the same time, and both callers learn which', async () => {
  for (let round = 0; round < 8; round++) {
    const name = `k${round}-dek`;
    const move = randomUUID();
    await s.create(name);
    await s.act('offer', name, { to: t.id, move });
    const calls = [() => s.act('withdraw', name, { move }), () => t.act('accept', name, { move })];
    const [withdrawn, accepted] = (await Promise.all(
      (round % 2 === 0 ? calls : calls.toReversed()).map((call) => call()),
    ).then((answers) => (round % 2 === 0 ? answers : answers.toReversed()))) as [Answer, Answer];
    const { holder } = await recordOf(name);
    expect([withdrawn.status, accepted.status]).toEqual(holder === t.id ? [409, 200] : [200, 409]);
    if (holder === t.id) expectRefused(withdrawn, 409, 'key_held_elsewhere', { storage: t.id });
    else expectRefused(accepted, 409, 'key_not_offered');
  }
});

describe('the take-over of a key', () => {
  test('waits for the leases of all others than the new holder, unless it is forced', async () => {
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

  test('ends an offer, works with an unknown holder, and leaves no record when it changes nothing', async () => {
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

describe('a storage', () => {
  test('can advance from a generation that it knows, and may repeat it', async () => {
    expect(await storageOf(s.id)).toEqual({
      id: s.id,
      generation: s.generation,
      take_overs: 0,
      advanced_at: new Date(clock.now()).toISOString(),
    });
    const [former, next] = [s.generation, randomUUID()];
    const candidates = [randomUUID(), former, randomUUID()];
    for (let time = 0; time < 2; time++) {
      const answer = await s.advance(candidates, next);
      expect(storageInfoSchema.strict().parse(answer.json())).toMatchObject({ generation: next });
    }
    const advances = (await kms.records()).filter(({ detail }) => detail?.['generation'] === next);
    expect(advances).toMatchObject([{ action: 'storage.advance', severity: 'INFO' }]);
    expect((await kms.api(`/v1/storages/${randomUUID()}`, { token: admin })).json()).toMatchObject({
      code: 'storage_not_found',
    });
  });

  test('whose copy has started first is superseded in all requests', async () => {
    await s.create(NAME);
    const intent = await s.intend(NAME);
    const copy = s.copy();
    expect((await s.advance()).status).toBe(200);
    const move = randomUUID();
    const calls = [
      copy.advance(),
      copy.export(NAME),
      copy.export('none-dek'),
      copy.act('claim', NAME),
      copy.act('offer', NAME, { to: t.id, move }),
      copy.act('withdraw', NAME, { move }),
      copy.act('accept', NAME, { move }),
      copy.act('deletion-intent', NAME),
      copy.act('shred', NAME, { receipt: intent.receipt }),
      copy.act('content-removed', NAME),
    ];
    const before = await recordOf();
    for (const answer of await Promise.all(calls)) expectRefused(answer, 409, 'storage_superseded');
    const list = `/v1/storages/${s.id}/deletions?generation=${copy.generation}`;
    expectRefused(await kms.internal(list, { token: admin }), 409, 'storage_superseded');
    expect(await recordOf()).toEqual(before);
  });

  test('with many copies that start at once has only one that advances', async () => {
    const copies = Array.from({ length: 6 }, () => s.copy());
    const answers = await Promise.all(copies.map((copy) => copy.advance()));
    const won = copies.filter((_, at) => answers[at]?.status === 200);
    expect(won.map(({ generation }) => generation)).toEqual([(await storageOf(s.id)).generation]);
  });

  test('can be taken over for the next start, or for a given generation', async () => {
    const lost = s.copy();
    await s.advance();
    expect((await takeOverStorage(s.id)).json()).toEqual({
      id: s.id,
      take_overs: 1,
      advanced_at: new Date(clock.now()).toISOString(),
    });
    expect(await latest('storage.take_over')).toMatchObject({
      severity: 'CRITICAL',
      detail: { storage: s.id, take_overs: 1 },
    });
    // No copy is current until one has advanced.
    await keys.create(NAME);
    expectRefused(await s.act('claim', NAME), 409, 'storage_superseded');
    expect((await lost.advance()).json()).toMatchObject({ take_overs: 1, generation: lost.generation });
    expect((await lost.act('claim', NAME)).status).toBe(200);
    const generation = randomUUID();
    expect((await takeOverStorage(s.id, { generation })).json()).toMatchObject({ generation, take_overs: 2 });
    expectRefused(await lost.advance(), 409, 'storage_superseded');
    expect((await s.advance([generation])).json()).toMatchObject({ take_overs: 2 });
    expectRefused(await takeOverStorage(randomUUID()), 404, 'storage_not_found');
  });

  test('is taken over once by a repeated call', async () => {
    const generation = randomUUID();
    for (const body of [{ generation }, {}]) {
      const first = (await takeOverStorage(s.id, body)).json();
      const { seq } = await kms.store.auditHead();
      clock.advance(1_000);
      for (const more of [{}, { force: true }])
        expect((await takeOverStorage(s.id, { ...body, ...more })).json()).toEqual(first);
      expect((await kms.store.auditHead()).seq).toBe(seq);
    }
    expect((await s.advance()).json()).toMatchObject({ take_overs: 2 });
    // A call after the accepted start is another take-over.
    expect((await takeOverStorage(s.id)).json()).toMatchObject({ take_overs: 3 });
  });

  test('cannot be taken over while a key that was released to it may be in use, unless that is forced', async () => {
    await s.create(NAME);
    await s.export(NAME);
    await keys.export(NAME);
    const until = new Date(clock.now() + USE_MS).toISOString();
    expectRefused(await takeOverStorage(s.id), 409, 'lease_live', { until });
    expect((await s.export(NAME)).status).toBe(200);
    expect((await takeOverStorage(t.id)).status).toBe(200);
    expect((await takeOverStorage(s.id, { force: true })).json()).toMatchObject({ take_overs: 1 });
    expectRefused(await s.export(NAME), 409, 'storage_superseded');
    await s.advance();
    await s.export(NAME);
    clock.advance(USE_MS);
    expect((await takeOverStorage(s.id)).json()).toMatchObject({ take_overs: 2 });
  });

  test('whose state is edited in the database is refused, found by a walk, and can be taken over only by force', async () => {
    const former = s.generation;
    await s.create(NAME);
    await s.advance();
    const isOfStorage = `action = 'storage.advance' AND detail LIKE '%${s.generation}%'`;
    await testStorage().edit(
      kms.dataDir,
      `UPDATE audit SET detail = replace(detail, '${s.generation}', '${former}') WHERE ${isOfStorage}`,
    );
    for (const answer of [await s.export(NAME), await s.copy().advance(), await takeOverStorage(s.id)])
      expectRefused(answer, 500, 'integrity_error');
    expect(await kms.verify()).toMatchObject({ intact: false, fault: { reason: 'changed' } });
    const taken = await takeOverStorage(s.id, { force: true });
    expect(taken.json().take_overs).toBeGreaterThan(0);
    expect((await s.advance()).status).toBe(200);
    expect((await s.export(NAME)).status).toBe(200);
  });

  test('whose latest record is hidden by another spelling is found by a walk of the chain', async () => {
    await s.advance();
    for (const [from, to] of [
      ['"storage":', '"storage": '],
      ['{', `{"storage":"${t.id}",`],
    ])
      await testStorage().edit(
        kms.dataDir,
        `UPDATE audit SET detail = replace(detail, '${from}', '${to}') WHERE detail LIKE '%${s.generation}%'`,
      );
    expect(await kms.verify()).toMatchObject({ intact: false, fault: { reason: 'changed' } });
  });
});

describe('a client token with all allowed scopes', () => {
  const client = async () =>
    (
      await kms.issue({
        typ: 'client',
        scope: ['kms:create_key', 'kms:read_key', 'kms:manage_key', 'kms:shred_key'],
        keys: ['*'],
      })
    ).token;

  test('can neither see the generation of a storage nor act as one, so it can stop no storage and destroy no key', async () => {
    const token = await client();
    await s.create(NAME);
    await keys.create('free-dek');
    const move = randomUUID();
    await s.act('offer', NAME, { to: t.id, move });
    const before = [await storageOf(s.id), await recordOf(), await recordOf('free-dek')];
    const { generation } = s;
    const reads = [`/v1/storages/${s.id}`, `/v1/storages/${s.id}/deletions?generation=${generation}`];
    for (const path of reads) expectRefused(await kms.api(path, { token }), 403, 'forbidden');
    const receipt = { seq: 1, hash: 'ab'.repeat(32) };
    const calls: [string, object][] = [
      [`storages/${s.id}/advance`, { from: [generation], to: randomUUID() }],
      [`storages/${randomUUID()}/advance`, { from: [], to: randomUUID() }],
      [`keys/${NAME}/offer`, { ...s.acting, to: t.id, move: randomUUID() }],
      [`keys/${NAME}/withdraw`, { ...s.acting, move }],
      [`keys/${NAME}/accept`, { ...t.acting, move }],
      ['keys/free-dek/claim', s.acting],
      [`keys/${NAME}/deletion-intent`, s.acting],
      [`keys/${NAME}/shred`, { ...s.acting, receipt }],
      [`keys/${NAME}/content-removed`, s.acting],
    ];
    for (const [path, body] of calls)
      expectRefused(await kms.api(`/v1/${path}`, { token, body }), 403, 'forbidden');
    expect([await storageOf(s.id), await recordOf(), await recordOf('free-dek')]).toEqual(before);
  });

  test('can still claim a key for a storage as an administrator', async () => {
    await keys.create(NAME);
    const claim = await kms.api(`/v1/keys/${NAME}/claim`, { token: await client(), body: { storage: s.id } });
    expect(keyIn(claim)).toMatchObject({ holder: s.id });
  });
});

describe('a deletion', () => {
  test('has three repeatable steps: the intent, the destruction with its receipt, and the report that the content is removed', async () => {
    await s.create(NAME);
    await s.act('offer', NAME, { to: t.id, move: randomUUID() });
    const intent = await s.intend(NAME);
    expect(await s.intend(NAME)).toEqual(intent);
    expect(await latest('key.deletion_intent')).toMatchObject({
      severity: 'CRITICAL',
      seq: intent.receipt.seq,
      hash: intent.receipt.hash,
      detail: { holder: s.id, intended_at: intent.intended_at },
    });
    expect(await recordOf()).toMatchObject({ state: 'pending_deletion', dueAt: null, offer: null });
    expect((await keys.read(NAME)).json()).toMatchObject({ deletion_intended_at: intent.intended_at });
    expectRefused(await s.export(NAME), 409, 'key_deletion_intended');
    expectRefused(await t.export(NAME), 409, 'key_held_elsewhere', { storage: s.id });
    expectRefused(await keys.export(NAME), 409, 'key_pending_deletion');
    expectRefused(await s.act('offer', NAME, { to: t.id, move: randomUUID() }), 409, 'key_deletion_intended');
    expectRefused(await s.act('content-removed', NAME), 412, 'precondition_failed');
    expect(await s.deletions()).toEqual({ deletions: [{ ...intent, state: 'pending_deletion' }] });

    const first = await s.act('shred', NAME, { receipt: intent.receipt });
    expect(first.status, first.text).toBe(200);
    const receipt = destroyReceiptSchema.strict().parse(first.json());
    expect(receipt).toMatchObject({ name: NAME, state: 'destroyed' });
    expect(await latest('key.destroy')).toMatchObject({
      severity: 'CRITICAL',
      hash: receipt.audit.hash,
      detail: { holder: s.id, intent: intent.receipt.seq },
    });
    expect((await s.act('shred', NAME, { receipt: intent.receipt })).json()).toEqual(first.json());
    expectRefused(await s.export(NAME), 410, 'key_destroyed');
    expectRefused(await s.act('deletion-intent', NAME), 410, 'key_destroyed');
    expect(await s.deletions()).toEqual({
      deletions: [{ ...intent, receipt: receipt.audit, state: 'destroyed' }],
    });

    for (let time = 0; time < 2; time++)
      expect(keyIn(await s.act('content-removed', NAME)).holder).toBeUndefined();
    expect(await s.deletions()).toEqual({ deletions: [] });
    expect(await latest('key.content_removed')).toMatchObject({ severity: 'CRITICAL' });
    expectRefused(await s.act('shred', NAME, { receipt: intent.receipt }), 410, 'key_destroyed');
  });

  test('is never carried out with the receipt of a canceled one', async () => {
    await s.create(NAME);
    const former = await s.intend(NAME);
    expect((await keys.post(NAME, 'restore')).json()).toMatchObject({ state: 'disabled', holder: s.id });
    expect((await keys.read(NAME)).json().deletion_intended_at).toBeUndefined();
    const replay = () => s.act('shred', NAME, { receipt: former.receipt });
    expectRefused(await replay(), 412, 'precondition_failed');
    await keys.post(NAME, 'enable');
    expectRefused(await replay(), 412, 'precondition_failed');
    expect((await s.export(NAME)).status).toBe(200);
    const again = await s.intend(NAME);
    expect(again.receipt.seq).toBeGreaterThan(former.receipt.seq);
    expectRefused(await replay(), 412, 'precondition_failed');
    const forged = { ...again.receipt, hash: former.receipt.hash };
    expectRefused(await s.act('shred', NAME, { receipt: forged }), 412, 'precondition_failed');
    expect((await recordOf()).state).toBe('pending_deletion');
    expect((await s.act('shred', NAME, { receipt: again.receipt })).status).toBe(200);
  });

  test('gets a new receipt when the key has changed since, with the original time', async () => {
    await s.create(NAME);
    const first = await s.intend(NAME);
    await setKey(kms, NAME, {}, 'kek.rewrap');
    clock.advance(1_000);
    expectRefused(await s.act('shred', NAME, { receipt: first.receipt }), 412, 'precondition_failed');
    const second = await s.intend(NAME);
    expect(second.receipt.seq).toBeGreaterThan(first.receipt.seq);
    expect(second.intended_at).toBe(first.intended_at);
    expect((await s.act('shred', NAME, { receipt: second.receipt })).status).toBe(200);
  });

  test('is never carried out by the sweep unless an administrator has set a day', async () => {
    await s.create(NAME);
    await keys.patch(NAME, { rotate_after_days: 7 });
    await s.intend(NAME);
    expect(await recordOf()).toMatchObject({ state: 'pending_deletion', dueAt: null });
    clock.advance(400 * DAY_MS);
    await using again = await startKms({ dataDir: kms.dataDir, kek: kms.kek, clock });
    await expect.poll(async () => (await again.store.counts()).keys).toBe(1);
    expect((await recordOf()).state).toBe('pending_deletion');
    const due = await kms.store.listDueKeys('2999-01-01T00:00:00.000Z', { limit: 9 });
    expect(due.items).toEqual([]);
  });

  test.each(['before', 'after'])(
    'keeps the day that an administrator sets %s the intent, and the sweep destroys the key on it',
    async (when) => {
      await s.create(NAME);
      const steps = [() => keys.delete(NAME, '?pending_days=7'), () => s.act('deletion-intent', NAME)];
      for (const step of when === 'before' ? steps : steps.toReversed())
        expect((await step()).status).toBeLessThan(300);
      const dueAt = new Date(clock.now() + 7 * DAY_MS).toISOString();
      // A repeated call does not move the day.
      expect((await keys.delete(NAME, '?pending_days=30')).json()).toMatchObject({ deletion_at: dueAt });
      await s.intend(NAME);
      expect((await keys.read(NAME)).json()).toMatchObject({
        deletion_at: dueAt,
        deletion_intended_at: expect.any(String),
      });
      expect((await latest('key.deletion_intent'))?.detail).toMatchObject({ deletion_at: dueAt });
      clock.advance(7 * DAY_MS);
      await using again = await startKms({ dataDir: kms.dataDir, kek: kms.kek, clock });
      await expect
        .poll(async () => (await again.store.findKey(NAME, 'current'))?.record?.state)
        .toBe('destroyed');
      // The storage finds it among its unfinished deletions, and removes the content.
      const { items } = await again.store.listDeletions(s.id, { limit: 9 });
      expect(items.map(({ name }) => name)).toEqual([NAME]);
    },
  );

  test('is canceled together with the day of an administrator', async () => {
    await s.create(NAME);
    await keys.delete(NAME, '?pending_days=7');
    await s.intend(NAME);
    const restored = (await keys.post(NAME, 'restore')).json();
    expect([restored.state, restored.deletion_at, restored.deletion_intended_at]).toEqual([
      'disabled',
      undefined,
      undefined,
    ]);
  });

  test('changes nothing when another storage than the holder requests it', async () => {
    await s.create(NAME);
    const { receipt } = await s.intend(NAME);
    for (const answer of [await t.act('deletion-intent', NAME), await t.act('shred', NAME, { receipt })])
      expectRefused(answer, 409, 'key_held_elsewhere', { storage: s.id });
    await keys.create('b-dek');
    expectRefused(await s.act('deletion-intent', 'b-dek'), 409, 'key_unheld');
    expectRefused(await s.act('deletion-intent', 'none-dek'), 404, 'key_not_found');
  });

  test('stays the holder’s until the key is destroyed: no take-over hands it on, not even a forced one', async () => {
    await s.create(NAME);
    const { receipt } = await s.intend(NAME);
    for (const body of [{ storage: t.id }, { storage: t.id, force: true }, { storage: s.id }])
      expectRefused(await takeOverKey(body), 409, 'key_deletion_intended');
    expect(await t.deletions()).toEqual({ deletions: [] });
    expect((await s.deletions()).deletions).toMatchObject([{ name: NAME, receipt }]);
    keyIn(await keys.post(NAME, 'restore'));
    expect(keyIn(await takeOverKey({ storage: t.id }))).toMatchObject({ holder: t.id, state: 'disabled' });
    expect(await t.deletions()).toEqual({ deletions: [] });
    expectRefused(await t.act('shred', NAME, { receipt }), 412, 'precondition_failed');
  });

  test('of a destroyed key is finished by the storage that takes the key over', async () => {
    await s.create(NAME);
    await s.intend(NAME);
    await keys.shred(NAME);
    expect(keyIn(await takeOverKey({ storage: t.id }))).toMatchObject({ holder: t.id });
    expect(await s.deletions()).toEqual({ deletions: [] });
    expect((await t.deletions()).deletions).toMatchObject([{ name: NAME, state: 'destroyed' }]);
    keyIn(await t.act('content-removed', NAME));
  });

  test.each(['key.recover', 'key.take_over', 'key.schedule_deletion'])(
    'is not carried out after %s, even after a rewrap, until the holder records a new intent',
    async (action) => {
      await s.create(NAME);
      await s.intend(NAME);
      await setKey(kms, NAME, { holder: t.id }, action);
      const listed = async () => (await t.deletions()).deletions.at(0)?.receipt;
      expectRefused(await t.act('shred', NAME, { receipt: await listed() }), 412, 'precondition_failed');
      for (let time = 0; time < 2; time++) await setKey(kms, NAME, {}, 'kek.rewrap');
      expectRefused(await t.act('shred', NAME, { receipt: await listed() }), 412, 'precondition_failed');
      expect((await recordOf()).state).toBe('pending_deletion');
      const { receipt } = await t.intend(NAME);
      expect((await t.act('shred', NAME, { receipt })).status).toBe(200);
    },
  );

  test('is carried out with the receipt of a rewrap since the intent, however many there were', async () => {
    await s.create(NAME);
    await s.intend(NAME);
    for (let time = 0; time < 3; time++) await setKey(kms, NAME, {}, 'kek.rewrap');
    const [one] = (await s.deletions()).deletions;
    expect((await s.act('shred', NAME, { receipt: one?.receipt })).status).toBe(200);
  });

  test('returns the same receipt for repeated requests, and refuses the receipt of another intent', async () => {
    await s.create(NAME);
    const former = await s.intend(NAME);
    await keys.post(NAME, 'restore');
    const { receipt } = await s.intend(NAME);
    const first = await s.act('shred', NAME, { receipt });
    expectRefused(await s.act('shred', NAME, { receipt: former.receipt }), 412, 'precondition_failed');
    keyIn(await takeOverKey({ storage: t.id }));
    const [listed] = (await t.deletions()).deletions;
    for (const one of [receipt, first.json().audit, listed?.receipt])
      expect((await t.act('shred', NAME, { receipt: one })).json()).toEqual(first.json());
    expectRefused(await t.act('shred', NAME, { receipt: former.receipt }), 412, 'precondition_failed');
  });

  test('that an administrator completes leaves the content for the storage to remove', async () => {
    await s.create(NAME);
    const { receipt } = await s.intend(NAME);
    await keys.shred(NAME);
    expect((await s.deletions()).deletions).toMatchObject([{ name: NAME, state: 'destroyed' }]);
    expect((await s.act('shred', NAME, { receipt })).json()).toMatchObject({ state: 'destroyed' });
    keyIn(await s.act('content-removed', NAME));
    await s.create('b-dek');
    await keys.shred('b-dek');
    expectRefused(await s.act('content-removed', 'b-dek'), 412, 'precondition_failed');
    expectRefused(await s.act('shred', 'b-dek', { receipt }), 410, 'key_destroyed');
  });

  test('is listed in pages to a token that names the key', async () => {
    const names = Array.from({ length: 5 }, (_, at) => `k${at}-dek`);
    for (const name of [...names, 'other']) {
      await s.create(name);
      await s.intend(name);
    }
    const seen: string[] = [];
    for (let cursor = '', more = true; more; ) {
      const page = await s.deletions(`&limit=2${cursor}`);
      seen.push(...page.deletions.map(({ name }) => name));
      more = page.next_cursor !== undefined;
      cursor = `&cursor=${page.next_cursor}`;
    }
    expect(seen).toEqual([...names, 'other']);
    const narrow = await kms.issue({ scope: ['kms:shred_key'], keys: ['*-dek'] });
    const path = `/v1/storages/${s.id}/deletions?generation=${s.generation}`;
    const page = (await kms.internal(path, { token: narrow.token })).json();
    expect(page.deletions.map(({ name }: { name: string }) => name)).toEqual(names);
  });
});

test('events name the new holder, and every service gets the take-over of a storage', async () => {
  const token = (await kms.issue({ scope: ['kms:export_key'], keys: ['nothing'] })).token;
  using narrow = await openEvents(kms.running.internalUrl, token);
  using stream = await openEvents(kms.running.internalUrl, admin);
  for (const one of [narrow, stream]) await expect.poll(() => one.seen.at(-1)?.type).toBe('heartbeat');
  const move = randomUUID();
  await s.create(NAME);
  await s.act('offer', NAME, { to: t.id, move });
  await t.act('accept', NAME, { move });
  await takeOverKey({ storage: s.id });
  await s.intend(NAME);
  await takeOverStorage(t.id);
  const generation = randomUUID();
  await takeOverStorage(s.id, { generation });
  await s.advance([generation]);
  const told = (one: typeof stream) =>
    one.seen
      .filter(({ type }) => type !== 'heartbeat' && type !== 'reset')
      .map(({ type, data }) => [type, data]);
  const ofStorages = [
    ['storage.take_over', { storage: t.id }],
    ['storage.take_over', { storage: s.id, generation }],
    // A start also causes an event, so that running copies stop.
    ['storage.take_over', { storage: s.id, generation: s.generation }],
  ];
  await expect
    .poll(() => told(stream))
    .toEqual([
      ['key.accept', { name: NAME, holder: t.id }],
      ['key.take_over', { name: NAME, holder: s.id }],
      ['key.deletion_intent', { name: NAME, holder: s.id }],
      ...ofStorages,
    ]);
  await expect.poll(() => told(narrow)).toEqual(ofStorages);
});

test('refusals of holders and unfinished deletions are counted', async () => {
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

/** The part of a key that matters to its holder. */
type Standing = Pick<KeyRecord, 'state' | 'holder' | 'offer' | 'intendedAt'>;

describe('every action for every holder, offer and intent', () => {
  const move = '5e4d3c2b-1a0f-4e7d-9c5a-3f1b6e4d2c9a';
  const otherMove = '9a2c4d6e-1b3f-4a5c-8d7e-0f1a2b3c4d5e';
  const at = '2026-01-01T00:00:00.000Z';
  const STATES: Partial<KeyRecord>[] = [
    { state: 'enabled' },
    { state: 'disabled' },
    { state: 'pending_deletion', dueAt: '2999-01-01T00:00:00.000Z' },
    { state: 'pending_deletion', intendedAt: at },
    { state: 'destroyed', destroyedAt: at },
    { state: 'destroyed', destroyedAt: at, intendedAt: at },
  ];

  /** The expected result of an action of `me`: a refusal, or the changes of the key. */
  function expected(
    action: StorageAction | 'export' | 'take-over',
    { state, holder, offer, intendedAt }: Standing,
    me: string,
  ): [number, string] | Partial<Standing> {
    const notMine: [number, string] =
      holder === null || holder === HOLDER_UNKNOWN ? [409, 'key_unheld'] : [409, 'key_held_elsewhere'];
    const isDestroyed = state === 'destroyed';
    if (action === 'content-removed') {
      if (!isDestroyed || intendedAt === null) return [412, 'precondition_failed'];
      if (holder === null) return {};
      return holder === me ? { holder: null } : notMine;
    }
    if (action === 'take-over') {
      if (isDestroyed && (intendedAt === null || holder === null)) return [410, 'key_destroyed'];
      if (!isDestroyed && intendedAt !== null) return [409, 'key_deletion_intended'];
      return { holder: me, offer: null };
    }
    if (action === 'shred' && isDestroyed && intendedAt !== null && holder === me) return {};
    if (isDestroyed) return [410, 'key_destroyed'];
    if (action === 'claim') {
      if (holder === me) return {};
      return holder === null ? { holder: me, offer: null } : notMine;
    }
    if (action === 'accept') {
      if (holder === me) return {};
      return offer?.to === me && offer.move === move ? { holder: me, offer: null } : [409, 'key_not_offered'];
    }
    if (holder !== me) return notMine;
    switch (action) {
      case 'export':
        if (intendedAt !== null) return [409, 'key_deletion_intended'];
        if (state === 'pending_deletion') return [409, 'key_pending_deletion'];
        return state === 'disabled' ? [409, 'key_disabled'] : {};
      case 'offer':
        return intendedAt === null
          ? { offer: { to: otherMove, move, generation: s.generation } }
          : [409, 'key_deletion_intended'];
      case 'withdraw':
        return offer?.move === move ? { offer: null } : {};
      case 'deletion-intent':
        return { state: 'pending_deletion', offer: null, intendedAt: expect.any(String) as string };
      case 'shred':
        return intendedAt === null ? [412, 'precondition_failed'] : { state: 'destroyed' };
    }
  }

  test.each([
    'export',
    'claim',
    'take-over',
    'offer',
    'withdraw',
    'accept',
    'deletion-intent',
    'shred',
    'content-removed',
  ] as const)('%s has its effect, or is refused and changes nothing', async (action) => {
    const holders = [null, HOLDER_UNKNOWN, s.id, t.id];
    const offers = [null, { to: s.id, move }, { to: s.id, move: otherMove }, { to: t.id, move }];
    let number = 0;
    for (const state of STATES)
      for (const holder of holders)
        for (const offer of offers) {
          if (offer !== null && (holder === null || holder === HOLDER_UNKNOWN)) continue;
          const name = `k${number++}-dek`;
          await keys.create(name);
          const by = holder === t.id ? t.generation : s.generation;
          const isIntended = action === 'shred' && state.intendedAt !== undefined && !state.destroyedAt;
          const before = await setKey(
            kms,
            name,
            { ...state, holder, offer: offer && { ...offer, generation: by } },
            isIntended ? 'key.deletion_intent' : 'key.update',
          );
          const change = (await kms.store.findKey(name, 'current'))?.lastChange;
          const receipt = { seq: change?.seq, hash: change?.hash };
          const answer =
            action === 'export'
              ? await s.export(name)
              : action === 'take-over'
                ? await takeOver(`keys/${name}`, { storage: s.id })
                : await s.act(action, name, {
                    ...(action === 'offer' ? { to: otherMove, move } : {}),
                    ...(action === 'withdraw' || action === 'accept' ? { move } : {}),
                    ...(action === 'shred' ? { receipt } : {}),
                  });
          const wanted = expected(action, before, s.id);
          const after = await recordOf(name);
          const what = {
            action,
            state: before.state,
            holder,
            offer: before.offer,
            intendedAt: before.intendedAt,
          };
          if (Array.isArray(wanted)) {
            expect({ ...what, status: answer.status, code: answer.json().code }).toEqual({
              ...what,
              status: wanted[0],
              code: wanted[1],
            });
            expect(after).toEqual(before);
          } else {
            const { state: stateBefore, offer: offerBefore, intendedAt } = before;
            const standing = { state: stateBefore, holder, offer: offerBefore, intendedAt };
            expect({ ...what, status: answer.status, text: answer.text }).toEqual({
              ...what,
              status: 200,
              text: expect.any(String),
            });
            expect(after).toMatchObject({ ...standing, ...wanted });
          }
        }
    expect(await kms.verify()).toMatchObject({ intact: true });
  });
});
