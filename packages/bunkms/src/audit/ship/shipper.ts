import { setTimeout as delay } from 'node:timers/promises';
import type { AuditRecord } from '@bundoc/shared/contract/audit';
import { parseJson } from '@bundoc/shared/json/parse-json';
import type { Logger } from '@bundoc/shared/logs/logger';
import { backoffMs } from '@bundoc/shared/runtime/backoff';
import { z } from 'zod';
import { GENESIS } from '../../records/chain.ts';
import type { AuditStore } from '../../store/audit.ts';
import type { StoreTrust } from '../../trust/store-trust.ts';
import type { CopiedPlace, Position } from './position.ts';
import type { LinesPlace, ShipSink } from './sinks.ts';

export interface ShipperOptions {
  readonly store: Pick<AuditStore, 'listAudit' | 'auditHead'>;
  readonly sink: ShipSink;
  readonly position: Position;
  readonly trust: Pick<StoreTrust, 'epoch' | 'lacks' | 'memory'>;
  readonly logger: Logger;
  readonly metrics: Readonly<
    Record<'auditShipped' | 'auditShipFailures' | 'auditShipBreaks', { inc(count?: number): void }>
  >;
  /** How often the chain is checked for new records, milliseconds; {@link POLL_MS} by default. */
  readonly pollMs?: number;
  /** Waits; tests replace it. */
  readonly pause?: (ms: number, signal: AbortSignal) => Promise<void>;
  /** {@link HUNG_AFTER_MS} unless a test sets it. */
  readonly hungAfterMs?: number;
  /** {@link CLOSE_MS} unless a test sets it. */
  readonly closeMs?: number;
}

/** What is read of a copied record. */
const recordSchema = z.object({ seq: z.int().positive(), hash: z.string() });
/** The most records in a batch. */
export const BATCH = 500;
/** Other processes append to the chain, too. */
const POLL_MS = 1_000;
const BACKOFF = { firstMs: 500, maxMs: 30_000 };
/** How long a target may take for one batch before it counts as failing, milliseconds. */
const HUNG_AFTER_MS = 10_000;
/** How long the stop of the service waits for a target that hangs, milliseconds. */
const CLOSE_MS = 2_000;

/**
 * Copies the audit chain to a target, record by record and without gaps, and resumes where it stopped. It
 * reads durable records only, so no request waits for it. A target that fails or hangs delays only the copy.
 *
 * Delivery is at least once: records that were copied before a crash, but not saved as copied, are copied
 * again. Readers drop duplicates by their place. Each batch is read together with the record before it. If
 * that is not the last copied record, the store was rolled back or replaced. Unless a restore did that, the
 * service is sealed. After a restore the chain is copied again from its start.
 */
export class AuditShipper implements AsyncDisposable {
  readonly #options: ShipperOptions;
  readonly #stopping = new AbortController();
  readonly #running: Promise<void>;
  /** Undefined until it has been read. */
  #place: CopiedPlace | undefined;
  #failures = 0;

  constructor(options: ShipperOptions) {
    this.#options = options;
    this.#running = this.#run(this.#stopping.signal);
  }

