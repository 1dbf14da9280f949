import { randomUUID } from 'node:crypto';
import type { AuditRecord } from '@bundoc/shared/contract/audit';
import { defined } from '@bundoc/shared/contract/defined';
import { describe, expect, it } from 'vitest';
import { verifyChain } from '../../records/chain.ts';
import type { KmsStore } from '../port.ts';
import { chainKey, draft, issueOf, revocationOf, TIME, token } from './data.ts';
import { allRecords, type MakePlace, type StorePlace, withStore } from './place.ts';

/** The tests that every {@link KmsStore} must pass for the audit chain. Call it in a test file. */
export function auditConformance(name: string, makePlace: MakePlace): void {
  describe(`${name} as a KmsStore of audit records`, () => {
    let store: KmsStore;
    let place: StorePlace;
    withStore(makePlace, (opened, at) => {
      store = opened;
      place = at;
    });

    it('appends records in order, with receipts of their places, to one unbroken chain', async () => {
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

    it('leaves out a record whose token is revoked or unknown, and appends the others', async () => {
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

    it('appends a record once for the same action and detail', async () => {
      const record = draft('adopt', { detail: { sha256: 'ab', lines: 3 } });
      expect(await store.appendAuditOnce(record)).toBe(true);
      expect(await store.appendAuditOnce({ ...record, time: '2027-01-01T00:00:00.000Z' })).toBe(false);
      expect(await store.appendAuditOnce({ ...record, detail: { sha256: 'cd', lines: 3 } })).toBe(true);
    });

    it('lists the allowed exports of a key since a time in pages, newest first', async () => {
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

    it('lists the allowed uses of a key inside the service since a time in pages, newest first', async () => {
      const at = (minute: number) => `2026-03-01T00:0${minute}:00.000Z`;
      const used = (minute: number, action: string, more: object = {}) =>
        draft(action, { time: at(minute), key: 'k', ...more });
      await store.appendAudit([
        used(1, 'key.encrypt'),
        used(2, 'key.encrypt'),
        used(3, 'key.decrypt'),
        used(4, 'key.decrypt', { key: 'other' }),
        used(5, 'key.decrypt', { outcome: 'refused' }),
        used(6, 'key.export'),
        used(7, 'key.leases'),
        used(8, 'key.rewrap'),
      ]);
      const actions = (page: { readonly items: readonly AuditRecord[] }) =>
        page.items.map(({ action }) => action);
      const first = await store.listInnerUses('k', at(2), { limit: 2 });
      expect(actions(first)).toEqual(['key.rewrap', 'key.decrypt']);
      const second = await store.listInnerUses('k', at(2), { limit: 2, ...defined({ before: first.next }) });
      expect([actions(second), second.next]).toEqual([['key.encrypt'], undefined]);
    });

    it('has the newest records of a key, newest first', async () => {
      await store.appendAudit(['a', 'b', 'c'].map((action) => draft(action, { key: 'k' })));
      await store.appendAudit([draft('d', { key: 'other' }), draft('e', { key: 'k' })]);
      const actions = async (key: string, limit: number) =>
        (await store.newestRecords(key, limit)).map(({ action }) => action);
      expect(await actions('k', 3)).toEqual(['e', 'c', 'b']);
      expect(await actions('other', 3)).toEqual(['d']);
      expect(await actions('unknown', 3)).toEqual([]);
    });

    it('reads a bounded number of records for one page of exports, and the next page continues after them', async () => {
      await store.appendAudit([draft('key.export', { key: 'k' })]);
      const wanted = await store.auditHead();
      const refused = draft('key.export', { key: 'k', outcome: 'refused' });
      for (let n = 0; n < 22; n++) await store.appendAudit(Array.from({ length: 500 }, () => refused));
      const first = await store.listExports('k', TIME, { limit: 10 });
      expect(first).toEqual({ items: [], next: expect.any(Number) });
      const second = await store.listExports('k', TIME, { limit: 10, before: first.next });
      expect(second.items.map(({ seq }) => seq)).toEqual([wanted.seq]);
    });

    it('lists the records that match every given filter, in pages', async () => {
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

    it('appends the records of two writers to one unbroken chain', async () => {
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
  });
}
