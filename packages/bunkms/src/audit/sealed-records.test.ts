import { createHash } from 'node:crypto';
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { AppError } from '@bundoc/shared/contract/app-error';
import { createLogger } from '@bundoc/shared/logs/logger';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { AuditDraft } from '../records/chain.ts';
import type { KmsStore } from '../store/port.ts';
import { SEALED_FILE_BYTES_MAX, SealedRecords } from './sealed-records.ts';

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

describe('records while sealed', () => {
  let folder: string;
  let path: string;
  let chain: Chain;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'bunkms-sealed-'));
    path = join(folder, 'sealed-records.jsonl');
    chain = new Chain();
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  const open = () => new SealedRecords({ dataDir: folder, clock, logger });
  async function adopt(): Promise<void> {
    await using sealed = open();
    await sealed.adopt(chain.store);
  }
  async function refuse(times: number, record: AuditDraft = draft): Promise<void> {
    await using sealed = open();
    for (let time = 0; time < times; time++) sealed.record(record);
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
    await adopt();
    expect(chain.records).toMatchObject([
      {
        severity: 'CRITICAL',
        action: 'records.adopted',
        outcome: 'allowed',
        detail: { sha256: hash, lines: 5, dropped: 0 },
      },
    ]);
    expect(readdirSync(folder)).toEqual([`sealed-records-${hash}.jsonl`]);
    expect(readFileSync(join(folder, `sealed-records-${hash}.jsonl`), 'utf8')).toBe(content);
    await adopt();
    expect(chain.records).toHaveLength(1);
  });

  it('are limited on disk, and counted beyond the limit', async () => {
    const long = { ...draft, source: 'x'.repeat(1_000) };
    await refuse(600, long);
    await refuse(600, long);
    const size = statSync(path).size;
    expect(size).toBeLessThanOrEqual(SEALED_FILE_BYTES_MAX);
    await adopt();
    const detail = chain.records[0]?.detail;
    expect(Number(detail?.['dropped'])).toBeGreaterThan(0);
    expect(Number(detail?.['lines']) + Number(detail?.['dropped'])).toBe(1_200);
  });

  it('are not lost when the chain cannot be written', async () => {
    await refuse(1);
    chain.failNext = true;
    await adopt();
    expect(chain.records).toEqual([]);
    expect(existsSync(path)).toBe(true);
  });

  it('enter the chain once when the process dies between the record and the rename', async () => {
    await refuse(2);
    const before = readFileSync(path);
    await adopt();
    for (const name of readdirSync(folder)) rmSync(join(folder, name));
    writeFileSync(path, before);
    await adopt();
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
    await adopt();
    expect(chain.records[0]?.detail).toMatchObject({ lines: 4 });
  });

  it('records of a second sealed period get their own file and summary, without a restart', async () => {
    await using sealed = open();
    for (const period of [1, 2]) {
      for (let time = 0; time < period; time++) sealed.record(draft);
      // Adopts what is written by then, and the rest with the next call.
      await expect
        .poll(async () => {
          await sealed.adopt(chain.store);
          return chain.records.length;
        })
        .toBe(period);
      expect(chain.records.at(-1)).toMatchObject({ detail: { lines: period, dropped: 0 } });
    }
    expect(readdirSync(folder)).toHaveLength(2);
  });

  it('are counted while their file cannot be made, and kept again later', async () => {
    mkdirSync(path);
    await refuse(2);
    await using sealed = open();
    sealed.record(draft);
    await sealed.adopt(chain.store);
    rmdirSync(path);
    sealed.record(draft);
    await expect
      .poll(async () => {
        await sealed.adopt(chain.store);
        return chain.records.map(({ detail }) => detail);
      })
      .toMatchObject([{ lines: 1, dropped: 1 }]);
  });

  it('stay in their file while the database is not trusted', async () => {
    await refuse(1);
    const sealedStore = {
      appendAuditOnce: () => Promise.reject(new AppError('sealed')),
    } as unknown as KmsStore;
    await using sealed = open();
    await sealed.adopt(sealedStore);
    sealed.record(draft);
    await sealed.adopt(chain.store);
    await expect
      .poll(async () => {
        await sealed.adopt(chain.store);
        return chain.records.map(({ detail }) => detail?.['lines']);
      })
      .toEqual([2]);
  });

  it('leave no record in the chain when there are none', async () => {
    await refuse(0);
    await adopt();
    expect(chain.records).toEqual([]);
    expect(readdirSync(folder)).toEqual([]);
    await adopt();
  });
});
