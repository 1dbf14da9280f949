import { createSecretKey, randomBytes } from 'node:crypto';
import type { AuditRecord } from '@bundoc/shared/contract/audit';
import { createLogger } from '@bundoc/shared/logs/logger';
import { describe, expect, it } from 'vitest';
import { GENESIS, nextRecord } from '../records/chain.ts';
import type { KmsStore } from '../store/port.ts';
import { LINKS_MAX } from '../store/trust.ts';
import { StoreTrust } from './store-trust.ts';

const logger = createLogger({ service: 'bunkms', level: 'silent' });
const metrics = {
  sealed: { set: () => undefined },
  storeFaults: { reset: () => undefined, set: () => undefined },
};

/** A store with a long chain, of which only these methods are needed. */
function storeOf(head: number, isGenuine: boolean) {
  const chainKey = createSecretKey(randomBytes(32));
  const draft = { time: '', severity: 'INFO', action: 'key.read', outcome: 'allowed' } as const;
  const recordAt = (seq: number) => {
    const record = nextRecord(chainKey, { seq: seq - 1, hash: GENESIS.hash }, draft);
    return isGenuine ? record : { ...record, action: 'key.list' };
  };
  const store = {
    auditHead: async () => recordAt(head),
    recordsAt: async (seqs: readonly number[]) => seqs.map(recordAt),
    brokenLink: async () => undefined,
    listAudit: async () => ({ items: [], more: false }),
    latestRestore: async () => undefined,
    foreignObjects: async () => [],
    expectHead: async () => undefined,
  };
  return { store: store as unknown as KmsStore, chainKey };
}

describe('the first check of a long chain', () => {
  const head = LINKS_MAX + 5_000;

  it('seals at once when the record where it begins is changed', async () => {
    const { store, chainKey } = storeOf(head, false);
    const trust = new StoreTrust({ store, logger, metrics });
    trust.unlock(chainKey);
    await trust.check();
    expect(trust.faults).toEqual([`record ${head - 1_000} of the audit chain is changed`]);
  });

  it('accepts what is before that record', async () => {
    const { store, chainKey } = storeOf(head, true);
    const trust = new StoreTrust({ store, logger, metrics });
    trust.unlock(chainKey);
    await trust.check();
    expect(trust.faults).toEqual([]);
  });
});

describe('a record that somebody plants at the end of the chain', () => {
  it.each([
    ['while it is there', (last: AuditRecord) => [last]],
    ['when it is removed while the chain is checked', () => []],
  ])('seals %s, and no longer once it is gone', async (_, recordsAt) => {
    const { store, chainKey } = storeOf(100, true);
    const trust = new StoreTrust({ store, logger, metrics });
    trust.unlock(chainKey);
    const { auditHead, recordsAt: honest } = store;
    const [last] = await honest([2]);
    if (last === undefined) throw new Error('the chain has a record 2');
    store.auditHead = async () => ({ seq: 900, hash: last.hash });
    store.recordsAt = async (seqs) => (seqs.includes(900) ? recordsAt({ ...last, seq: 900 }) : honest(seqs));
    await trust.check();
    expect(trust.faults).toEqual([expect.stringMatching(/^record 900 of the audit chain is/)]);
    Object.assign(store, {
      auditHead,
      recordsAt: async (seqs: number[]) => honest(seqs.filter((seq) => seq <= 100)),
    });
    await trust.check();
    expect(trust.faults).toEqual([]);
  });
});
