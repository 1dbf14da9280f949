import { createSecretKey, randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { AppError } from '@bundoc/shared/contract/app-error';
import { type AuditRecord, auditRecordSchema } from '@bundoc/shared/contract/audit';
import { createLogger } from '@bundoc/shared/logs/logger';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { createMetrics } from '../../metrics.ts';
import { type AuditDraft, type ChainHead, GENESIS, nextRecord, verifyChain } from '../../records/chain.ts';
import { ChainMemory } from '../../trust/chain-memory.ts';
import { type Position, positionFile } from './position.ts';
import { AuditShipper } from './shipper.ts';
import { fileSink, type ShipSink } from './sinks.ts';

const chainKey = createSecretKey(randomBytes(32));
const lineSchema = z.strictObject({ format: z.literal('bunkms/audit/v1'), ...auditRecordSchema.shape });

/** A chain in memory, with the methods of the store that the shipper uses. */
class MemoryChain {
  readonly records: AuditRecord[] = [];

  add(count: number, actor = 'x'): void {
    const draft: AuditDraft = {
      time: '2026-01-01T00:00:00.000Z',
      severity: 'CRITICAL',
      action: 'key.export',
      outcome: 'allowed',
      actor,
    };
    for (let n = 0; n < count; n++) this.records.push(nextRecord(chainKey, this.head, draft));
  }
  get head(): ChainHead {
    return this.records.at(-1) ?? GENESIS;
  }
  readonly auditHead = async () => this.head;
  readonly listAudit = async ({ after = 0, limit }: { after?: number | undefined; limit: number }) => ({
    items: this.records.slice(after, after + limit),
    more: this.records.length > after + limit,
  });
}

describe('the copy of the audit chain', () => {
  let folder: string;
  let path: string;
  let chain: MemoryChain;
  let metrics: ReturnType<typeof createMetrics>;
  let lines: { level: string; msg: string }[];
  let epoch: number;
  let memory: ChainMemory;
  const missed: number[] = [];
  const lacks = ({ seq }: ChainHead) => {
    missed.push(seq);
    return new AppError('sealed');
  };
  const running: AuditShipper[] = [];
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'bunkms-ship-'));
    path = join(folder, 'audit.ndjson');
    chain = new MemoryChain();
    metrics = createMetrics();
    lines = [];
    epoch = 0;
    memory = new ChainMemory();
    missed.length = 0;
  });
  afterEach(async () => {
    for (const shipper of running.splice(0)) await shipper[Symbol.asyncDispose]();
    // A shipper that was abandoned at its end may still write.
    rmSync(folder, { recursive: true, maxRetries: 20 });
  });

  const position = (target: string) => positionFile(join(folder, 'position.json'), target);
  function start(
    sink: ShipSink = fileSink(path),
    kept: Position = position(sink.target),
    hungAfterMs = 60_000,
  ) {
    const destination = new Writable({
      write: (chunk: Buffer, _encoding, done) => {
        lines.push(JSON.parse(chunk.toString()) as { level: string; msg: string });
        done();
      },
    });
    const shipper = new AuditShipper({
      store: chain,
      sink,
      position: kept,
      trust: { epoch, memory, lacks },
      logger: createLogger({ service: 'bunkms', level: 'info', destination }),
      metrics,
      pause: () => new Promise((resolve) => setTimeout(resolve, 1)),
      hungAfterMs,
      closeMs: 50,
    });
    running.push(shipper);
    return shipper;
  }
  const copied = (file = path): AuditRecord[] =>
    readFileSync(file, 'utf8')
      .split('\n')
      .filter((line) => line.startsWith('{') && line.endsWith('}'))
      .map((line) => {
        const { format: _, ...record } = lineSchema.parse(JSON.parse(line));
        return record;
      });
  const caughtUp = (shipper: AuditShipper) => expect.poll(() => shipper.lag()).toBe(0);
  const metric = async (name: string) => {
    const found = (await metrics.registry.getSingleMetric(name)?.get())?.values[0]?.value;
    return found ?? 0;
  };

  it('is the complete chain, in order and unchanged, however long it is', async () => {
    chain.add(1_234);
    const shipper = start();
    await caughtUp(shipper);
    chain.add(3);
    await caughtUp(shipper);
    expect(copied()).toEqual(chain.records);
    expect(await verifyChain(chainKey, copied())).toMatchObject({ intact: true });
    expect(await metric('bunkms_audit_shipped_records_total')).toBe(1_237);
  });

  it('resumes after a restart where it stopped', async () => {
    chain.add(10);
    const first = start();
    await caughtUp(first);
    await first[Symbol.asyncDispose]();
    chain.add(10);
    await caughtUp(start());
    expect(copied()).toEqual(chain.records);
  });

  it('repeats a record but misses none when a crash comes before its position is saved', async () => {
    chain.add(10);
    const sink = fileSink(path);
    const kept = position(sink.target);
    const first = start(sink, { read: kept.read, write: () => new Promise(() => undefined) });
    await expect.poll(() => copied().length).toBe(10);
    await first[Symbol.asyncDispose]();
    await sink.close();
    chain.add(1);
    await caughtUp(start());
    expect(copied()).toEqual([...chain.records.slice(0, 10), ...chain.records]);
  });

  it('continues in a new file when its file is renamed or removed, and misses nothing', async () => {
    const shipper = start();
    chain.add(5);
    await caughtUp(shipper);
    renameSync(path, `${path}.1`);
    chain.add(5);
    await caughtUp(shipper);
    expect([...copied(`${path}.1`), ...copied()]).toEqual(chain.records);
    rmSync(path);
    chain.add(5);
    await caughtUp(shipper);
    expect(copied()).toEqual(chain.records.slice(10));
  });

  it('survives a target that writes a part and fails, like a full disk: a torn line is terminated', async () => {
    const real = fileSink(path);
    let isFull = true;
    const sink: ShipSink = {
      ...real,
      append: async (batch, signal, place) => {
        if (!isFull) return real.append(batch, signal, place);
        await real.append([batch.join('').slice(0, 700)], signal, place);
        await real.close();
        throw new Error('ENOSPC');
      },
    };
    const shipper = start(sink, position(sink.target));
    chain.add(20);
    await expect.poll(() => metric('bunkms_audit_ship_failures_total')).toBeGreaterThan(2);
    expect(await shipper.lag()).toBe(20);
    isFull = false;
    await caughtUp(shipper);
    const seqs = copied().map(({ seq }) => seq);
    expect(seqs.slice(-20)).toEqual(chain.records.map(({ seq }) => seq));
    expect(lines.map(({ level }) => level)).toEqual(['error', 'info']);
  });

  it('a copy of the audit chain to a target that hangs is reported as incomplete, and delays not even the stop', async () => {
    const sink: ShipSink = {
      target: 'hung',
      variable: 'BUNKMS_ARCHIVE',
      append: () => new Promise(() => undefined),
      close: async () => undefined,
    };
    const shipper = start(sink, position('hung'), 1);
    chain.add(7);
    await expect.poll(() => metric('bunkms_audit_ship_failures_total')).toBe(1);
    chain.add(1);
    expect(await shipper.lag()).toBe(8);
    expect(lines).toMatchObject([{ level: 'error' }]);
    await shipper[Symbol.asyncDispose]();
  });

  it('stops, and the service is sealed, while the chain lacks what was copied', async () => {
    chain.add(10);
    const first = start();
    await caughtUp(first);
    await first[Symbol.asyncDispose]();
    expect(memory.receipts.at(-1)).toMatchObject({ seq: 10 });
    const cut = chain.records.splice(5);
    const second = start();
    await expect.poll(() => missed.at(-1)).toBe(10);
    expect(copied()).toHaveLength(10);
    chain.records.push(...cut);
    chain.add(1);
    await caughtUp(second);
    expect(copied()).toEqual(chain.records);
  });

  it('starts again, and logs that, after a restore of the chain', async () => {
    chain.add(10);
    const first = start();
    await caughtUp(first);
    await first[Symbol.asyncDispose]();
    const before = copied();
    for (const change of [() => chain.records.splice(5), () => chain.add(9, 'other')]) {
      change();
      epoch++;
      const next = start();
      await caughtUp(next);
      await next[Symbol.asyncDispose]();
    }
    expect(copied()).toEqual([...before, ...chain.records.slice(0, 5), ...chain.records.slice(5)]);
    expect(await metric('bunkms_audit_ship_breaks_total')).toBe(1);
    expect(lines.map(({ level }) => level)).toEqual(['error']);
  });

  it('is refused by a file with the chain of another store, until that file is set aside', async () => {
    chain.add(3);
    await caughtUp(start());
    for (const shipper of running.splice(0)) await shipper[Symbol.asyncDispose]();
    const others = readFileSync(path, 'utf8');
    writeFileSync(path, `{"torn\n${others}`);
    chain = new MemoryChain();
    chain.add(5, 'other');
    rmSync(join(folder, 'position.json'));
    const shipper = start();
    await expect.poll(() => metric('bunkms_audit_ship_failures_total')).toBeGreaterThan(1);
    expect(readFileSync(path, 'utf8')).toBe(`{"torn\n${others}`);
    expect(lines).toMatchObject([
      { level: 'error', msg: expect.stringMatching(/of another store, in line 2: set this file aside/) },
    ]);
    renameSync(path, `${path}.before`);
    await caughtUp(shipper);
    expect(copied()).toEqual(chain.records);
  });

  it.each([
    ['damaged', '{"format":2'],
    ['of another target', `{"format":2,"target":"stdout","seq":3,"hash":"${'0'.repeat(64)}","epoch":0}`],
  ])('starts at the start of the chain when its position is %s', async (_what, text) => {
    writeFileSync(join(folder, 'position.json'), text);
    chain.add(5);
    await caughtUp(start());
    expect(copied()).toEqual(chain.records);
  });
});
