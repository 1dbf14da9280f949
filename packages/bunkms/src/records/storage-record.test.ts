import { createSecretKey, randomBytes, randomUUID } from 'node:crypto';
import { TAKEN_OVER_MS_MAX } from '@bundoc/shared/contract/storages';
import { describe, expect, it } from 'vitest';
import { recordHash } from './chain.ts';
import { storageIn, takeOverTime } from './storage-record.ts';

describe('the record of a storage', () => {
  it('of an earlier build has a count of take-overs in place of a time', () => {
    const chainKey = createSecretKey(randomBytes(32));
    const id = randomUUID();
    const record = {
      ...{ seq: 7, prev_hash: '0'.repeat(64), time: '2026-01-01T00:00:00.000Z', actor: 'admin' },
      ...({ severity: 'CRITICAL', action: 'storage.take_over', outcome: 'allowed' } as const),
      detail: { storage: id, take_overs: 3 },
    };
    const hash = recordHash(chainKey, record.prev_hash, record.seq, record);
    const state = storageIn(chainKey, id, { ...record, hash });
    expect(state).toMatchObject({ id, generation: null, takenOverMs: 3 });
    expect(takeOverTime(3, 1_000)).toBe(1_000);
    expect(takeOverTime(1_000, 3)).toBeGreaterThan(1_000);
    // A later one would be refused by every Bundoc, for good.
    expect(takeOverTime(0, Number.MAX_SAFE_INTEGER)).toBe(TAKEN_OVER_MS_MAX);
  });
});
