import { randomUUID } from 'node:crypto';
import { destroyReceiptSchema } from '@bundoc/shared/contract/keys';
import { describe, expect, it } from 'vitest';
import {
  clock,
  expectRefused,
  keys,
  kms,
  latest,
  NAME,
  recordOf,
  s,
  t,
  takeOverKey,
  useHolders,
} from './support/holders.ts';
import { startKms } from './support/kms.ts';
import { keyIn, setKey } from './support/storages.ts';

useHolders();

const DAY_MS = 86_400_000;

describe('a deletion by the holder of a key', () => {
  it('has three repeatable steps: the intent, the destruction with its receipt, and the report that the content is removed', async () => {
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

  it('is never carried out with the receipt of a canceled one', async () => {
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

  it('gets a new receipt when the key has changed since, with the original time', async () => {
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

  it('is refused without a change when a storage other than the holder requests it', async () => {
    await s.create(NAME);
    const { receipt } = await s.intend(NAME);
    for (const answer of [await t.act('deletion-intent', NAME), await t.act('shred', NAME, { receipt })])
      expectRefused(answer, 409, 'key_held_elsewhere', { storage: s.id });
    await keys.create('b-dek');
    expectRefused(await s.act('deletion-intent', 'b-dek'), 409, 'key_unheld');
    expectRefused(await s.act('deletion-intent', 'none-dek'), 404, 'key_not_found');
  });

  it('is carried out with the receipt of a rewrap since the intent, however many there were', async () => {
    await s.create(NAME);
    await s.intend(NAME);
    for (let time = 0; time < 3; time++) await setKey(kms, NAME, {}, 'kek.rewrap');
    const [one] = (await s.deletions()).deletions;
    expect((await s.act('shred', NAME, { receipt: one?.receipt })).status).toBe(200);
  });

  it('returns the same receipt for repeated requests, and refuses the receipt of another intent', async () => {
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

  it('is listed in pages to a token that names the key', async () => {
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

describe('a deletion that others interfere with', () => {
  it('is never carried out by the sweep unless an administrator has set a day', async () => {
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

  it.each(['before', 'after'])(
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

  it('is canceled together with the day of an administrator', async () => {
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

  it('keeps the holder of its key until the key is destroyed: even a forced take-over is refused', async () => {
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

  it('the deletion of a destroyed key is finished by the storage that takes the key over', async () => {
    await s.create(NAME);
    await s.intend(NAME);
    await keys.shred(NAME);
    expect(keyIn(await takeOverKey({ storage: t.id }))).toMatchObject({ holder: t.id });
    expect(await s.deletions()).toEqual({ deletions: [] });
    expect((await t.deletions()).deletions).toMatchObject([{ name: NAME, state: 'destroyed' }]);
    keyIn(await t.act('content-removed', NAME));
  });

  it.each(['key.recover', 'key.take_over', 'key.schedule_deletion'])(
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

  it('a deletion that an administrator completes leaves the content for the storage to remove', async () => {
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
});
