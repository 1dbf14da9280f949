import { AppError } from '@bundoc/shared/contract/app-error';
import type { AuditReceipt } from '@bundoc/shared/contract/keys';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { beforeEach, describe, expect, it } from 'vitest';
import type { AuditDraft } from '../records/chain.ts';
import type { AuditCondition } from '../store/audit.ts';
import { type KeyUse, KeyUses } from './key-uses.ts';

const CONDITION: AuditCondition = {
  jti: 'j',
  key: { id: 'id', revision: 1, versionDigests: new Uint8Array() },
};

/** An audit log whose appends end when the test ends them. */
class SlowLog {
  readonly appended: { readonly draft: AuditDraft; readonly condition: AuditCondition | undefined }[] = [];
  readonly detached: AuditDraft[] = [];
  readonly #open: PromiseWithResolvers<AuditReceipt>[] = [];

  append(draft: AuditDraft, condition?: AuditCondition): Promise<AuditReceipt> {
    this.appended.push({ draft, condition });
    const turn = Promise.withResolvers<AuditReceipt>();
    this.#open.push(turn);
    return turn.promise;
  }
  appendInBackground(draft: AuditDraft): void {
    this.detached.push(draft);
  }
  commit(): void {
    for (const turn of this.#open.splice(0)) turn.resolve({ seq: 1, hash: '' });
  }
  fail(error: AppError): void {
    for (const turn of this.#open.splice(0)) turn.reject(error);
  }
}

describe('uses of keys', () => {
  let clock: FakeClock;
  let log: SlowLog;
  let uses: KeyUses;
  beforeEach(() => {
    clock = new FakeClock();
    log = new SlowLog();
    uses = new KeyUses({ audit: log, clock });
  });

  const useOf = (more: Partial<KeyUse> = {}): KeyUse => ({
    action: 'key.encrypt',
    caller: { actor: 'app', jti: 'j', source: '192.0.2.1', request_id: 'r' },
    key: 'a-dek',
    keyId: 'id',
    version: 1,
    ...more,
  });
  const record = (count: number, more: Partial<KeyUse> = {}) => uses.record(useOf(more), count, CONDITION);
  const covered = async (count: number, more: Partial<KeyUse> = {}) => {
    const written = record(count, more);
    log.commit();
    await written;
  };
  const counts = () => log.detached.map(({ detail }) => detail?.['count']);

  it('wait for the first record that covers them, and later ones wait for none', async () => {
    const first = record(3);
    let isCovered = false;
    const second = record(4)?.then(() => {
      isCovered = true;
    });
    await Promise.resolve();
    expect(isCovered).toBe(false);
    log.commit();
    await Promise.all([first, second]);
    expect(record(5)).toBeUndefined();
    expect(log.appended).toMatchObject([
      {
        draft: { actor: 'app', source: '192.0.2.1', request_id: 'r', detail: { key_id: 'id', count: 3 } },
        condition: CONDITION,
      },
    ]);
    clock.advance(60_000);
    uses.minutes.sweep();
    expect(log.detached).toMatchObject([
      { action: 'key.encrypt', actor: 'app', jti: 'j', key: 'a-dek', version: 1, detail: { count: 9 } },
    ]);
    // Several addresses and requests share it.
    expect(log.detached[0]).not.toHaveProperty('source');
    expect(log.detached[0]).not.toHaveProperty('request_id');
  });

  it('fail with the record that should cover them, and the next use starts a new one', async () => {
    const waiting = [record(1), record(1)];
    log.fail(new AppError('audit_unavailable'));
    for (const one of waiting) await expect(one).rejects.toMatchObject({ code: 'audit_unavailable' });
    await covered(2);
    expect(log.appended.map(({ draft }) => draft.detail?.['count'])).toEqual([1, 2]);
    uses.minutes.flush();
    expect(log.detached).toEqual([]);
  });

  it('uses of keys of another minute, token, action, key, version or former version have a separate record', async () => {
    await covered(1);
    for (const more of [
      { action: 'key.decrypt' },
      { keyId: 'other' },
      { version: 2 },
      { fromVersion: 2 },
      { caller: { actor: 'app', jti: 'k' } },
    ])
      await covered(1, more);
    expect(log.appended).toHaveLength(6);
    expect(log.appended[4]?.draft.detail).toMatchObject({ from_version: 2 });
    clock.advance(60_000);
    await covered(1);
    expect(log.appended).toHaveLength(7);
    expect(counts()).toEqual([]);
  });

  it('are all recorded when there are more kinds than are counted at a time, and at a shutdown', async () => {
    for (let version = 1; version <= 4_096; version++) void record(1, { version });
    log.commit();
    await new Promise(setImmediate);
    for (let version = 1; version <= 4_096; version++) expect(record(version, { version })).toBeUndefined();
    // A token with all the room gets a record for each further use.
    await covered(1, { version: 5_000 });
    await covered(1, { version: 5_000 });
    expect([log.appended.length, counts()]).toEqual([4_098, []]);
    // Another one gets room from it.
    const other = { caller: { actor: 'other', jti: 'k' } };
    await covered(1, other);
    expect(counts()).toEqual([1]);
    expect(record(1, other)).toBeUndefined();
    uses.minutes.flush();
    const recorded = log.appended.map(({ draft }) => draft).concat(log.detached);
    const sum = recorded.reduce((all, { detail }) => all + Number(detail?.['count']), 0);
    expect(sum).toBe(4_096 + (4_096 * 4_097) / 2 + 4);
  });

  it('uses of keys that wait for a record whose kind is evicted are counted in a new record', async () => {
    const first = record(1);
    const second = record(2);
    uses.minutes.flush();
    log.commit();
    await first;
    await new Promise(setImmediate);
    log.commit();
    await second;
    expect(log.appended.map(({ draft }) => draft.detail?.['count'])).toEqual([1, 2]);
  });
});
