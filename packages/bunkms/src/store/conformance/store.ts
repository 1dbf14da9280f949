import { randomUUID } from 'node:crypto';
import type { AuditRecord } from '@bundoc/shared/contract/audit';
import type { MayIssue, TokenInfo } from '@bundoc/shared/contract/tokens';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { GENESIS, verifyChain } from '../../records/chain.ts';
import type { KeyRecord } from '../../records/key-record.ts';
import type { KmsStore } from '../port.ts';
import type { RevocationPlace } from '../tokens.ts';
import type { LoadEntry, StoreEntry } from '../transfer.ts';
import {
  chainKey,
  draft,
  edited,
  installation,
  issueOf,
  KEK,
  key,
  LATER,
  made as madeInstallation,
  OTHER_KEK,
  revocationOf,
  rotated,
  stored,
  TIME,
  token,
} from './data.ts';

/** One place that stores are kept in. */
export interface StorePlace {
  /** Opens the store of this place; may be called again while another is open, as another process would. */
  open(): Promise<KmsStore>;
  /** Forgets the place. */
  dispose(): Promise<void>;
}

async function allRecords(store: KmsStore): Promise<readonly AuditRecord[]> {
  return (await store.listAudit({ limit: 10_000 })).items;
}

async function everything(store: KmsStore): Promise<StoreEntry[]> {
  const entries: StoreEntry[] = [];
  for await (const batch of store.readAll()) entries.push(...batch);
  return entries;
}

async function* batches(...all: readonly (readonly LoadEntry[])[]): AsyncGenerator<readonly LoadEntry[]> {
  yield* all;
}

