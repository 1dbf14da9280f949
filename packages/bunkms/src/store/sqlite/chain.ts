import assert from 'node:assert/strict';
import type { KeyObject } from 'node:crypto';
import type { AuditRecord } from '@bundoc/shared/contract/audit';
import type { AuditReceipt } from '@bundoc/shared/contract/keys';
import { type AuditDraft, type ChainHead, nextRecord } from '../../records/chain.ts';
import { AUDIT_COLUMNS, auditValuesOf, HASH_AT, headForWrite, LAST_RECORD } from '../sql/audit-table.ts';
import type { ChainWriter } from '../sql/chain-writer.ts';
import { requireWritten } from '../sql/statement.ts';
import type { Connection } from './connection.ts';

const INSERT = `INSERT INTO audit (${AUDIT_COLUMNS.map(([name]) => name).join(', ')})
  VALUES (${AUDIT_COLUMNS.map((_, at) => `$${at + 1}`).join(', ')})`;

/** The audit chain of one write transaction. Each record is written immediately. */
export class SqliteChain implements ChainWriter {
  readonly #connection: Connection;
  readonly #onInsert: (action: string) => void;
  #chainKey: KeyObject | undefined;
  readonly #known: ChainHead | undefined;
  #head: ChainHead | undefined;
  #first: ChainHead | undefined;

  /**
   * @param onInsert called with the action of each written record.
   * @param known a record that the chain must contain.
   */
  constructor(
    connection: Connection,
    chainKey: KeyObject | undefined,
    onInsert: (action: string) => void,
    known?: ChainHead,
  ) {
    this.#connection = connection;
    this.#chainKey = chainKey;
    this.#onInsert = onInsert;
    this.#known = known;
  }

  get chainKey(): KeyObject {
    assert(this.#chainKey !== undefined, 'the audit chain is locked');
    return this.#chainKey;
  }

  unlock(chainKey: KeyObject): void {
    this.#chainKey = chainKey;
  }

  append(draft: AuditDraft): AuditReceipt {
    const record = nextRecord(this.chainKey, this.#head ?? this.#stored(), draft);
    this.take(record);
    return { seq: record.seq, hash: record.hash };
  }

  /** The place of the last record of this write; undefined while it has none. */
  get head(): ChainHead | undefined {
    return this.#head;
  }

  #stored(): ChainHead {
    const known = this.#known;
    const hash = known && this.#connection.row(HASH_AT, known.seq)?.['hash'];
    return headForWrite(this.#connection.row(LAST_RECORD), known, hash, this.#chainKey);
  }

  /** The place of the first record of this write; undefined while it has none. */
  get first(): ChainHead | undefined {
    return this.#first;
  }

  take(record: AuditRecord): void {
    requireWritten(this.#connection.run(INSERT, ...auditValuesOf(record)), 1, INSERT);
    this.#head = { seq: record.seq, hash: record.hash };
    this.#first ??= this.#head;
    this.#onInsert(record.action);
  }
}
