import { createSecretKey, randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { AuditRecord } from '@bundoc/shared/contract/audit';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { formatLine } from '../audit/ship/shipper.ts';
import { type ChainHead, GENESIS, nextRecord } from '../records/chain.ts';
import { readAuditCopy } from './audit-copy.ts';
import { DamagedFile } from './errors.ts';

const chainKey = createSecretKey(randomBytes(32));
const folder = mkdtempSync(join(tmpdir(), 'bunkms-copy-'));
afterAll(() => rmSync(folder, { recursive: true }));

let files = 0;
function fileOf(lines: readonly string[]): string {
  const path = join(folder, `${++files}`);
  writeFileSync(path, lines.join(''));
  return path;
}

/** Records that follow `head`. */
function chain(count: number, head: ChainHead = GENESIS, actor = 'x'): AuditRecord[] {
  const records: AuditRecord[] = [];
  for (let n = 0; n < count; n++) {
    const action = n % 3 === 0 ? 'key.export' : 'key.disable';
    records.push(
      nextRecord(chainKey, records.at(-1) ?? head, {
        time: '2026-01-01T00:00:00.000Z',
        severity: 'INFO',
        action,
        outcome: 'allowed',
        actor,
        key: `k${n}`,
        detail: { revision: n },
      }),
    );
  }
  return records;
}

async function read(paths: readonly string[], base: ChainHead): Promise<AuditRecord[]> {
  const copy = await readAuditCopy(paths, chainKey, base);
  const records: AuditRecord[] = [];
  for await (const record of copy.records()) records.push(record);
  expect(copy.head).toEqual(headOf(records, base));
  expect(copy.notable).toEqual(records.filter(({ action }) => action !== 'key.export'));
  for (const { seq, hash } of records) expect(copy.hashAt(seq)).toBe(hash);
  expect([copy.hashAt(base.seq), copy.hashAt(copy.head.seq + 1)]).toEqual([undefined, undefined]);
  return records;
}

function headOf(records: readonly AuditRecord[], base: ChainHead): ChainHead {
  const { seq, hash } = records.at(-1) ?? base;
  return { seq, hash };
}

const refusal = (reason: RegExp) =>
  expect.objectContaining({ name: 'DamagedFile', message: expect.stringMatching(reason) });

const records = chain(24);
const base = records[9]!;

describe('a copy of the audit chain', () => {
  it('gives the records after the backup, despite duplicates, torn lines and log lines, and however it is split into files', async () => {
    const noise = fc.constantFrom(
      '{"format":"bunkms/audit/v1","seq":3,"ti\n',
      '\n',
      'no json\n',
      '{"level":"info","msg":"x"}\n',
      'null\n',
    );
    await fc.assert(
      fc.asyncProperty(
        fc.nat(10),
        fc.array(fc.tuple(fc.nat(12), fc.nat(6)), { maxLength: 5 }),
        fc.array(fc.tuple(fc.nat(40), noise), { maxLength: 6 }),
        fc.array(fc.nat(40), { maxLength: 3 }),
        async (start, crashes, noises, cuts) => {
          let lines: string[] = [];
          let place = start;
          // After a crash the last records are repeated.
          for (const [forward, back] of [...crashes, [24, 0] as const]) {
            lines.push(...records.slice(place, place + forward).map(formatLine));
            place = Math.max(start, Math.min(24, place + forward) - back);
          }
          for (const [at, text] of noises) lines = lines.toSpliced(at, 0, text);
          const places = [0, ...cuts.toSorted((one, other) => one - other), lines.length];
          const paths = places.slice(1).map((end, index) => fileOf(lines.slice(places[index], end)));
          expect(await read(paths, base)).toEqual(records.slice(10));
        },
      ),
      { numRuns: 150 },
    );
  });

  it('a copy of the audit chain that is changed after it was checked gives no changed record', async () => {
    const lines = records.map(formatLine);
    for (const at of [10, 15, 23]) {
      const path = fileOf(lines);
      const copy = await readAuditCopy([path], chainKey, base);
      writeFileSync(path, lines.with(at, formatLine({ ...records[at]!, key: 'other' })).join(''));
      const seen: AuditRecord[] = [];
      const reading = (async () => {
        for await (const record of copy.records()) seen.push(record);
      })();
      await expect(reading).rejects.toEqual(refusal(/was changed while it was read/));
      expect(seen).toEqual(records.slice(10, at));
    }
  });

  it('a copy of the audit chain that was cut off ends earlier, and a torn last line is ignored', async () => {
    for (let count = 10; count <= 24; count++) {
      const whole = records.slice(0, count).map(formatLine);
      expect(await read([fileOf(whole)], base)).toEqual(records.slice(10, count));
      const torn = records
        .slice(count, count + 1)
        .map((record) => formatLine(record).slice(0, -20))
        .join('');
      expect(await read([fileOf([...whole, torn])], base)).toEqual(records.slice(10, count));
    }
  });

  it('a copy of the audit chain without one of the records after the backup, or with any changed record, is refused', async () => {
    const lines = records.map(formatLine);
    for (let at = 10; at < 23; at++)
      await expect(read([fileOf(lines.toSpliced(at, 1))], base), `without ${at}`).rejects.toEqual(
        refusal(/has a gap: line \d+/),
      );
    for (let at = 10; at < 22; at++)
      await expect(
        read([fileOf(lines.with(at, lines[at + 1]!).with(at + 1, lines[at]!))], base),
      ).rejects.toThrow(DamagedFile);
    await fc.assert(
      fc.asyncProperty(
        fc.nat(23),
        fc.constantFrom('actor', 'key', 'time', 'outcome', 'prev_hash', 'seq'),
        async (at, member) => {
          const changes: Partial<AuditRecord> = {
            actor: 'y',
            key: 'other',
            time: '2026-01-02T00:00:00.000Z',
            outcome: 'refused',
            prev_hash: `${'0'.repeat(63)}1`,
            seq: 99,
          };
          const changed = formatLine({ ...records[at]!, [member]: changes[member as keyof AuditRecord] });
          await expect(read([fileOf(lines.with(at, changed))], base)).rejects.toEqual(
            refusal(new RegExp(`line ${at + 1} of .* was changed`)),
          );
        },
      ),
      { numRuns: 60 },
    );
  });

  it('a copy of the audit chain with an unknown record or an endless line is refused', async () => {
    const line = formatLine(records[0]!);
    await expect(read([fileOf([line.replace('"INFO"', '"LOUD"')])], GENESIS)).rejects.toEqual(
      refusal(/line 1 of .* is not an audit record/),
    );
    await expect(read([fileOf(['x'.repeat(1_200_000)])], GENESIS)).rejects.toEqual(refusal(/too long/));
  });

  it('a copy of the audit chain of another installation is refused', async () => {
    const copy = await readAuditCopy([fileOf(records.map(formatLine))], chainKey, base);
    expect(copy.head.seq).toBe(24);
    const otherKey = createSecretKey(randomBytes(32));
    await expect(readAuditCopy([fileOf(records.map(formatLine))], otherKey, base)).rejects.toEqual(
      refusal(/was changed/),
    );
  });

  it('a copy of the audit chain that is older than the backup, begins after it, or belongs to another history is refused', async () => {
    const lines = records.map(formatLine);
    await expect(read([fileOf(lines.slice(0, 9))], base)).rejects.toEqual(
      expect.objectContaining({
        name: 'EvidenceTooOld',
        message: expect.stringMatching(/ends with record 9 and is older than record 10/),
      }),
    );
    await expect(read([fileOf([])], base)).rejects.toEqual(refusal(/contains no record/));
    await expect(read([fileOf(lines.slice(11))], base)).rejects.toEqual(
      refusal(/begins with record 12, after record 10: give its earlier files/),
    );
    const fork = [...records.slice(0, 5), ...chain(12, records[4], 'fork')];
    await expect(read([fileOf(fork.map(formatLine))], base)).rejects.toEqual(refusal(/to another history/));
  });

  it('a copy of the audit chain that contains the chain again with another end gives the last end', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 10, max: 23 }),
        fc.integer({ min: 1, max: 30 }),
        async (at, count) => {
          // The store was rolled back to record `at`, continued from there, and was copied again.
          const newer = [...records.slice(0, at), ...chain(count, records[at - 1], 'newer')];
          const paths = [fileOf(records.map(formatLine)), fileOf(newer.map(formatLine))];
          expect(await read(paths, base)).toEqual(newer.slice(10));
        },
      ),
      { numRuns: 60 },
    );
  });

  it('a copy of the audit chain whose last end does not contain the chain of the backup is refused', async () => {
    const newer = [...records.slice(0, 5), ...chain(30, records[4], 'newer')].map(formatLine);
    for (const count of [3, 8, 20, 35])
      await expect(
        read([fileOf([...records.map(formatLine), ...newer.slice(0, count)])], base),
      ).rejects.toThrow(/is older than|to another history/);
  });

  it('does not mistake a record of an abandoned end for one of the last end', async () => {
    const newer = [...records.slice(0, 15), ...chain(9, records[14], 'newer')];
    const lines = [...records, ...newer].map(formatLine);
    // Inserted after the newer end: genuine and with the next number, but it does not follow.
    await expect(read([fileOf([...lines, formatLine(records[20]!)])], base)).rejects.toThrow(DamagedFile);
    await expect(read([fileOf([...lines.slice(0, -3), formatLine(records[21]!)])], base)).rejects.toThrow(
      DamagedFile,
    );
  });

  it('a copy of the audit chain that is replaced while it is read is detected', async () => {
    const path = fileOf(records.map(formatLine));
    const copy = await readAuditCopy([path], chainKey, base);
    writeFileSync(path, records.slice(0, 20).map(formatLine).join(''));
    const reading = async () => {
      for await (const record of copy.records()) expect(record.seq).toBeLessThan(21);
    };
    await expect(reading()).rejects.toEqual(refusal(/changed while it was read/));
  });
});
