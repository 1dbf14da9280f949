import { createHash } from 'node:crypto';
import {
  appendFileSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createLogger } from '@bundoc/shared/runtime/logger';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { AuditDraft } from '../records/chain.ts';
import type { KmsStore } from '../store/port.ts';
import { adoptSealedRefusals, SEALED_FILE_BYTES_MAX, SealedRefusals } from './sealed-refusals.ts';

const logger = createLogger({ service: 'bunkms', level: 'silent' });
const clock = new FakeClock();
const draft: AuditDraft = {
  time: '2026-01-01T00:00:00.000Z',
  severity: 'CRITICAL',
  action: 'key.export',
  outcome: 'failed',
  key: 'a-dek',
  code: 'sealed',
};

/** The only method of the store that is needed, over an array. */
class Chain {
  readonly records: AuditDraft[] = [];
  readonly store = { appendAuditOnce: (record: AuditDraft) => this.#append(record) } as unknown as KmsStore;
  failNext = false;

  async #append(record: AuditDraft): Promise<boolean> {
    if (this.failNext) throw new Error('the store fails');
    const isKnown = this.records.some((one) => JSON.stringify(one.detail) === JSON.stringify(record.detail));
    if (!isKnown) this.records.push(record);
    return !isKnown;
  }
}

describe('refusals while sealed', () => {
  let folder: string;
  let path: string;
  let chain: Chain;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'bunkms-sealed-'));
    path = join(folder, 'sealed-refusals.jsonl');
    chain = new Chain();
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  async function refuse(times: number, record: AuditDraft = draft): Promise<void> {
    await using refusals = await SealedRefusals.open(folder, logger);
    for (let time = 0; time < times; time++) refusals.record(record);
  }
  const sha256 = () => createHash('sha256').update(readFileSync(path)).digest('hex');

  it('enter the chain as one CRITICAL record with the hash of their file, and the file is kept', async () => {
    await refuse(3);
    await refuse(2);
    expect(statSync(path).mode & 0o777).toBe(0o600);
    const hash = sha256();
    const content = readFileSync(path, 'utf8');
    expect(
      content
        .trim()
        .split('\n')
        .slice(1)
        .map((line) => JSON.parse(line) as unknown),
    ).toEqual(Array(5).fill(draft));
    await adoptSealedRefusals(folder, chain.store, clock);
    expect(chain.records).toMatchObject([
      {
        severity: 'CRITICAL',
        action: 'key.export',
        outcome: 'failed',
        detail: { sha256: hash, lines: 5, dropped: 0 },
      },
    ]);
    expect(readdirSync(folder)).toEqual([`sealed-refusals-${hash}.jsonl`]);
    expect(readFileSync(join(folder, `sealed-refusals-${hash}.jsonl`), 'utf8')).toBe(content);
    await adoptSealedRefusals(folder, chain.store, clock);
    expect(chain.records).toHaveLength(1);
  });

  it('are limited on disk, and counted beyond the limit', async () => {
    const long = { ...draft, source: 'x'.repeat(1_000) };
    await refuse(600, long);
    await refuse(600, long);
    const size = statSync(path).size;
    expect(size).toBeLessThanOrEqual(SEALED_FILE_BYTES_MAX);
    await adoptSealedRefusals(folder, chain.store, clock);
    const detail = chain.records[0]?.detail;
    expect(Number(detail?.['dropped'])).toBeGreaterThan(0);
    expect(Number(detail?.['lines']) + Number(detail?.['dropped'])).toBe(1_200);
  });

  it('are not lost when the chain cannot be written', async () => {
    await refuse(1);
    chain.failNext = true;
    await expect(adoptSealedRefusals(folder, chain.store, clock)).rejects.toThrow();
    expect(existsSync(path)).toBe(true);
  });

  it('enter the chain once when the process dies between the record and the rename', async () => {
    await refuse(2);
    const before = readFileSync(path);
    await adoptSealedRefusals(folder, chain.store, clock);
    for (const name of readdirSync(folder)) rmSync(join(folder, name));
    writeFileSync(path, before);
    await adoptSealedRefusals(folder, chain.store, clock);
    expect(chain.records).toHaveLength(1);
    expect(existsSync(path)).toBe(false);
  });

  it('continue after a line that a crash cut short, which is counted too', async () => {
    await refuse(1);
    appendFileSync(path, '{"time":"20');
    await refuse(1);
    const lines = readFileSync(path, 'utf8').trim().split('\n');
    expect(lines).toHaveLength(4);
    expect(JSON.parse(String(lines[3]))).toEqual(draft);
    appendFileSync(path, '{');
    await adoptSealedRefusals(folder, chain.store, clock);
    expect(chain.records[0]?.detail).toMatchObject({ lines: 4 });
  });

  it('leave no record in the chain when there are none', async () => {
    await refuse(0);
    await adoptSealedRefusals(folder, chain.store, clock);
    expect(chain.records).toEqual([]);
    expect(readdirSync(folder)).toEqual([]);
    await adoptSealedRefusals(folder, chain.store, clock);
  });
});
