import { randomUUID } from 'node:crypto';
import { storageInfoSchema } from '@bundoc/shared/contract/storages';
import { describe, expect, it } from 'vitest';
import { openEvents } from './support/events.ts';
import {
  admin,
  clock,
  expectRefused,
  keys,
  kms,
  latest,
  NAME,
  recordOf,
  s,
  storageOf,
  t,
  takeOverKey,
  takeOverStorage,
  USE_MS,
  useHolders,
} from './support/holders.ts';
import { testStorage } from './support/storage.ts';
import { keyIn } from './support/storages.ts';

useHolders();

describe('a storage', () => {
  it('can advance from a generation that it knows, and may repeat it', async () => {
    expect(await storageOf(s.id)).toEqual({
      id: s.id,
      generation: s.generation,
      taken_over_ms: 0,
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

  it('a storage is superseded in all requests when a copy of it has started first', async () => {
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

  it('a storage with many copies that start at once lets only one of them advance', async () => {
    const copies = Array.from({ length: 6 }, () => s.copy());
    const answers = await Promise.all(copies.map((copy) => copy.advance()));
    const won = copies.filter((_, at) => answers[at]?.status === 200);
    expect(won.map(({ generation }) => generation)).toEqual([(await storageOf(s.id)).generation]);
  });

  it('a storage whose state is edited in the database is refused, and only force can take it over', async () => {
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
    expect(taken.json().taken_over_ms).toBeGreaterThan(0);
    expect((await s.advance()).status).toBe(200);
    expect((await s.export(NAME)).status).toBe(200);
  });

  it('a storage whose latest record is hidden by another spelling is found by a walk of the chain', async () => {
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

describe('a storage that is lost', () => {
  it('can be taken over for the next start, or for a given generation', async () => {
    const lost = s.copy();
    await s.advance();
    const first = clock.now();
    expect((await takeOverStorage(s.id)).json()).toEqual({
      id: s.id,
      taken_over_ms: first,
      advanced_at: new Date(clock.now()).toISOString(),
    });
    expect(await latest('storage.take_over')).toMatchObject({
      severity: 'CRITICAL',
      detail: { storage: s.id, taken_over_ms: first },
    });
    // No copy is current until one has advanced.
    await keys.create(NAME);
    expectRefused(await s.act('claim', NAME), 409, 'storage_superseded');
    expect((await lost.advance()).json()).toMatchObject({
      taken_over_ms: first,
      generation: lost.generation,
    });
    expect((await lost.act('claim', NAME)).status).toBe(200);
    const generation = randomUUID();
    expect((await takeOverStorage(s.id, { generation })).json()).toMatchObject({
      generation,
      taken_over_ms: first + 60_000,
    });
    expectRefused(await lost.advance(), 409, 'storage_superseded');
    expect((await s.advance([generation])).json()).toMatchObject({ taken_over_ms: first + 60_000 });
    expectRefused(await takeOverStorage(randomUUID()), 404, 'storage_not_found');
  });

  it('is taken over once by a repeated call', async () => {
    const generation = randomUUID();
    const begin = clock.now();
    for (const body of [{ generation }, {}]) {
      const first = (await takeOverStorage(s.id, body)).json();
      const { seq } = await kms.store.auditHead();
      clock.advance(1_000);
      for (const more of [{}, { force: true }])
        expect((await takeOverStorage(s.id, { ...body, ...more })).json()).toEqual(first);
      expect((await kms.store.auditHead()).seq).toBe(seq);
    }
    expect((await s.advance()).json()).toMatchObject({ taken_over_ms: begin + 1_000 });
    // A call after the accepted start is another take-over.
    expect((await takeOverStorage(s.id)).json()).toMatchObject({ taken_over_ms: begin + 2_000 });
  });

  it('cannot be taken over while a key that was released to it may be in use, unless that is forced', async () => {
    await s.create(NAME);
    await s.export(NAME);
    await keys.export(NAME);
    const until = new Date(clock.now() + USE_MS).toISOString();
    expectRefused(await takeOverStorage(s.id), 409, 'lease_live', { until });
    expect((await s.export(NAME)).status).toBe(200);
    expect((await takeOverStorage(t.id)).status).toBe(200);
    const forced = clock.now();
    expect((await takeOverStorage(s.id, { force: true })).json()).toMatchObject({ taken_over_ms: forced });
    expectRefused(await s.export(NAME), 409, 'storage_superseded');
    await s.advance();
    await s.export(NAME);
    clock.advance(USE_MS);
    expect((await takeOverStorage(s.id)).json()).toMatchObject({ taken_over_ms: forced + USE_MS });
  });

  it('is also taken over by its present generation, which a copy of it may have', async () => {
    const { generation } = s;
    const before = (await storageOf(s.id)).taken_over_ms;
    const taken = (await takeOverStorage(s.id, { generation })).json();
    expect(taken).toMatchObject({ generation });
    expect(taken.taken_over_ms).toBeGreaterThan(before);
    clock.advance(1_000);
    expect((await takeOverStorage(s.id, { generation })).json()).toEqual(taken);
    expect((await s.advance()).json()).toMatchObject({ taken_over_ms: taken.taken_over_ms });
  });

  it('is taken over later each time, although the clock goes back', async () => {
    const first = (await takeOverStorage(s.id)).json().taken_over_ms;
    clock.advance(-60_000);
    await s.advance();
    expect((await takeOverStorage(s.id)).json()).toMatchObject({ taken_over_ms: first + 60_000 });
  });
});

describe('a client token with all allowed scopes', () => {
  const client = async () =>
    (
      await kms.issue({
        typ: 'client',
        scope: ['kms:create_key', 'kms:read_key', 'kms:manage_key', 'kms:destroy_key'],
        keys: ['*'],
      })
    ).token;

  it('can neither see the generation of a storage nor act as one, so it can stop no storage and destroy no key', async () => {
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

  it('can still claim a key for a storage as an administrator', async () => {
    await keys.create(NAME);
    const claim = await kms.api(`/v1/keys/${NAME}/claim`, { token: await client(), body: { storage: s.id } });
    expect(keyIn(claim)).toMatchObject({ holder: s.id });
  });
});

describe('the event stream', () => {
  it('names the new holder of a key, and tells every service of the take-over of a storage', async () => {
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
    const eventsOf = (one: typeof stream) =>
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
      .poll(() => eventsOf(stream))
      .toEqual([
        ['key.accept', { name: NAME, holder: t.id }],
        ['key.take_over', { name: NAME, holder: s.id }],
        ['key.deletion_intent', { name: NAME, holder: s.id }],
        ...ofStorages,
      ]);
    await expect.poll(() => eventsOf(narrow)).toEqual(ofStorages);
  });
});
