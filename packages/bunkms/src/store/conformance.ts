import { randomUUID } from 'node:crypto';
import type { AuditRecord } from '@bundoc/shared/contract/audit';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { GENESIS, verifyChain } from '../audit/chain.ts';
import { chainKey, draft, installation, key, keyVersion, LATER, TIME, token } from './conformance-data.ts';
import type { KmsStore } from './port.ts';

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

/** What every implementation of {@link KmsStore} must hold to. Run it inside a test file. */
export function storeConformance(name: string, makePlace: () => Promise<StorePlace>): void {
  describe(`${name} as a KmsStore`, () => {
    let place: StorePlace;
    let store: KmsStore;

    beforeEach(async () => {
      place = await makePlace();
      store = await place.open();
      await store.initialise(installation(1), chainKey, draft('vault.initialised'));
    });
    afterEach(async () => {
      await store.close();
      await place.dispose();
    });

    test('gives back the installation it was made with, and takes no second one', async () => {
      expect(await store.readInstallation()).toEqual(installation(1));
      expect(await store.initialise(installation(5), chainKey, draft('vault.initialised'))).toBe(false);
      expect(await store.readInstallation()).toEqual(installation(1));
      expect(await allRecords(store)).toHaveLength(1);
    });

    test('keeps what was acknowledged over a close', async () => {
      const made = key('a-dek');
      await store.insertKey(made, draft('key.create', { key: 'a-dek' }));
      await store.close();
      store = await place.open();
      expect(await store.findKey('a-dek')).toEqual(made);
      expect((await store.auditHead()).seq).toBe(2);
    });

    test('refuses a second key of a name, and writes neither it nor its record', async () => {
      const first = key('a-dek');
      await store.insertKey(first, draft('key.create'));
      await expect(store.insertKey(key('a-dek'), draft('key.create'))).rejects.toMatchObject({
        code: 'KEY_EXISTS',
      });
      expect(await store.findKey('a-dek')).toEqual(first);
      expect(await allRecords(store)).toHaveLength(2);
    });

    test('knows no key that was not made', async () => {
      expect(await store.findKey('none')).toBeUndefined();
    });

    test('pages through keys by name, each once, only those that a glob matches', async () => {
      for (const one of ['c-dek', 'a-dek', 'other', 'b-dek', 'd-dek'])
        await store.insertKey(key(one), draft('key.create'));
      const names: string[] = [];
      for (let after: string | undefined, more = true; more; after = names.at(-1)) {
        const page = await store.listKeys(['*-dek'], { after, limit: 3 });
        names.push(...page.items.map((info) => info.name));
        more = page.more;
      }
      expect(names).toEqual(['a-dek', 'b-dek', 'c-dek', 'd-dek']);
      expect(await store.listKeys([], { limit: 3 })).toEqual({ items: [], more: false });
    });

    test('keeps every version of a key, and gives the current one unless another is asked for', async () => {
      const made = key('a-dek');
      await store.insertKey(made, draft('key.create'));
      await store.insertKey(key('b-dek'), draft('key.create'));
      const added = [keyVersion(made, 2), keyVersion(made, 3)] as const;
      for (const one of added) expect(await store.addKeyVersion(one, draft('key.rotate'))).toBe(true);
      await store.close();
      store = await place.open();
      const recordOf = ({ version, kcv, wrapped }: (typeof added)[number]) => ({
        info: { ...made.info, version, kcv },
        wrapped,
      });
      expect(await store.findKey('a-dek')).toEqual(recordOf(added[1]));
      expect(await store.findKey('a-dek', 1)).toEqual(made);
      expect(await store.findKey('a-dek', 2)).toEqual(recordOf(added[0]));
      expect(await store.findKey('a-dek', 3)).toEqual(recordOf(added[1]));
      for (const version of [0, 4, 1_000]) expect(await store.findKey('a-dek', version)).toBeUndefined();
      expect(await store.findKey('b-dek', 2)).toBeUndefined();
      expect(await store.findKey('none', 1)).toBeUndefined();
      const current = recordOf(added[1]).info;
      expect((await store.listKeys(['a-*'], { limit: 9 })).items).toEqual([current]);
      expect(await store.describeKey('none')).toBeUndefined();
      expect(await store.describeKey('a-dek')).toEqual({
        ...current,
        versions: [
          { version: 1, kcv: made.info.kcv, created_at: TIME },
          ...added.map(({ version, kcv }) => ({ version, kcv, created_at: LATER })),
        ],
      });
      expect((await store.counts()).keys).toBe(2);
    });

    test('adds no version but the next one, and writes nothing otherwise', async () => {
      const made = key('a-dek');
      await store.insertKey(made, draft('key.create'));
      const before = await store.auditHead();
      for (const version of [0, 1, 3])
        expect(await store.addKeyVersion(keyVersion(made, version), draft('key.rotate'))).toBe(false);
      expect(await store.addKeyVersion(keyVersion(key('none'), 2), draft('key.rotate'))).toBe(false);
      expect(await store.auditHead()).toEqual(before);
      expect(await store.findKey('a-dek')).toEqual(made);
    });

    test('lets one of several writers add the next version', async () => {
      const made = key('a-dek');
      await store.insertKey(made, draft('key.create'));
      const other = await place.open();
      await other.unlock(chainKey);
      try {
        const tries = Array.from({ length: 20 }, () => keyVersion(made, 2));
        const added = await Promise.all(
          tries.map((one, number) =>
            (number % 2 === 0 ? store : other).addKeyVersion(one, draft('key.rotate')),
          ),
        );
        expect(added.filter(Boolean)).toHaveLength(1);
        const winner = tries[added.indexOf(true)];
        for (const one of [store, other])
          expect(await one.findKey('a-dek')).toMatchObject({
            info: { version: 2, kcv: winner?.kcv },
            wrapped: winner?.wrapped,
          });
        expect((await allRecords(store)).filter(({ action }) => action === 'key.rotate')).toHaveLength(1);
      } finally {
        await other.close();
      }
    });

    test('sees its own writes after a page that was read in part', async () => {
      for (let number = 0; number < 5; number++)
        await store.insertKey(key(`k${number}`), draft('key.create'));
      await store.listKeys(['*'], { limit: 1 });
      await store.insertKey(key('k9'), draft('key.create'));
      expect(await store.findKey('k9')).toBeDefined();
      expect((await store.listKeys(['*'], { after: 'k8', limit: 1 })).items).toHaveLength(1);
    });

    test('remembers a further KEK once', async () => {
      const kek = { id: '8899aabbccddeeff', checkValue: 'cd' };
      expect(await store.addKek(kek, draft('kek.added'))).toBe(true);
      expect(await store.addKek(kek, draft('kek.added'))).toBe(false);
      expect((await store.readInstallation())?.keks).toEqual([...installation(1).keks, kek]);
      expect(await allRecords(store)).toHaveLength(2);
    });

    test('gives tokens back as they were put in, in the order of issue', async () => {
      const all = [token(), token(), token()] as const;
      for (const one of all) await store.insertToken(one, draft('token.issue'));
      expect(await store.findToken(all[1].jti)).toEqual(all[1]);
      const first = await store.listTokens({ limit: 2 });
      expect(first).toEqual({ items: all.slice(0, 2), more: true });
      expect(await store.listTokens({ after: all[1].jti, limit: 2 })).toEqual({
        items: [all[2]],
        more: false,
      });
      expect(await store.listTokens({ after: randomUUID(), limit: 2 })).toEqual({ items: [], more: false });
      expect(await store.findToken(randomUUID())).toBeUndefined();
    });

    test('revokes a whole family and no other', async () => {
      const [root, other] = [token(), token()];
      const child = token(root.jti);
      await store.insertToken(root, draft('token.issue'));
      await store.insertToken(other, draft('token.issue'));
      expect(await store.renewToken(root.jti, child, draft('token.renew'))).toBe(true);
      await store.revokeFamily(root.jti, TIME, draft('token.revoke'));
      expect((await store.findToken(root.jti))?.revoked_at).toBe(TIME);
      expect((await store.findToken(child.jti))?.revoked_at).toBe(TIME);
      expect((await store.findToken(other.jti))?.revoked_at).toBeUndefined();
      await store.revokeFamily(root.jti, '2027-01-01T00:00:00.000Z', draft('token.revoke'));
      expect((await store.findToken(root.jti))?.revoked_at).toBe(TIME);
    });

    test('renews no token that is revoked or unknown, and writes nothing then', async () => {
      const root = token();
      await store.insertToken(root, draft('token.issue'));
      await store.revokeFamily(root.jti, TIME, draft('token.revoke'));
      const before = await store.auditHead();
      expect(await store.renewToken(root.jti, token(root.jti), draft('token.renew'))).toBe(false);
      expect(await store.renewToken(randomUUID(), token(), draft('token.renew'))).toBe(false);
      expect(await store.auditHead()).toEqual(before);
      expect((await store.counts()).tokens).toBe(1);
    });

    test('forgets families of which every token expired, a number at a time, and says so in the chain', async () => {
      const expiring = (day: number, family?: string) => ({
        ...token(family),
        expires_at: `2026-04-0${day}T00:00:00.000Z`,
      });
      const gone = [expiring(1), expiring(2), expiring(2)];
      const parent = expiring(1);
      const kept = [parent, expiring(5, parent.family), expiring(3)];
      for (const one of [...gone, ...kept]) await store.insertToken(one, draft('token.issue'));
      const prune = () =>
        store.pruneTokens('2026-04-03T00:00:00.000Z', 2, draft('token.prune', { detail: { a: 1 } }));
      expect([await prune(), await prune(), await prune()]).toEqual([2, 1, 0]);
      for (const { jti } of gone) expect(await store.findToken(jti)).toBeUndefined();
      for (const one of kept) expect(await store.findToken(one.jti)).toEqual(one);
      const records = (await allRecords(store)).filter(({ action }) => action === 'token.prune');
      expect(records.map(({ detail }) => detail)).toEqual([
        { a: 1, count: 2 },
        { a: 1, count: 1 },
      ]);
    });

    test('lists the revoked tokens that have not expired, in pages', async () => {
      const tokens = [token(), token(), { ...token(), expires_at: TIME }, token(), token()];
      for (const one of tokens) await store.insertToken(one, draft('token.issue'));
      for (const { family } of tokens.slice(1))
        await store.revokeFamily(family, LATER, draft('token.revoke'));
      const jtis = async (after?: string) => {
        const { items, more } = await store.listRevoked('2026-01-02T00:00:00.000Z', { limit: 2, after });
        return [items.map(({ jti }) => jti), more];
      };
      expect(await jtis()).toEqual([[tokens[1]?.jti, tokens[3]?.jti], true]);
      expect(await jtis(tokens[3]?.jti)).toEqual([[tokens[4]?.jti], false]);
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
      expect(receipts.map((receipt) => receipt?.seq)).toEqual([2, 3, 4]);
      const records = await allRecords(store);
      expect(records[1]).toMatchObject(full);
      expect(records.map(({ hash }) => hash).slice(1)).toEqual(receipts.map((receipt) => receipt?.hash));
      expect(
        await verifyChain(
          chainKey,
          records,
          receipts.filter((receipt) => receipt !== undefined),
        ),
      ).toMatchObject({ intact: true });
      expect(await store.auditHead()).toEqual(receipts[2]);
    });

    test('leaves out a record whose token is revoked or unknown, and appends the others', async () => {
      const live = token();
      const revoked = token();
      for (const one of [live, revoked]) await store.insertToken(one, draft('token.issue'));
      await store.revokeFamily(revoked.family, '2026-03-01T00:00:00.000Z', draft('token.revoke'));
      const receipts = await store.appendAudit(
        [draft('live'), draft('revoked'), draft('unknown'), draft('none')],
        [live.jti, revoked.jti, randomUUID(), undefined],
      );
      expect(receipts.map((receipt) => receipt !== undefined)).toEqual([true, false, false, true]);
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
      const seqOf = (place: number) => receipts[place]?.seq;
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
      const [wanted] = await store.appendAudit([draft('key.export', { key: 'k' })]);
      const refused = draft('key.export', { key: 'k', outcome: 'refused' });
      for (let n = 0; n < 22; n++) await store.appendAudit(Array.from({ length: 500 }, () => refused));
      const first = await store.listExports('k', TIME, { limit: 10 });
      expect(first).toEqual({ items: [], next: expect.any(Number) });
      const second = await store.listExports('k', TIME, { limit: 10, before: first.next });
      expect(second.items.map(({ seq }) => seq)).toEqual([wanted?.seq]);
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
      expect(await actions({ key: 'm', exports: false })).toEqual(['key.rotate']);
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
        const seqs = (await Promise.all(writes)).flat().map((receipt) => receipt?.seq);
        expect(new Set(seqs).size).toBe(40);
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
        await expect(locked.insertKey(key('a-dek'), draft('key.create'))).rejects.toMatchObject(refused);
        await expect(locked.appendAudit([draft('a')])).rejects.toMatchObject(refused);
        expect(await store.findKey('a-dek')).toBeUndefined();
        await locked.unlock(chainKey);
        const made = key('a-dek');
        await locked.insertKey(made, draft('key.create'));
        const stillLocked = await place.open();
        const adding = stillLocked.addKeyVersion(keyVersion(made, 2), draft('key.rotate'));
        await expect(adding).rejects.toMatchObject(refused);
        await stillLocked.close();
        expect(await store.findKey('a-dek')).toEqual(made);
      } finally {
        await locked.close();
      }
    });

    test('counts, and probes without touching the chain', async () => {
      await store.insertKey(key('a-dek'), draft('key.create'));
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
          stores.map((store, mark) =>
            store.initialise(installation(mark), chainKey, draft('vault.initialised')),
          ),
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
