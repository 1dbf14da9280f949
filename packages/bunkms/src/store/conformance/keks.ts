import assert from 'node:assert/strict';
import { describe, expect, it } from 'vitest';
import type { KeyChange } from '../keys.ts';
import type { KmsStore } from '../port.ts';
import {
  draft,
  edited,
  installation,
  KEK,
  key,
  LATER,
  OTHER_KEK,
  rewrapped,
  rotated,
  secretWith,
  stored,
  TIME,
} from './data.ts';
import { allRecords, type MakePlace, withStore } from './place.ts';

/** The contract of {@link KmsStore} for KEKs. Run it inside a test file. */
export function kekConformance(name: string, makePlace: MakePlace): void {
  describe(`${name} as a KmsStore for KEKs`, () => {
    let store: KmsStore;

    withStore(makePlace, (opened) => {
      store = opened;
    });

    const rotateKek = (kekId: string) =>
      store.appendAudit([draft('kek.rotate', { detail: { kek_id: kekId } })]);
    it('returns the KEK records of the chain in order, and adds a KEK only once', async () => {
      const stage = draft('kek.stage', { detail: { kek_id: OTHER_KEK } });
      expect(await store.addKek({ id: OTHER_KEK, checkValue: 'cd' }, stage)).toBe(true);
      expect(await store.addKek({ id: OTHER_KEK, checkValue: 'cd' }, stage)).toBe(false);
      await store.insertKey(key('a-dek'));
      await rotateKek(OTHER_KEK);
      await store.appendAudit([
        draft('kek.rewrap', { key: 'a-dek' }),
        draft('kek.verify'),
        draft('kek.retire'),
      ]);
      const records = await store.kekRecords();
      expect(records.map(({ action }) => action)).toEqual([
        'vault.initialised',
        'kek.stage',
        'kek.rotate',
        'kek.retire',
      ]);
      expect(records).toEqual(
        (await store.listAudit({ limit: 99 })).items.filter(({ seq }) => [1, 2, 4, 7].includes(seq)),
      );
      expect((await store.readInstallation())?.keks.map(({ id }) => id)).toEqual([KEK, OTHER_KEK]);
    });

    it('stores nothing that is wrapped with a KEK other than the current one', async () => {
      const first = key('a-dek');
      const other = key('b-dek');
      const foreign: KeyChange = rewrapped(other, other.versions, OTHER_KEK);
      const before = await store.auditHead();
      expect(await store.insertKey(foreign)).toBe('outdated');
      expect(await store.auditHead()).toEqual(before);
      expect(await store.findKey('b-dek', 'all')).toBeUndefined();
      await store.insertKey(first);
      await rotateKek(OTHER_KEK);
      expect(await store.insertKey(key('c-dek'))).toBe('outdated');
      expect(await store.updateKey(rotated(first))).toBeUndefined();
      expect(await store.insertKey(foreign)).toBeUndefined();
      // A change without wrapped bytes does not depend on the KEK.
      expect(await store.updateKey(edited(first, { state: 'disabled' }))).toBeDefined();
    });

    it('rewraps many keys at once, each only if it is unchanged, in the same revision', async () => {
      const [one, two, three] = [key('a-dek'), key('b-dek'), key('c-dek')];
      for (const each of [one, two, three]) await store.insertKey(each);
      await rotateKek(OTHER_KEK);
      const renewed = (each: KeyChange) => rewrapped(each, each.versions, OTHER_KEK);
      const changes = [renewed(one), renewed(two), renewed(three)] as const;
      await store.updateKey(edited(two, { state: 'disabled' }));
      const receipts = await store.updateKeys(changes);
      expect(receipts.map((receipt) => receipt !== undefined)).toEqual([true, false, true]);
      expect(await store.findKey('a-dek', 'all')).toMatchObject(stored(changes[0]));
      expect((await store.findKey('a-dek', 'all'))?.record?.revision).toBe(1);
      expect(await store.lastChange('a-dek')).toEqual(receipts[0]);
      // A change based on the former wrapping comes too late.
      expect(await store.updateKey(edited(one, { state: 'disabled' }))).toBeUndefined();
      expect(await store.appendAudit([draft('release')], [{ key: one.record }])).toEqual(['key_changed']);
      expect(await store.updateKeys([])).toEqual([]);
    });

    it('counts and lists in pages what is wrapped with each KEK, by the bytes themselves', async () => {
      const [a, b] = [key('a'), key('b')];
      const keys = [key('d'), b, a, key('c'), key('e')];
      for (const each of keys) await store.insertKey(each);
      await store.updateKey(rotated(a));
      expect(await store.kekUses()).toEqual([{ kekId: KEK, versions: 6, secrets: 2 }]);
      await rotateKek(OTHER_KEK);
      expect(await store.countNotWrappedBy(OTHER_KEK)).toBe(6);
      const found: string[] = [];
      for (let after: string | undefined, more = true; more; after = found.at(-1)) {
        const page = await store.listWrapped(KEK, { after, limit: 2 });
        found.push(...page.items.map(({ record }) => String(record?.id)));
        more = page.more;
      }
      expect(found).toEqual(keys.map(({ record }) => record.id).sort());
      const page = await store.listWrapped(KEK, { limit: 9 });
      expect(page.items.find(({ name }) => name === 'a')?.versions).toHaveLength(2);
      await store.updateKeys([rewrapped(b, b.versions, OTHER_KEK)]);
      expect(await store.kekUses()).toEqual([
        { kekId: KEK, versions: 5, secrets: 2 },
        { kekId: OTHER_KEK, versions: 1, secrets: 0 },
      ]);
      expect([
        await store.countNotWrappedBy(KEK),
        await store.countNotWrappedBy(OTHER_KEK),
        await store.countNotWrappedBy('00'.repeat(8)),
      ]).toEqual([1, 5, 6]);
      expect((await store.listWrapped(OTHER_KEK, { limit: 9 })).items.map(({ name }) => name)).toEqual(['b']);
    });

    it('replaces the secrets that were read by the same ones under the current KEK', async () => {
      const renewed = (kekId: string) => ({
        chainKeyWrapped: secretWith(kekId, 7),
        signingSeedWrapped: secretWith(kekId, 8),
      });
      const record = draft('kek.rewrap_secrets');
      expect(await store.replaceSecrets(renewed(OTHER_KEK), installation(1), record)).toBe(false);
      await rotateKek(OTHER_KEK);
      const before = await store.auditHead();
      expect(await store.replaceSecrets(renewed(OTHER_KEK), installation(2), record)).toBe(false);
      expect(await store.replaceSecrets(renewed(KEK), installation(1), record)).toBe(false);
      expect(await store.auditHead()).toEqual(before);
      expect(await store.replaceSecrets(renewed(OTHER_KEK), installation(1), record)).toBe(true);
      expect(await store.readInstallation()).toMatchObject(renewed(OTHER_KEK));
      expect((await store.auditHead()).seq).toBe(before.seq + 1);
      expect(await store.kekUses()).toEqual([{ kekId: OTHER_KEK, versions: 0, secrets: 2 }]);
    });

    it('rejects a record when the KEKs have changed, the KEK is in use, or a running service lacks it', async () => {
      const append = async (condition: object) => (await store.appendAudit([draft('act')], [condition]))[0];
      const [{ seq } = { seq: 0 }] = await store.kekRecords();
      expect(await append({ kekRecord: seq })).toMatchObject({ seq: 2 });
      expect(await append({ requireUnusedKek: KEK })).toBe('kek_in_use');
      expect(await append({ requireUnusedKek: OTHER_KEK })).toMatchObject({ seq: 3 });
      await store.announce({ service: 'one', kekIds: [KEK, OTHER_KEK], now: TIME, until: LATER });
      const ofAll = (now: string) => append({ kekHeldByAllNodes: { kekId: OTHER_KEK, now } });
      expect(await ofAll(TIME)).toMatchObject({ seq: 4 });
      await store.announce({ service: 'two', kekIds: [KEK], now: TIME, until: LATER });
      expect(await ofAll(TIME)).toBe('kek_not_held');
      expect(await ofAll(LATER)).toMatchObject({ seq: 5 });
      await store.withdraw('two');
      expect(await ofAll(TIME)).toMatchObject({ seq: 6 });
      await store.announce({ service: 'one', kekIds: [KEK], now: TIME, until: LATER });
      expect(await ofAll(TIME)).toBe('kek_not_held');
      await rotateKek(OTHER_KEK);
      expect(await append({ kekRecord: seq })).toBe('keks_changed');
    });

    it('gives a task to one holder at a time, until its claim expires or is released', async () => {
      const at = (second: number) => new Date(Date.parse(TIME) + 1_000 * second).toISOString();
      const claim = (holder: string, second: number) =>
        store.claim({ task: 't', holder, now: at(second), until: at(second + 10) });
      expect(await claim('one', 0)).toBe(true);
      expect(await claim('two', 1)).toBe(false);
      expect(await claim('one', 5)).toBe(true);
      expect(await claim('two', 14)).toBe(false);
      expect(await claim('two', 15)).toBe(true);
      await store.release({ task: 't', holder: 'one' });
      expect(await claim('one', 16)).toBe(false);
      await store.release({ task: 't', holder: 'two' });
      expect(await claim('one', 17)).toBe(true);
      // The clock was set back: otherwise the earlier claim would never expire.
      expect(await claim('two', -1_000)).toBe(true);
    });

    it('lists keys with a version that was exported before the key was rewrapped and not since', async () => {
      const names = ['never', 'before', 'both', 'after', 'half', 'gone', 'other'];
      for (const name of names) await store.insertKey(key(name));
      const present = async (name: string): Promise<KeyChange> => {
        const { record, versions, lastChange } = (await store.findKey(name, 'all')) ?? {};
        assert(record !== undefined && versions !== undefined && lastChange !== undefined);
        return { record, versions, audit: lastChange };
      };
      const released = (name: string, version = 1) =>
        store.appendAudit([draft('key.export', { key: name, version })]);
      await store.updateKey(rotated(await present('half')));
      for (const name of ['before', 'both', 'half', 'gone', 'other']) await released(name);
      await released('half', 2);
      // A refusal releases nothing.
      await store.appendAudit([draft('key.export', { key: 'never', version: 1, outcome: 'refused' })]);
      await rotateKek(OTHER_KEK);
      for (const name of names.slice(0, -1)) {
        const one = await present(name);
        expect(await store.updateKey(rewrapped(one, one.versions, OTHER_KEK))).toBeDefined();
      }
      await store.updateKey(edited(await present('gone'), { state: 'destroyed' }));
      for (const name of ['both', 'after']) await released(name);
      await released('half', 2);
      const all: string[] = [];
      for (let after: string | undefined, more = true; more; more = after !== undefined) {
        const page = await store.listStaleCopies(KEK, { after, limit: 1 });
        all.push(...page.names);
        after = page.next;
      }
      expect(all).toEqual(['before', 'half']);
      await released('half', 1);
      await released('before');
      expect((await store.listStaleCopies(KEK, { limit: 9 })).names).toEqual([]);
      expect((await store.listStaleCopies(OTHER_KEK, { limit: 9 })).names).toEqual([]);
    });

    it('remembers a further KEK once', async () => {
      const kek = { id: '8899aabbccddeeff', checkValue: 'cd' };
      expect(await store.addKek(kek, draft('kek.stage'))).toBe(true);
      expect(await store.addKek(kek, draft('kek.stage'))).toBe(false);
      expect((await store.readInstallation())?.keks).toEqual([...installation(1).keks, kek]);
      expect(await allRecords(store)).toHaveLength(2);
    });
  });
}
