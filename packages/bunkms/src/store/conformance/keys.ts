import { randomUUID } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import type { KeyRecord } from '../../records/key-record.ts';
import type { KmsStore } from '../port.ts';
import {
  chainKey,
  draft,
  edited,
  issueOf,
  KEK,
  key,
  LATER,
  OTHER_KEK,
  revocationOf,
  rotated,
  stored,
  TIME,
  token,
} from './data.ts';
import { allRecords, type MakePlace, type StorePlace, withStore } from './place.ts';

/** The tests that every {@link KmsStore} must pass for keys. Call it in a test file. */
export function keyConformance(name: string, makePlace: MakePlace): void {
  describe(`${name} as a KmsStore of keys`, () => {
    let store: KmsStore;
    let place: StorePlace;
    withStore(makePlace, (opened, at) => {
      store = opened;
      place = at;
    });

    it('refuses a second key of the same name, and writes neither the key nor its record', async () => {
      const first = key('a-dek');
      await store.insertKey(first);
      await expect(store.insertKey(key('a-dek'))).rejects.toMatchObject({ code: 'key_exists' });
      expect(await store.findKey('a-dek', 'current')).toMatchObject(stored(first));
      expect(await allRecords(store)).toHaveLength(2);
    });

    it('finds no key that was never created', async () => {
      expect(await store.findKey('none', 'current')).toBeUndefined();
    });

    it('lists the keys that match a glob in pages by name, each once', async () => {
      for (const one of ['c-dek', 'a-dek', 'other', 'b-dek', 'd-dek']) await store.insertKey(key(one));
      const names: string[] = [];
      for (let after: string | undefined, more = true; more; after = names.at(-1)) {
        const page = await store.listKeys(['*-dek'], { after, limit: 3 });
        names.push(...page.items.map((one) => one.name));
        more = page.more;
      }
      expect(names).toEqual(['a-dek', 'b-dek', 'c-dek', 'd-dek']);
      expect(await store.listKeys([], { limit: 3 })).toEqual({ items: [], more: false });
    });

    it('keeps every version of a key, and returns the requested ones', async () => {
      const first = key('a-dek');
      const second = rotated(first);
      const third = rotated(second);
      await store.insertKey(first);
      await store.insertKey(key('b-dek'));
      for (const one of [second, third])
        expect(await store.updateKey(one)).toMatchObject({ seq: expect.any(Number) });
      await store.close();
      await using again = await place.open();
      const versions = [first, second, third].flatMap((one) => one.versions);
      expect(await again.findKey('a-dek', 'current')).toMatchObject(stored(third));
      expect(await again.findKey('a-dek', 'all')).toMatchObject({ ...stored(third), versions });
      for (const [index, version] of versions.entries())
        expect((await again.findKey('a-dek', index + 1))?.versions).toEqual([version]);
      for (const version of [0, 4, 1_000])
        expect(await again.findKey('a-dek', version)).toMatchObject({ record: third.record, versions: [] });
      expect(await again.findKey('none', 'all')).toBeUndefined();
      expect((await again.listKeys(['a-*'], { limit: 9 })).items).toMatchObject([
        { name: 'a-dek', ...stored(third) },
      ]);
      expect((await again.counts()).keys).toBe(2);
    });

    it('returns the latest change of a key, whatever other records name the key', async () => {
      const first = key('a-dek');
      expect(await store.lastChange('a-dek')).toBeUndefined();
      await store.insertKey(first);
      expect(await store.lastChange('a-dek')).toEqual(await store.auditHead());
      const changed = await store.updateKey(rotated(first));
      await store.insertKey(key('b-dek'));
      await store.appendAudit([draft('key.export', { key: 'a-dek', detail: { key_id: 'x' } })]);
      expect(await store.lastChange('a-dek')).toEqual(changed);
      const { lastChange } = (await store.findKey('a-dek', 'current')) ?? {};
      expect(changed).toEqual({ seq: lastChange?.seq, hash: lastChange?.hash });
    });

    it('keeps every member of a key, and replaces one version by another', async () => {
      const made = key('a-dek', {
        exportable: false,
        rotateAfterDays: 30,
        dueAt: LATER,
        kekIds: [KEK, OTHER_KEK],
        idempotency: { key: 'ab', request: 'cd' },
        holder: randomUUID(),
        offer: { to: randomUUID(), move: randomUUID(), generation: randomUUID() },
        intendedAt: LATER,
      });
      await store.insertKey(made);
      expect((await store.findKey('a-dek', 'all'))?.record).toEqual(made.record);
      const versions = made.versions.map((version) => ({
        ...version,
        state: 'destroyed' as const,
        destroyedAt: LATER,
        wrapped: new Uint8Array(),
      }));
      const change = {
        ...edited(made, {
          state: 'destroyed',
          destroyedAt: LATER,
          dueAt: null,
          kekIds: [],
          idempotency: null,
          holder: null,
          offer: null,
          intendedAt: null,
        }),
        versions,
      };
      expect(await store.updateKey(change)).toBeDefined();
      expect(await store.findKey('a-dek', 'all')).toMatchObject(stored(change));
    });

    it('refuses to replace a key of another revision, and writes nothing', async () => {
      const made = key('a-dek');
      await store.insertKey(made);
      const before = await store.auditHead();
      const next = edited(made, { state: 'disabled' });
      expect(await store.updateKey(edited(next, {}))).toBeUndefined();
      expect(await store.updateKey({ ...made, previous: { ...made.record, revision: 0 } })).toBeUndefined();
      expect(await store.updateKey(rotated(key('a-dek')))).toBeUndefined();
      expect(await store.auditHead()).toEqual(before);
      expect(await store.findKey('a-dek', 'all')).toMatchObject(stored(made));
    });

    it('refuses to create or change a key for a revoked or unknown token, and writes nothing', async () => {
      const [live, revoked] = [token(), token()];
      for (const one of [live, revoked]) await store.insertToken(one, issueOf(one));
      await store.revokeFamilies([revocationOf(revoked)]);
      const made = key('a-dek');
      expect(await store.insertKey({ ...made, jti: live.jti })).toBeUndefined();
      const before = await store.auditHead();
      for (const jti of [revoked.jti, randomUUID()]) {
        const refusal = { code: 'unauthenticated' };
        await expect(store.insertKey({ ...key('b-dek'), jti })).rejects.toMatchObject(refusal);
        await expect(store.updateKey({ ...rotated(made), jti })).rejects.toMatchObject(refusal);
        await expect(store.updateKeys([{ ...rotated(made), jti }])).rejects.toMatchObject(refusal);
      }
      expect(await store.auditHead()).toEqual(before);
      expect(await store.findKey('b-dek', 'all')).toBeUndefined();
      expect(await store.findKey('a-dek', 'all')).toMatchObject(stored(made));
      expect(await store.updateKey({ ...rotated(made), jti: live.jti })).toBeDefined();
    });

    it('lets exactly one of several writers change a revision', async () => {
      const made = key('a-dek');
      await store.insertKey(made);
      const other = await place.open();
      await other.unlock(chainKey);
      try {
        const tries = Array.from({ length: 20 }, () => rotated(made));
        const receipts = await Promise.all(
          tries.map((one, number) => (number % 2 === 0 ? store : other).updateKey(one)),
        );
        const won = tries.filter((_, index) => receipts[index] !== undefined);
        expect(won).toHaveLength(1);
        for (const one of [store, other])
          expect([await one.findKey('a-dek', 'current')]).toMatchObject(won.map(stored));
        expect((await allRecords(store)).filter(({ action }) => action === 'key.rotate')).toHaveLength(1);
      } finally {
        await other.close();
      }
    });

    it('returns the key that another request with the same idempotency key has created, and writes nothing', async () => {
      const idempotency = { key: 'ab', request: 'cd' };
      const made = key('a-dek', { idempotency });
      expect(await store.insertKey(made, TIME)).toBeUndefined();
      await store.updateKey(rotated(made));
      const before = await store.auditHead();
      const again = await store.insertKey(key('b-dek', { idempotency }), TIME);
      expect(again).toMatchObject({ record: { id: made.record.id, version: 2 }, versions: made.versions });
      expect(await store.auditHead()).toEqual(before);
      expect(await store.insertKey(key('b-dek', { idempotency }), LATER)).toBeUndefined();
      await expect(store.insertKey(key('b-dek', { idempotency }))).rejects.toMatchObject({
        code: 'key_exists',
      });
    });

    it('lists the keys that are due, by name', async () => {
      const due = [TIME, LATER, null, TIME, TIME];
      for (const [index, dueAt] of due.entries()) await store.insertKey(key(`k${index}`, { dueAt }));
      const names = async (until: string, after?: string) =>
        (await store.listDueKeys(until, { limit: 2, after })).items.map(({ name }) => name);
      expect(await names('2025-12-31T00:00:00.000Z')).toEqual([]);
      expect(await names(TIME)).toEqual(['k0', 'k3']);
      expect(await names(TIME, 'k3')).toEqual(['k4']);
      expect(await names(LATER)).toEqual(['k0', 'k1']);
    });

    it('omits a record whose key has changed, and appends the others', async () => {
      const made = key('a-dek');
      await store.insertKey(made);
      const append = (revision: number, more: Partial<KeyRecord> = {}) =>
        store.appendAudit([draft('release')], [{ key: { ...made.record, revision, ...more } }]);
      expect(await append(1)).toMatchObject([{ seq: 3 }]);
      await store.updateKey(edited(made, { state: 'disabled' }));
      expect(await append(1)).toEqual(['key_changed']);
      expect(await append(2)).toMatchObject([{ seq: 5 }]);
      expect(await append(2, { id: randomUUID() })).toEqual(['key_changed']);
      expect(await append(2, { versionDigests: new Uint8Array(32) })).toEqual(['key_changed']);
    });

    it('replaces whatever is stored under the name of a key, unless the key has changed again', async () => {
      const made = key('a-dek');
      await store.insertKey(made);
      const { lastChange } = (await store.findKey('a-dek', 'current')) ?? {};
      const other = rotated(key('a-dek', { exportable: false }));
      expect(await store.replaceKey(other, undefined)).toBeUndefined();
      expect(await store.replaceKey(other, (lastChange?.seq ?? 0) + 1)).toBeUndefined();
      expect(await store.findKey('a-dek', 'all')).toMatchObject(stored(made));
      const receipt = await store.replaceKey(other, lastChange?.seq);
      expect(await store.auditHead()).toEqual(receipt);
      expect(await store.findKey('a-dek', 'all')).toMatchObject(stored(other));
      expect((await store.counts()).keys).toBe(1);
      const renamed = { ...edited(other, { name: 'b-dek' }), versions: made.versions };
      expect(await store.replaceKey({ ...renamed, versions: [] }, undefined)).toBeDefined();
      expect((await store.findKey('a-dek', 'all'))?.record).toBeUndefined();
    });
  });
}