/** What every implementation of {@link KmsStore} must hold to. Run it inside a test file. */
export function storeConformance(name: string, makePlace: () => Promise<StorePlace>): void {
  describe(`${name} as a KmsStore`, () => {
    let place: StorePlace;
    let store: KmsStore;

    beforeEach(async () => {
      place = await makePlace();
      store = await place.open();
      await store.initialise(installation(1), chainKey, madeInstallation());
    });
    afterEach(async () => {
      await store.close();
      await place.dispose();
    });

    test('gives back the installation it was made with, and takes no second one', async () => {
      expect(await store.readInstallation()).toEqual(installation(1));
      expect(await store.initialise(installation(5), chainKey, madeInstallation())).toBe(false);
      expect(await store.readInstallation()).toEqual(installation(1));
      expect(await allRecords(store)).toHaveLength(1);
    });

    test('keeps what was acknowledged over a close', async () => {
      const made = key('a-dek');
      await store.insertKey(made);
      await store.close();
      store = await place.open();
      expect(await store.findKey('a-dek', 'current')).toMatchObject(stored(made));
      expect((await store.auditHead()).seq).toBe(2);
    });

    test('refuses a second key of a name, and writes neither it nor its record', async () => {
      const first = key('a-dek');
      await store.insertKey(first);
      await expect(store.insertKey(key('a-dek'))).rejects.toMatchObject({ code: 'key_exists' });
      expect(await store.findKey('a-dek', 'current')).toMatchObject(stored(first));
      expect(await allRecords(store)).toHaveLength(2);
    });

    test('knows no key that was not made', async () => {
      expect(await store.findKey('none', 'current')).toBeUndefined();
    });

    test('pages through keys by name, each once, only those that a glob matches', async () => {
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

    test('keeps every version of a key, and gives those that are asked for', async () => {
      const first = key('a-dek');
      const second = rotated(first);
      const third = rotated(second);
      await store.insertKey(first);
      await store.insertKey(key('b-dek'));
      for (const one of [second, third])
        expect(await store.updateKey(one)).toMatchObject({ seq: expect.any(Number) });
      await store.close();
      store = await place.open();
      const versions = [first, second, third].flatMap((one) => one.versions);
      expect(await store.findKey('a-dek', 'current')).toMatchObject(stored(third));
      expect(await store.findKey('a-dek', 'all')).toMatchObject({ ...stored(third), versions });
      for (const [index, version] of versions.entries())
        expect((await store.findKey('a-dek', index + 1))?.versions).toEqual([version]);
      for (const version of [0, 4, 1_000])
        expect(await store.findKey('a-dek', version)).toMatchObject({ record: third.record, versions: [] });
      expect(await store.findKey('none', 'all')).toBeUndefined();
      expect((await store.listKeys(['a-*'], { limit: 9 })).items).toMatchObject([
        { name: 'a-dek', ...stored(third) },
      ]);
      expect((await store.counts()).keys).toBe(2);
    });

    test('tells the place of the latest change of a key, whatever else there is on record of it', async () => {
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

    test('keeps every member of a key, and puts another version in the place of one', async () => {
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

    test('puts nothing in the place of another revision, and writes nothing then', async () => {
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

    test('makes and changes no key in the name of a token that is revoked or unknown, and writes nothing then', async () => {
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

    test('lets one of several writers change the same revision', async () => {
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

    test('gives a key that the same idempotency key made since, and writes nothing then', async () => {
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

    test('lists keys that are due, in the order of their names', async () => {
      const due = [TIME, LATER, null, TIME, TIME];
      for (const [index, dueAt] of due.entries()) await store.insertKey(key(`k${index}`, { dueAt }));
      const names = async (until: string, after?: string) =>
        (await store.listDueKeys(until, { limit: 2, after })).items.map(({ name }) => name);
      expect(await names('2025-12-31T00:00:00.000Z')).toEqual([]);
      expect(await names(TIME)).toEqual(['k0', 'k3']);
      expect(await names(TIME, 'k3')).toEqual(['k4']);
      expect(await names(LATER)).toEqual(['k0', 'k1']);
    });

    test('leaves out a record whose key was changed, and appends the others', async () => {
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

    test('puts a key in the place of whatever is stored under its name, unless there was another change', async () => {
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

    test('reads all that it keeps at one moment, while others write', async () => {
      const [first, other] = [key('a-dek'), key('b-dek')];
      const second = rotated(first);
      await store.insertKey(other);
      await store.insertKey(first);
      await store.updateKey(second);
      const tokens = [token(), token()] as const;
      for (const one of tokens) await store.insertToken(one, issueOf(one));
      await store.revokeFamilies([revocationOf(tokens[0], LATER)]);
      for (let n = 0; n < 3; n++) await store.appendAudit(Array.from({ length: 400 }, () => draft('many')));
      const records = await allRecords(store);
      const read: StoreEntry[] = [];
      for await (const batch of store.readAll()) {
        await store.insertKey(key(`new-${read.length}`));
        await store.revokeFamilies([revocationOf(tokens[1], LATER)]);
        await store.updateKey(edited(other, { state: 'disabled' }));
        read.push(...batch);
      }
      expect(read).toEqual([
        { kind: 'installation', installation: installation(1) },
        ...records.map((record) => ({ kind: 'record', record })),
        { kind: 'key', key: second.record },
        ...[...first.versions, ...second.versions].map((version) => ({ kind: 'version', version })),
        { kind: 'key', key: other.record },
        ...other.versions.map((version) => ({ kind: 'version', version })),
        { kind: 'token', token: { ...tokens[0], revoked_at: LATER } },
        { kind: 'token', token: tokens[1] },
      ]);
    });

    test('lets go of what it reads when the reader stops', async () => {
      for await (const batch of store.readAll()) {
        expect(batch.length).toBeGreaterThan(0);
        break;
      }
      await store.insertKey(key('a-dek'));
      expect(await store.scrub()).toBe(true);
    });

    test('fills an empty store with all of it, continues its chain, and fills no store twice', async () => {
      const made = rotated(key('a-dek'));
      await store.insertKey(key('b-dek'));
      await store.insertKey(made);
      await store.insertToken(token(), draft('token.issue'));
      const entries = await everything(store);
      const otherPlace = await makePlace();
      const other = await otherPlace.open();
      try {
        const added = draft('added');
        const all = batches(entries.slice(0, 3), entries.slice(3), [{ kind: 'new-record', draft: added }]);
        expect(await other.load(all, chainKey)).toBe(true);
        const loaded = await everything(other);
        expect(loaded.filter(({ kind }) => kind !== 'record')).toEqual(
          entries.filter(({ kind }) => kind !== 'record'),
        );
        const records = await allRecords(other);
        expect(records.slice(0, -1)).toEqual(await allRecords(store));
        expect(records.at(-1)).toMatchObject(added);
        await other.insertKey(key('c-dek'));
        expect(await verifyChain(chainKey, await allRecords(other))).toMatchObject({ intact: true });
        for (const one of [store, other]) expect(await one.load(batches(entries), chainKey)).toBe(false);
        expect((await other.counts()).keys).toBe(3);
      } finally {
        await other.close();
        await otherPlace.dispose();
      }
    });

    test('has nothing in it after a load that failed, at whichever entry', async () => {
      await store.insertKey(rotated(key('a-dek')));
      await store.insertToken(token(), draft('token.issue'));
      const entries = await everything(store);
      const otherPlace = await makePlace();
      const other = await otherPlace.open();
      try {
        for (let at = 0; at <= entries.length; at++) {
          const failing = async function* () {
            for (const entry of entries.slice(0, at)) yield [entry];
            throw new Error(`failed at ${at}`);
          };
          await expect(other.load(failing(), chainKey)).rejects.toThrow(`failed at ${at}`);
          expect(await everything(other)).toEqual([]);
        }
        // Not even a part of an installation.
        await expect(other.load(batches(entries.slice(1)), chainKey)).rejects.toThrow();
        expect(await everything(other)).toEqual([]);
        expect(await other.load(batches(entries), chainKey)).toBe(true);
      } finally {
        await other.close();
        await otherPlace.dispose();
      }
    });

    test('shows nothing of a load to others before all of it is there', async () => {
      const entries = await everything(store);
      const otherPlace = await makePlace();
      const [other, beside] = [await otherPlace.open(), await otherPlace.open()];
      try {
        const initialisations: Promise<unknown>[] = [];
        const watched = async function* () {
          for (const entry of entries) {
            yield [entry];
            expect(await beside.readInstallation()).toBeUndefined();
            if (initialisations.length === 0)
              initialisations.push(
                beside.initialise(installation(7), chainKey, draft('x')).catch(({ code }) => code),
              );
          }
        };
        expect(await other.load(watched(), chainKey)).toBe(true);
        // It waited for the load and found its installation, or gave up.
        expect(await initialisations[0]).toBeOneOf([false, 'storage_unavailable']);
        expect(await beside.readInstallation()).toEqual(installation(1));
        expect(await beside.initialise(installation(7), chainKey, draft('x'))).toBe(false);
      } finally {
        await Promise.all([other.close(), beside.close()]);
        await otherPlace.dispose();
      }
    });

    test('scrubs', async () => {
      await store.insertKey(key('a-dek'));
      expect(await store.scrub()).toBe(true);
      expect(await store.findKey('a-dek', 'current')).toBeDefined();
    });

    test('sees its own writes after a page that was read in part', async () => {
      for (let number = 0; number < 5; number++) await store.insertKey(key(`k${number}`));
      await store.listKeys(['*'], { limit: 1 });
      await store.insertKey(key('k9'));
      expect(await store.findKey('k9', 'current')).toBeDefined();
      expect((await store.listKeys(['*'], { after: 'k8', limit: 1 })).items).toHaveLength(1);
    });

    test('remembers a further KEK once', async () => {
      const kek = { id: '8899aabbccddeeff', checkValue: 'cd' };
      expect(await store.addKek(kek, draft('kek.added'))).toBe(true);
      expect(await store.addKek(kek, draft('kek.added'))).toBe(false);
      expect((await store.readInstallation())?.keks).toEqual([...installation(1).keks, kek]);
      expect(await allRecords(store)).toHaveLength(2);
    });

    test('gives tokens back as they were put in, in the order of issue, with the records of it', async () => {
      const limit: MayIssue = { scopes: ['docs:read'], projects: ['*'], keys: [], ttl_s: 60 };
      const all: [TokenInfo, TokenInfo, TokenInfo] = [
        token(),
        { ...token(), may_issue: limit, scope: ['kms:admin'] },
        token(),
      ];
      for (const one of all) await store.insertToken(one, issueOf(one));
      const asStored = (one: TokenInfo) => ({
        jti: one.jti,
        row: one,
        issued: expect.objectContaining(issueOf(one)),
        revoked: undefined,
      });
      expect(await store.findToken(all[1].jti)).toEqual(asStored(all[1]));
      const first = await store.listTokens({ limit: 2 });
      expect(first).toEqual({ items: all.slice(0, 2).map(asStored), more: true });
      expect(await store.listTokens({ after: all[1].jti, limit: 2 })).toEqual({
        items: [asStored(all[2])],
        more: false,
      });
      expect(await store.listTokens({ after: randomUUID(), limit: 2 })).toEqual({ items: [], more: false });
      expect(await store.findToken(randomUUID())).toBeUndefined();
    });

    test('revokes a whole family and no other, once', async () => {
      const [root, other] = [token(), token()];
      const child = token(root.jti);
      await store.insertToken(root, issueOf(root));
      await store.insertToken(other, issueOf(other));
      expect(await store.renewToken(root.jti, child, issueOf(child, 'token.renew'))).toBe(true);
      expect(await store.revokeFamilies([revocationOf(root), revocationOf(child, LATER)])).toBe(1);
      const head = await store.auditHead();
      for (const { jti } of [root, child]) {
        const stored = await store.findToken(jti);
        expect(stored?.row?.revoked_at).toBe(TIME);
        expect(stored?.revoked).toMatchObject(revocationOf(root));
      }
      expect(await store.findToken(other.jti)).toMatchObject({ row: other, revoked: undefined });
      expect(await store.revokeFamilies([revocationOf(root, LATER)])).toBe(0);
      expect(await store.auditHead()).toEqual(head);
      expect((await store.findToken(root.jti))?.row?.revoked_at).toBe(TIME);
    });

    test('knows the family of a token that is live, and of no other', async () => {
      const [root, other] = [token(), token()];
      const child = token(root.jti);
      for (const one of [root, child, other]) await store.insertToken(one, issueOf(one));
      expect(await store.findActiveTokenFamily(child.jti)).toBe(root.jti);
      await store.revokeFamilies([revocationOf(root)]);
      for (const jti of [root.jti, child.jti, randomUUID()])
        expect(await store.findActiveTokenFamily(jti)).toBeUndefined();
      expect(await store.findActiveTokenFamily(other.jti)).toBe(other.jti);
    });

    test('takes the family of a token from the record of its issue, and no token without one for live', async () => {
      const [root, stray] = [token(), token()];
      await store.insertToken({ ...root, family: stray.jti }, issueOf(root));
      await store.insertToken(stray, draft('token.issue'));
      expect(await store.findActiveTokenFamily(root.jti)).toBe(root.family);
      expect(await store.findActiveTokenFamily(stray.jti)).toBeUndefined();
      expect(await store.findToken(stray.jti)).toMatchObject({ row: stray, issued: undefined });
      await store.revokeFamilies([revocationOf(root)]);
      expect(await store.findActiveTokenFamily(root.jti)).toBeUndefined();
    });

    test('finds the record of a token whose row is not there, and takes it for no live one', async () => {
      const lost = token();
      await store.appendAudit([issueOf(lost)]);
      expect(await store.findToken(lost.jti)).toMatchObject({
        jti: lost.jti,
        row: undefined,
        issued: issueOf(lost),
      });
      expect(await store.findActiveTokenFamily(lost.jti)).toBeUndefined();
    });

    test('renews no token that is revoked or unknown, and writes nothing then', async () => {
      const root = token();
      await store.insertToken(root, issueOf(root));
      await store.revokeFamilies([revocationOf(root)]);
      const before = await store.auditHead();
      expect(await store.renewToken(root.jti, token(root.jti), draft('token.renew'))).toBe(false);
      expect(await store.renewToken(randomUUID(), token(), draft('token.renew'))).toBe(false);
      expect(await store.auditHead()).toEqual(before);
      expect((await store.counts()).tokens).toBe(1);
    });

    test('stores no token whose issuer is revoked or unknown, and writes nothing then', async () => {
      const issuer = token();
      await store.insertToken(issuer, issueOf(issuer));
      const issued = { ...token(), issuer: issuer.jti };
      expect(await store.insertToken(issued, issueOf(issued))).toBe(true);
      await store.revokeFamilies([revocationOf(issuer)]);
      const before = await store.auditHead();
      for (const by of [issuer.jti, randomUUID()]) {
        const late = { ...token(), issuer: by };
        expect(await store.insertToken(late, issueOf(late))).toBe(false);
        expect(await store.findToken(late.jti)).toBeUndefined();
      }
      expect(await store.auditHead()).toEqual(before);
    });

    test('finds the issues of tokens by their family and by their issuer, in pages', async () => {
      const add = async (more: Partial<TokenInfo> = {}, family?: string) => {
        const one = { ...token(family), ...more };
        await store.appendAudit([issueOf(one, family === undefined ? 'token.issue' : 'token.renew')]);
        return one;
      };
      const root = await add();
      const renewed = await add({}, root.family);
      const [child, other] = [await add({ issuer: renewed.jti }), await add()];
      const grandchild = await add({ issuer: child.jti, expires_at: TIME });
      const renewal = await add({ issuer: child.jti, expires_at: LATER }, grandchild.family);
      const great = await add({ issuer: renewal.jti });
      const late = await add({ issuer: root.jti, expires_at: '2025-01-01T00:00:00.000Z' });
      const ofOther = await add({ issuer: other.jti });
      const found = async (by: 'family' | 'issuer', of: readonly string[], limit = 10, after = 0) => {
        const places = of.map((one) => ({ of: one, after }));
        const lists = await store.listIssues(by, places, limit);
        return lists.map((records) => records.map(({ detail }) => detail?.['token']));
      };
      expect(await found('family', [root.family, great.family, randomUUID()])).toEqual([
        [root.jti, renewed.jti],
        [great.jti],
        [],
      ]);
      expect(await found('issuer', [child.jti, other.jti, root.jti])).toEqual([
        [grandchild.jti, renewal.jti],
        [ofOther.jti],
        [late.jti],
      ]);
      const [[first] = []] = await store.listIssues('issuer', [{ of: child.jti, after: 0 }], 1);
      expect(first?.detail?.['token']).toBe(grandchild.jti);
      expect(await found('issuer', [child.jti, root.jti], 10, first?.seq)).toEqual([
        [renewal.jti],
        [late.jti],
      ]);
    });

    test('forgets families of which every token expired, a number at a time, and says so in the chain', async () => {
      const expiring = (day: number, family?: string) => ({
        ...token(family),
        expires_at: `2026-04-0${day}T00:00:00.000Z`,
      });
      const gone = [expiring(1), expiring(2), expiring(2)];
      const parent = expiring(1);
      const kept = [parent, expiring(5, parent.family), expiring(3)];
      for (const one of [...gone, ...kept]) await store.insertToken(one, issueOf(one));
      const prune = () =>
        store.pruneTokens('2026-04-03T00:00:00.000Z', 2, draft('token.prune', { detail: { a: 1 } }));
      expect([await prune(), await prune(), await prune()]).toEqual([2, 1, 0]);
      for (const { jti } of gone) expect((await store.findToken(jti))?.row).toBeUndefined();
      for (const one of kept) expect((await store.findToken(one.jti))?.row).toEqual(one);
      const records = (await allRecords(store)).filter(({ action }) => action === 'token.prune');
      expect(records.map(({ detail }) => detail)).toEqual([
        { a: 1, count: 2 },
        { a: 1, count: 1 },
      ]);
    });

    test('lists the revocations of what has not expired, in pages', async () => {
      const tokens = [
        token(),
        token(),
        { ...token(), expires_at: TIME },
        { ...token(), expires_at: LATER },
        token(),
      ];
      for (const one of tokens) await store.insertToken(one, issueOf(one));
      for (const one of tokens.slice(1)) await store.revokeFamilies([revocationOf(one, LATER)]);
      const places: RevocationPlace[] = [];
      const page = async (after?: RevocationPlace) => {
        const { items, more } = await store.listRevoked('2026-01-02T00:00:00.000Z', { limit: 2, after });
        places.push(...items.map(({ seq, detail }) => ({ seq, expiresAt: String(detail?.['expires_at']) })));
        return [items.map(({ detail }) => detail?.['token']), more];
      };
      expect(await page()).toEqual([[tokens[1]?.jti, tokens[4]?.jti], true]);
      expect(await page(places.at(-1))).toEqual([[tokens[3]?.jti], false]);
    });

    test('appends records in order, with receipts of their places, to one unbroken chain', async () => {
      const full = draft('key.export', {
        severity: 'CRITICAL',
        actor: 'bundoc',
        jti: randomUUID(),
        key: 'a-dek',
        version: 3,
        source: '127.0.0.1',
        request_id: 'r-1',
        code: 'forbidden',
        detail: { b: 1, a: 'x', c: true },
      });
      const receipts = await store.appendAudit([full, draft('two'), draft('three')]);
      const records = await allRecords(store);
      expect(records[1]).toMatchObject(full);
      expect(receipts).toEqual(records.slice(1).map(({ seq, hash }) => ({ seq, hash })));
      const last = await store.auditHead();
      expect(last).toEqual(receipts[2]);
      expect(await verifyChain(chainKey, records, [last])).toMatchObject({ intact: true, head: { seq: 4 } });
    });

    test('leaves out a record whose token is revoked or unknown, and appends the others', async () => {
      const live = token();
      const revoked = token();
      for (const one of [live, revoked]) await store.insertToken(one, issueOf(one));
      await store.revokeFamilies([revocationOf(revoked)]);
      const receipts = await store.appendAudit(
        [draft('live'), draft('revoked'), draft('unknown'), draft('none')],
        [{ jti: live.jti }, { jti: revoked.jti }, { jti: randomUUID() }, undefined],
      );
      expect(receipts.map((receipt) => (typeof receipt === 'string' ? receipt : 'appended'))).toEqual([
        'appended',
        'token_revoked',
        'token_revoked',
        'appended',
      ]);
      const actions = (await allRecords(store)).map(({ action }) => action);
      expect(actions.slice(-2)).toEqual(['live', 'none']);
    });

    test('appends a record once for the same action and detail', async () => {
      const record = draft('adopt', { detail: { sha256: 'ab', lines: 3 } });
      expect(await store.appendAuditOnce(record)).toBe(true);
      expect(await store.appendAuditOnce({ ...record, time: '2027-01-01T00:00:00.000Z' })).toBe(false);
      expect(await store.appendAuditOnce({ ...record, detail: { sha256: 'cd', lines: 3 } })).toBe(true);
    });

    test('gives the allowed exports of a key from the newest back to a time, in pages', async () => {
      const at = (minute: number) => `2026-03-01T00:0${minute}:00.000Z`;
      const release = (minute: number, more: object = {}) =>
        draft('key.export', { time: at(minute), key: 'k', ...more });
      const receipts = await store.appendAudit([
        release(1),
        release(2),
        release(3, { key: 'other' }),
        release(4, { outcome: 'refused' }),
        release(5, { action: 'key.read' }),
        release(6),
        release(7),
      ]);
      const seqs = receipts.map((receipt) => (typeof receipt === 'string' ? undefined : receipt.seq));
      const seqOf = (place: number) => seqs[place];
      const found = await store.listExports('k', at(2), { limit: 10 });
      expect(found).toEqual({ items: expect.any(Array) });
      expect(found.items.map(({ seq }) => seq)).toEqual([seqOf(6), seqOf(5), seqOf(1)]);
      const first = await store.listExports('k', at(2), { limit: 2 });
      expect(first.items.map(({ seq }) => seq)).toEqual([seqOf(6), seqOf(5)]);
      const second = await store.listExports('k', at(2), { limit: 2, before: first.next });
      expect([second.items.map(({ seq }) => seq), second.next]).toEqual([[seqOf(1)], undefined]);
      expect(await store.listExports('unknown', at(0), { limit: 2 })).toEqual({ items: [] });
    });

    test('looks at a bounded number of records for one page of exports, and goes on behind them', async () => {
      await store.appendAudit([draft('key.export', { key: 'k' })]);
      const wanted = await store.auditHead();
      const refused = draft('key.export', { key: 'k', outcome: 'refused' });
      for (let n = 0; n < 22; n++) await store.appendAudit(Array.from({ length: 500 }, () => refused));
      const first = await store.listExports('k', TIME, { limit: 10 });
      expect(first).toEqual({ items: [], next: expect.any(Number) });
      const second = await store.listExports('k', TIME, { limit: 10, before: first.next });
      expect(second.items.map(({ seq }) => seq)).toEqual([wanted.seq]);
    });

    test('filters the audit by everything that is given, and pages', async () => {
      const day = (number: number) => `2026-03-0${number}T00:00:00.000Z`;
      await store.appendAudit([
        draft('a', { time: day(1), key: 'k', actor: 'x' }),
        draft('b', { time: day(2), key: 'k', actor: 'y', severity: 'CRITICAL' }),
        draft('c', { time: day(3), key: 'l', actor: 'x', severity: 'CRITICAL' }),
      ]);
      const actions = async (query: object) =>
        (await store.listAudit({ limit: 10, ...query })).items.map(({ action }) => action);
      expect(await actions({ key: 'k' })).toEqual(['a', 'b']);
      await store.appendAudit([draft('key.export', { key: 'm' }), draft('key.rotate', { key: 'm' })]);
      await store.appendAudit([draft('key.encrypt', { key: 'm' }), draft('kek.rewrap', { key: 'm' })]);
      expect(await actions({ key: 'm', bulk: false })).toEqual(['key.rotate']);
      expect(await actions({ key: 'm', uses: false })).toEqual(['key.rotate', 'kek.rewrap']);
      expect(await actions({ key: 'k', actor: 'y' })).toEqual(['b']);
      expect(await actions({ severity: 'CRITICAL' })).toEqual(['b', 'c']);
      expect(await actions({ from: day(2), to: day(3) })).toEqual(['b']);
      const page = await store.listAudit({ key: 'k', limit: 1 });
      expect(page).toMatchObject({ items: [{ action: 'a' }], more: true });
      expect(await store.listAudit({ key: 'k', limit: 1, after: page.items.at(-1)?.seq })).toMatchObject({
        items: [{ action: 'b' }],
        more: false,
      });
    });

    test('lets two writers share one chain', async () => {
      const other = await place.open();
      await other.unlock(chainKey);
      try {
        const writes = Array.from({ length: 40 }, (_, number) =>
          (number % 2 === 0 ? store : other).appendAudit([draft(`w${number}`)]),
        );
        const receipts = (await Promise.all(writes)).flat().map((receipt) => JSON.stringify(receipt));
        expect(new Set(receipts).size).toBe(40);
        expect(await verifyChain(chainKey, await allRecords(store))).toMatchObject({
          intact: true,
          head: { seq: 41 },
        });
      } finally {
        await other.close();
      }
    });

    test('writes no record, and so changes nothing, before it has the chain key', async () => {
      const locked = await place.open();
      try {
        const refused = { code: 'storage_unavailable' };
        await expect(locked.insertKey(key('a-dek'))).rejects.toMatchObject(refused);
        await expect(locked.appendAudit([draft('a')])).rejects.toMatchObject(refused);
        expect(await store.findKey('a-dek', 'all')).toBeUndefined();
        await locked.unlock(chainKey);
        const made = key('a-dek');
        await locked.insertKey(made);
        const stillLocked = await place.open();
        await expect(stillLocked.updateKey(rotated(made))).rejects.toMatchObject(refused);
        await stillLocked.close();
        expect(await store.findKey('a-dek', 'all')).toMatchObject(stored(made));
      } finally {
        await locked.close();
      }
    });

    test('counts, and probes without touching the chain', async () => {
      await store.insertKey(key('a-dek'));
      const before = await store.auditHead();
      await store.probe();
      expect(await store.counts()).toEqual({ keys: 1, tokens: 0 });
      expect(await store.auditHead()).toEqual(before);
    });

    test('closes more than once, and serves nothing afterwards', async () => {
      await Promise.all([store.close(), store.close()]);
      await store.close();
      await expect(store.auditHead()).rejects.toMatchObject({ code: 'storage_unavailable' });
    });

    test('finishes what was asked before the close', async () => {
      const write = store.appendAudit([draft('last')]);
      await store.close();
      expect(await write).toMatchObject([{ seq: 2 }]);
    });
  });

  describe(`${name}, empty`, () => {
    test('knows no installation, and lets one of several processes make it', async () => {
      const place = await makePlace();
      const stores = await Promise.all([place.open(), place.open(), place.open(), place.open()]);
      const [first] = stores;
      try {
        expect(await first.readInstallation()).toBeUndefined();
        expect(await first.auditHead()).toEqual(GENESIS);
        const made = await Promise.all(
          stores.map((store, mark) => store.initialise(installation(mark), chainKey, madeInstallation())),
        );
        expect(made.filter(Boolean)).toHaveLength(1);
        const seen = await Promise.all(stores.map((store) => store.readInstallation()));
        for (const one of seen) expect(one).toEqual(installation(made.indexOf(true)));
        expect(await allRecords(first)).toHaveLength(1);
      } finally {
        await Promise.all(stores.map((store) => store.close()));
        await place.dispose();
      }
    });
  });
}
