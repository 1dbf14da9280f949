import assert from 'node:assert/strict';
import type { KeyObject } from 'node:crypto';
import type { AuditRecord } from '@bundoc/shared/contract/audit';
import type { AuditReceipt } from '@bundoc/shared/contract/keys';
import { type AuditDraft, type ChainHead, nextRecord } from '../../records/chain.ts';
import { AUDIT_COLUMNS, auditValuesOf, HEAD, headOf } from '../sql/audit-table.ts';
import type { ChainWriter } from '../sql/chain-writer.ts';
import type { Connection } from './connection.ts';

const INSERT = `INSERT INTO audit (${AUDIT_COLUMNS.map(([name]) => name).join(', ')})
  VALUES (${AUDIT_COLUMNS.map((_, at) => `$${at + 1}`).join(', ')})`;

/** The audit chain of one write transaction. Each record is written immediately. */
export class SqliteChain implements ChainWriter {
  readonly #connection: Connection;
  readonly #onInsert: (action: string) => void;
  #chainKey: KeyObject | undefined;
  #head: ChainHead | undefined;

  /** @param onInsert called with the action of each written record. */
  constructor(connection: Connection, chainKey: KeyObject | undefined, onInsert: (action: string) => void) {
    this.#connection = connection;
    this.#chainKey = chainKey;
    this.#onInsert = onInsert;
  }

  get chainKey(): KeyObject {
    assert(this.#chainKey !== undefined, 'the audit chain is locked');
    return this.#chainKey;
  }

  unlock(chainKey: KeyObject): void {
    this.#chainKey = chainKey;
  }

  append(draft: AuditDraft): AuditReceipt {
    const record = nextRecord(this.chainKey, this.#head ?? headOf(this.#connection.row(HEAD)), draft);
    this.take(record);
    return { seq: record.seq, hash: record.hash };
  }

  take(record: AuditRecord): void {
    this.#connection.run(INSERT, ...auditValuesOf(record));
    this.#head = { seq: record.seq, hash: record.hash };
    this.#onInsert(record.action);
  }
}
