import { Writable } from 'node:stream';
import { AppError } from '@bundoc/shared/contract/app-error';
import { createLogger } from '@bundoc/shared/logs/logger';
import { beforeEach, describe, expect, it } from 'vitest';
import { createMetrics } from '../metrics.ts';
import type { AuditDraft } from '../records/chain.ts';
import { AuditLog } from './log.ts';

const draft = (action: string): AuditDraft => ({
  time: '2026-01-01T00:00:00.000Z',
  severity: 'CRITICAL',
  action,
  outcome: 'allowed',
  key: 'some-dek',
});

/** A store whose transactions end when the test ends them. */
class SlowStore {
  readonly batches: (readonly AuditDraft[])[] = [];
  readonly #open: PromiseWithResolvers<void>[] = [];
  #seq = 0;

  async appendAudit(records: readonly AuditDraft[]) {
    this.batches.push(records);
    const turn = Promise.withResolvers<void>();
    this.#open.push(turn);
    await turn.promise;
    return records.map(({ action }) => ({ seq: ++this.#seq, hash: action }));
  }
  commit(): void {
    this.#open.shift()?.resolve();
  }
  fail(): void {
    this.#open.shift()?.reject(new AppError('disk_full'));
  }
}

describe('the audit log', () => {
  let store: SlowStore;
  let audit: AuditLog;
  let lines: string[];
  const metrics = createMetrics();

  beforeEach(() => {
    store = new SlowStore();
    lines = [];
    const destination = new Writable({
      write: (chunk, _encoding, done) => {
        lines.push(String(chunk));
        done();
      },
    });
    audit = new AuditLog({
      store,
      metrics,
      logger: createLogger({ service: 'bunkms', level: 'info', destination }),
    });
  });

  it('writes records that arrive during a transaction together in the next one, and gives each its own receipt', async () => {
    const first = audit.append(draft('0'));
    const others = Array.from({ length: 100 }, (_, number) => audit.append(draft(String(number + 1))));
    store.commit();
    expect(await first).toEqual({ seq: 1, hash: '0' });
    await new Promise(setImmediate);
    store.commit();
    expect(await Promise.all(others)).toEqual(
      others.map((_, number) => ({ seq: number + 2, hash: String(number + 1) })),
    );
    expect(store.batches.map((batch) => batch.length)).toEqual([1, 100]);
  });

  it('resolves no append before its transaction has ended', async () => {
    let isDone = false;
    const append = audit.append(draft('a')).then(() => {
      isDone = true;
    });
    await new Promise(setImmediate);
    expect(isDone).toBe(false);
    store.commit();
    await append;
  });

  it('fails the records of a failed transaction, and continues with the following ones', async () => {
    const lost = audit.append(draft('lost'));
    const next = audit.append(draft('next'));
    store.fail();
    await expect(lost).rejects.toMatchObject({ code: 'audit_unavailable', cause: { code: 'disk_full' } });
    expect(audit.failing).toBe(true);
    store.commit();
    expect(await next).toMatchObject({ hash: 'next' });
    expect(audit.failing).toBe(false);
  });

  it('refuses a record at once when too many wait', async () => {
    const waiting = Array.from({ length: 4_097 }, (_, number) => audit.append(draft(String(number))));
    await expect(audit.append(draft('too many'))).rejects.toMatchObject({ code: 'audit_unavailable' });
    for (const _ of Array(20)) {
      store.commit();
      await new Promise(setImmediate);
    }
    await Promise.all(waiting);
  });

  it('logs and counts a lost record that nobody waits for', async () => {
    audit.appendInBackground(draft('gone'));
    store.fail();
    await audit.drain();
    await new Promise(setImmediate);
    expect(lines).toHaveLength(1);
    expect(JSON.parse(String(lines[0]))).toMatchObject({
      level: 'error',
      keyName: 'some-dek',
      record: { action: 'gone' },
    });
    expect(await metrics.registry.getSingleMetricAsString('bunkms_audit_records_lost_total')).toContain(
      'total 1',
    );
  });

  it('is drained once all appended records are written', async () => {
    const append = audit.append(draft('a'));
    const drained = audit.drain();
    store.commit();
    await drained;
    await append;
    await audit.drain();
  });
});
