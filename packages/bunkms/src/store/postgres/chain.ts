import type { KeyObject } from 'node:crypto';
import type { AuditRecord } from '@bundoc/shared/contract/audit';
import type { AuditReceipt } from '@bundoc/shared/contract/keys';
import { type AuditDraft, type ChainHead, nextRecord } from '../../records/chain.ts';
import { AUDIT_COLUMNS, auditValuesOf } from '../sql/audit-table.ts';
import type { ChainWriter } from '../sql/chain-writer.ts';
import { type EachQuery, runAsync, type Sql } from '../sql/statement.ts';
import { locked } from './failure.ts';
import type { Session } from './session.ts';

/** Maximum buffered records. */
const BUFFERED_MAX = 500;

/** Two nodes that write the same place would violate the primary key. */
const INSERT: EachQuery = {
  sql: `INSERT INTO audit (${AUDIT_COLUMNS.map(([name]) => name).join(', ')}, write_id)
  SELECT *, $${AUDIT_COLUMNS.length + 1}::uuid
    FROM unnest(${AUDIT_COLUMNS.map(([, type], index) => `$${index + 1}::${type}[]`).join(', ')})`,
};

/**
 * The audit chain of one write. It buffers records until the next database statement, so that one statement
 * inserts many of them.
 */
export class BufferedChain implements ChainWriter {
  readonly #session: Session;
  #chainKey: KeyObject | undefined;
  readonly #writeId: string;
  #head: ChainHead;
  #buffer: AuditRecord[] = [];
  #first: ChainHead | undefined;

  /** @param writeId id of the transaction, stored with each of its records. */
  constructor(session: Session, chainKey: KeyObject | undefined, head: ChainHead, writeId: string) {
    this.#session = session;
    this.#chainKey = chainKey;
    this.#head = head;
    this.#writeId = writeId;
  }

  get chainKey(): KeyObject {
    if (this.#chainKey === undefined) throw locked();
    return this.#chainKey;
  }

  /** The place of the first record of this write; undefined while there is none. */
  get first(): ChainHead | undefined {
    return this.#first;
  }

  /** The place of the last record of this write; undefined while it has none. */
  get head(): ChainHead | undefined {
    return this.#first === undefined ? undefined : this.#head;
  }

  append(draft: AuditDraft): AuditReceipt {
    const record = nextRecord(this.chainKey, this.#head, draft);
    this.take(record);
    return { seq: record.seq, hash: record.hash };
  }

  unlock(chainKey: KeyObject): void {
    this.#chainKey = chainKey;
  }

  take(record: AuditRecord): void {
    this.#buffer.push(record);
    this.#head = { seq: record.seq, hash: record.hash };
    this.#first ??= this.#head;
  }

  /** Runs work in this write. Each of its statements sees the records that were appended before. */
  run<T>(work: Sql<T>): Promise<T> {
    return runAsync(work, async (statement) => {
      await this.flush();
      return await this.#session.execute(statement);
    });
  }

  /** Writes the buffered records. */
  async flush(): Promise<void> {
    while (this.#buffer.length > 0) {
      const tuples = this.#buffer.splice(0, BUFFERED_MAX).map(auditValuesOf);
      await this.#session.execute({ kind: 'insert', query: INSERT, tuples, more: [this.#writeId] });
    }
  }
}