  /** Number of records that the copy lacks; undefined while it is unknown. */
  async lag(): Promise<number | undefined> {
    try {
      const { seq } = await this.#options.store.auditHead();
      return Math.max(0, seq - (this.#place?.seq ?? 0));
    } catch {
      return undefined;
    }
  }

  /** Stops the copy. It resumes at the next start. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopping.abort();
    const cutOff = new Promise<void>((resolve) =>
      setTimeout(resolve, this.#options.closeMs ?? CLOSE_MS).unref(),
    );
    await Promise.race([this.#running, cutOff]);
  }

  async #run(signal: AbortSignal): Promise<void> {
    const { sink, pause = wait, pollMs = POLL_MS } = this.#options;
    while (!signal.aborted) {
      let waitMs: number;
      try {
        waitMs = (await this.#shipSome(signal)) ? 0 : pollMs;
        if (this.#failures > 0) this.#options.logger.info('the audit chain is copied again');
        this.#failures = 0;
      } catch (error) {
        if (signal.aborted) break;
        this.#fail(error);
        waitMs = backoffMs(BACKOFF, this.#failures);
      }
      if (waitMs > 0) await pause(waitMs, signal).catch(() => undefined);
    }
    await sink.close().catch(() => undefined);
  }

  #fail(error: unknown): void {
    this.#options.metrics.auditShipFailures.inc();
    const { logger, sink } = this.#options;
    if (this.#failures++ === 0)
      logger.error(
        { err: error },
        `the audit chain cannot be copied to ${sink.target} (${sink.variable}); trying again`,
      );
  }

  /** @returns whether there may be more. */
  async #shipSome(signal: AbortSignal): Promise<boolean> {
    const { store, position, metrics, trust } = this.#options;
    this.#place ??= await position.read();
    const place = this.#place;
    const hasBefore = place.seq > GENESIS.seq;
    const page = await store.listAudit({ after: hasBefore ? place.seq - 1 : 0, limit: BATCH + 1 });
    const [before] = page.items;
    if (hasBefore && (before?.seq !== place.seq || before.hash !== place.hash)) {
      // Only a restore may take back what was copied.
      if (place.epoch >= trust.epoch) throw trust.lacks(place);
      return this.#restart(place);
    }
    if (!hasBefore) await this.#requireOwnChain();
    const records = hasBefore ? page.items.slice(1) : page.items;
    const last = records.at(-1);
    if (last === undefined) return false;
    const { epoch } = trust;
    await this.#append(records.map(formatLine), signal, {
      first: records[0]?.seq ?? last.seq,
      last: last.seq,
      epoch,
    });
    const copied = { seq: last.seq, hash: last.hash, epoch };
    await position.write(copied);
    trust.memory.keep(copied);
    this.#place = copied;
    metrics.auditShipped.inc(records.length);
    return page.more;
  }

  /**
   * A target that has another chain may be the only copy of that one, and a restore would refuse the mixture.
   *
   * @throws Error when the first record of the target is not in this chain.
   */
  async #requireOwnChain(): Promise<void> {
    const { sink, store } = this.#options;
    for (const [index, line] of ((await sink.start?.()) ?? '').split('\n').entries()) {
      const first = recordSchema.safeParse(parseJson(line)).data;
      if (first === undefined) continue;
      const [own] = (await store.listAudit({ after: first.seq - 1, limit: 1 })).items;
      if (own?.hash === first.hash) return;
      throw new Error(
        `${sink.target} has the audit chain of another store, in line ${index + 1}: set this file aside and keep it, or name another one in BUNKMS_AUDIT_SHIP. To continue that chain, set the new store aside, and run "bunkms restore" with --audit-copy`,
      );
    }
  }

  async #append(lines: readonly string[], signal: AbortSignal, place: LinesPlace): Promise<void> {
    const { sink, hungAfterMs = HUNG_AFTER_MS } = this.#options;
    const timer = setTimeout(() => this.#fail(new Error('the target does not answer')), hungAfterMs).unref();
    try {
      await sink.append(lines, signal, place);
    } finally {
      clearTimeout(timer);
    }
  }

  #restart({ seq }: CopiedPlace): true {
    this.#options.metrics.auditShipBreaks.inc();
    this.#options.logger.error(
      { seq },
      'the audit chain lacks the last copied record: it was rolled back or replaced; copying it again from its start',
    );
    this.#place = { ...GENESIS, epoch: this.#options.trust.epoch };
    return true;
  }
}

function wait(ms: number, signal: AbortSignal): Promise<void> {
  return delay(ms, undefined, { signal });
}

/** The line of a copied record: the name of the format, then the record (`docs/formats/shipped-audit.md`). */
export function formatLine(record: AuditRecord): string {
  const { seq, prev_hash: previousHash, hash, ...rest } = record;
  return `${JSON.stringify({ format: 'bunkms/audit/v1', seq, ...rest, prev_hash: previousHash, hash })}\n`;
}
