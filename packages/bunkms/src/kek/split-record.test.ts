import { createSecretKey, randomBytes } from 'node:crypto';
import type { AuditRecord } from '@bundoc/shared/contract/audit';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { describe, expect, it } from 'vitest';
import { CLI_CALLER } from '../records/caller.ts';
import { GENESIS, nextRecord } from '../records/chain.ts';
import { newestSplit, splitDraft } from './split-record.ts';

const chainKey = createSecretKey(randomBytes(32));
const clock = new FakeClock();

/** The newest split of a chain with these splits. */
async function newestOf(
  splits: readonly (readonly [id: string, outcome: 'allowed' | 'failed'])[],
  change: (records: AuditRecord[]) => void = () => undefined,
) {
  const records: AuditRecord[] = [];
  for (const [id, outcome] of splits) {
    const draft = splitDraft({ clock }, CLI_CALLER, { id, shares: 5, threshold: 3 }, [`${id}-kek`], outcome);
    records.push(nextRecord(chainKey, records.at(-1) ?? GENESIS, draft));
  }
  change(records);
  const listAudit = async ({ after = 0 }) => ({
    items: records.filter(({ seq }) => seq === after + 1),
    more: after + 1 < records.length,
  });
  return (await newestSplit({ store: { listAudit }, chainKey }))?.id;
}

describe('the newest split', () => {
  it('is that of the last record on any page, and none without a record', async () => {
    expect(await newestOf([])).toBeUndefined();
    const splits = [
      ['a', 'allowed'],
      ['b', 'allowed'],
      ['c', 'allowed'],
    ] as const;
    expect(await newestOf(splits)).toBe('c');
  });

  it('is the one before a split that has left no shares', async () => {
    const splits = [
      ['a', 'allowed'],
      ['b', 'allowed'],
      ['b', 'failed'],
    ] as const;
    expect(await newestOf(splits)).toBe('a');
    expect(await newestOf(splits.slice(1))).toBeUndefined();
  });

  it('is never that of a record which is not genuine', async () => {
    const splits = [
      ['a', 'allowed'],
      ['b', 'allowed'],
    ] as const;
    const forge = (records: AuditRecord[]) => {
      const last = records.at(-1) as AuditRecord;
      records[1] = { ...last, detail: { ...last.detail, kek_ids: 'another' } };
    };
    expect(await newestOf(splits, forge)).toBe('a');
  });
});
