import assert from 'node:assert/strict';
import type { KeyObject } from 'node:crypto';
import type { AuditRecord } from '@bundoc/shared/contract/audit';
import type { AuditReceipt } from '@bundoc/shared/contract/keys';
import { type AuditDraft, type ChainHead, nextRecord } from '../../records/chain.ts';
import type { Row } from '../row-records.ts';
import { insertRecords } from './audit-table.ts';
import type { Session } from './session.ts';

/** A session inside a write: nobody else appends to the chain, nor changes what the chain tells of, until it ends. */
export interface WriteSession extends Session {
  /** Appends to the chain. The record is there for whatever is asked next. */
  append(draft: AuditDraft): AuditReceipt;
  /** Takes in a record as it is, behind all that are there. */
  take(record: AuditRecord): void;
  /** Gives the key of the chain to a session that has none: the chain begins in it. */
  unlock(chainKey: KeyObject): void;
}

/** Records that wait before they are written, at most. */
const BUFFERED_MAX = 500;

/** Keeps records back until something is asked of the database, so that many of them go in one statement. */
export class BufferedWriteSession implements WriteSession {
  readonly #session: Session;
  #chainKey: KeyObject | undefined;
  readonly #writeId: string;
  #head: ChainHead;
  #buffer: AuditRecord[] = [];
  #first: ChainHead | undefined;

  /** @param writeId of the transaction; stands beside each of its records. */
  constructor(session: Session, chainKey: KeyObject | undefined, head: ChainHead, writeId: string) {
    this.#session = session;
    this.#chainKey = chainKey;
    this.#head = head;
    this.#writeId = writeId;
  }

  /** The first record of this write; undefined while there is none. */
  get first(): ChainHead | undefined {
    return this.#first;
  }

  append(draft: AuditDraft): AuditReceipt {
    assert(this.#chainKey !== undefined, 'the audit chain is locked');
    const record = nextRecord(this.#chainKey, this.#head, draft);
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

  async rows(sql: string, ...values: readonly unknown[]): Promise<Row[]> {
    await this.flush();
    return this.#session.rows(sql, ...values);
  }

  async row(sql: string, ...values: readonly unknown[]): Promise<Row | undefined> {
    await this.flush();
    return this.#session.row(sql, ...values);
  }

  async run(sql: string, ...values: readonly unknown[]): Promise<number> {
    await this.flush();
    return this.#session.run(sql, ...values);
  }

  /** Writes what is kept back. */
  async flush(): Promise<void> {
    while (this.#buffer.length > 0)
      await insertRecords(this.#session, this.#buffer.splice(0, BUFFERED_MAX), this.#writeId);
  }
}
