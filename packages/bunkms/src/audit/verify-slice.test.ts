import { createSecretKey, randomBytes } from 'node:crypto';
import type { AuditRecord } from '@bundoc/shared/contract/audit';
import { describe, expect, it } from 'vitest';
import { GENESIS, nextRecord } from '../records/chain.ts';
import { verifySlice } from './verify-slice.ts';

const chainKey = createSecretKey(randomBytes(32));

function chainOf(length: number): AuditRecord[] {
  const records: AuditRecord[] = [];
  let head = GENESIS;
  for (let at = 0; at < length; at++) {
    const record = nextRecord(chainKey, head, {
      time: new Date(at * 1_000).toISOString(),
      severity: 'INFO',
      action: 'key.list',
      outcome: 'allowed',
    });
    records.push(record);
    head = record;
  }
  return records;
}

/** A store with these records that reports how many were requested at once. */
function portsOf(records: readonly AuditRecord[]) {
  const asked: number[] = [];
  const listAudit = async ({ after = 0, limit }: { after?: number | undefined; limit: number }) => {
    asked.push(limit);
    const rest = records.filter(({ seq }) => seq > after);
    return { items: rest.slice(0, limit), more: rest.length > limit };
  };
  return { asked, ports: { chainKey, store: { listAudit } } as unknown as Parameters<typeof verifySlice>[0] };
}

const placeOf = (record: AuditRecord | undefined) => ({ seq: record?.seq ?? 0, hash: record?.hash ?? '' });

describe('the verification of the audit chain in slices', () => {
  it('covers the chain from start to end, with no slice beyond its limit and each record checked once', async () => {
    const records = chainOf(2_345);
    const { asked, ports } = portsOf(records);
    let after: { seq: number; hash: string } | undefined;
    let checked = 0;
    for (let slices = 1; ; slices++) {
      const slice = await verifySlice(ports, { after, receipt: placeOf(records[1_999]), limit: 1_000 });
      if (!slice.intact) throw new Error(slice.fault.reason);
      expect(slice.checked).toBeLessThanOrEqual(1_000);
      checked += slice.checked;
      after = slice.head;
      if (!slice.complete) continue;
      expect([slices, checked, slice.head]).toEqual([3, 2_345, placeOf(records.at(-1))]);
      break;
    }
    expect(Math.max(...asked)).toBeLessThanOrEqual(250);
  });

  it('names the first record that was changed', async () => {
    const records = chainOf(600);
    records[420] = { ...records[420], actor: 'nobody' } as AuditRecord;
    const { ports } = portsOf(records);
    expect(await verifySlice(ports, { limit: 1_000 })).toEqual({
      intact: false,
      checked: 420,
      fault: { seq: 421, reason: 'changed' },
    });
  });

  it('detects a removed record, and an end that was cut off before a receipt', async () => {
    const records = chainOf(10);
    const receipt = placeOf(records[9]);
    const without = portsOf(records.filter(({ seq }) => seq !== 4)).ports;
    expect(await verifySlice(without, { limit: 100 })).toMatchObject({
      fault: { seq: 4, reason: 'missing' },
    });
    const cut = portsOf(records.slice(0, 8)).ports;
    expect(await verifySlice(cut, { limit: 100 })).toMatchObject({ intact: true, complete: true });
    expect(await verifySlice(cut, { receipt, limit: 100 })).toMatchObject({
      fault: { seq: 9, reason: 'missing' },
    });
  });

  it('detects a receipt of another chain', async () => {
    const { ports } = portsOf(chainOf(10));
    const receipt = { seq: 5, hash: '0'.repeat(64) };
    const reason = 'not the record of the receipt';
    expect(await verifySlice(ports, { receipt, limit: 100 })).toMatchObject({ fault: { seq: 5, reason } });
  });

  it('refuses a made-up place to continue from', async () => {
    const { ports } = portsOf(chainOf(10));
    const after = { seq: 5, hash: 'f'.repeat(64) };
    expect(await verifySlice(ports, { after, limit: 100 })).toMatchObject({
      intact: false,
      fault: { seq: 6 },
    });
    const behind = { seq: 5, hash: '0'.repeat(64) };
    expect(await verifySlice(ports, { after: behind, limit: 100 })).toMatchObject({ intact: false });
  });

  it('detects a chain that was cut off before the place to continue from', async () => {
    const records = chainOf(10);
    const after = placeOf(records[8]);
    const cut = portsOf(records.slice(0, 7)).ports;
    expect(await verifySlice(cut, { after, limit: 100 })).toMatchObject({
      intact: false,
      fault: { seq: 9, reason: 'missing' },
    });
    const end = placeOf(records[9]);
    expect(await verifySlice(portsOf(records).ports, { after: end, limit: 100 })).toMatchObject({
      intact: true,
      checked: 0,
      complete: true,
    });
  });

  it('checks a receipt for a record before the place to continue from', async () => {
    const records = chainOf(10);
    const after = placeOf(records[6]);
    const { ports } = portsOf(records);
    const receipt = placeOf(records[3]);
    expect(await verifySlice(ports, { after, receipt, limit: 100 })).toMatchObject({ intact: true });
    const reason = 'not the record of the receipt';
    const forged = { ...receipt, hash: '0'.repeat(64) };
    expect(await verifySlice(ports, { after, receipt: forged, limit: 100 })).toMatchObject({
      fault: { seq: 4, reason },
    });
  });

  it('treats an empty chain as one that was emptied', async () => {
    expect(await verifySlice(portsOf([]).ports, { limit: 100 })).toMatchObject({
      fault: { seq: 1, reason: 'missing' },
    });
  });
});
