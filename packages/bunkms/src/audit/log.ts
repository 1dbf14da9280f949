import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import type { AuditReceipt } from '@bundoc/shared/contract/keys';
import type { ProblemCode } from '@bundoc/shared/contract/problem';
import type { Logger } from '@bundoc/shared/logs/logger';
import { Batcher } from '@bundoc/shared/runtime/batcher';
import type { AuditDraft } from '../records/chain.ts';
import type { AuditCondition, AuditStore, RejectReason } from '../store/audit.ts';
import type { SealedRecords } from './sealed-records.ts';

export interface AuditLogOptions {
  readonly store: Pick<AuditStore, 'appendAudit'>;
  readonly logger: Logger;
  readonly metrics: { readonly auditRecordsLost: { inc(): void } };
  /** Keeps records while the service is sealed. Without it they are only in the log. */
  readonly sealed?: Pick<SealedRecords, 'record'>;
}

/** Maximum waiting records. Beyond it an append fails at once. */
const WAITING_MAX = 4_096;
/** Maximum records of one transaction. */
const BATCH_MAX = 512;

const CODES: Readonly<Record<RejectReason, ProblemCode>> = {
  token_revoked: 'unauthenticated',
  key_changed: 'precondition_failed',
  storage_changed: 'precondition_failed',
  keks_changed: 'precondition_failed',
  kek_in_use: 'kek_in_use',
  kek_not_held: 'kek_unusable',
};

interface QueuedRecord {
  readonly draft: AuditDraft;
  readonly condition: AuditCondition | undefined;
  readonly resolve: (receipt: AuditReceipt) => void;
  readonly reject: (error: AppError) => void;
}

/**
 * Appends to the audit chain with group commit. Records that arrive during a transaction share the next one.
 * So a record waits for at most two transactions, and many exports share one fsync.
 */
export class AuditLog {
  readonly #options: AuditLogOptions;
  readonly #batcher = new Batcher<QueuedRecord>({
    queue: BATCH_MAX,
    run: (batch) => this.#writeBatch(batch),
  });
  #failing = false;

  constructor(options: AuditLogOptions) {
    this.#options = options;
  }

  /** True after a failed append until one succeeds. */
  get failing(): boolean {
    return this.#failing;
  }

  /**
   * @param condition what must hold for the action that the record permits.
   * @returns the record's place in the chain, once it is durable.
   * @throws AppError `audit_unavailable` and `sealed`: the record may still be in the chain. With every
   *   other error the record is not in the chain: `unauthenticated` when the token was revoked,
   *   `precondition_failed` when the key, the storage or the KEKs have changed, and those of the condition.
   */
  append(draft: AuditDraft, condition?: AuditCondition): Promise<AuditReceipt> {
    if (this.#batcher.waiting >= WAITING_MAX) {
      this.#failing = true;
      return Promise.reject(new AppError('audit_unavailable', { cause: new AppError('overloaded') }));
    }
    return new Promise((resolve, reject) => this.#batcher.add({ draft, condition, resolve, reject }));
  }

  /**
   * Appends a record of something that does not depend on it, and waits until it is durable. A caller that
   * waits before it answers has one record in the queue at most. So callers who repeat requests cannot fill
   * the queue faster than the chain is written.
   *
   * While the service is sealed, the record waits in a file. If it cannot be written for another reason, a
   * log line replaces it and a metric counts it, so that it is never lost silently. Never rejects.
   */
  async record(draft: AuditDraft): Promise<void> {
    try {
      await this.append(draft);
    } catch (error) {
      const { sealed } = this.#options;
      if (sealed !== undefined && hasCode(error, 'sealed')) return sealed.record(draft);
      this.#options.metrics.auditRecordsLost.inc();
      // The logger redacts members named "key", but this one is only the name of a key.
      const { key: keyName, ...record } = draft;
      this.#options.logger.error({ record, keyName, err: error }, 'audit append failed');
      this.#options.logger.flush();
    }
  }

  /** {@link record} without waiting: for records whose number is bounded otherwise. */
  appendInBackground(draft: AuditDraft): void {
    void this.record(draft);
  }

  /** Resolves when no record waits any more. */
  drain(): Promise<void> {
    return this.#batcher.settled();
  }

  async #writeBatch(batch: readonly QueuedRecord[]): Promise<void> {
    try {
      const receipts = await this.#options.store.appendAudit(
        batch.map(({ draft }) => draft),
        batch.map(({ condition }) => condition),
      );
      this.#failing = false;
      for (const [index, { resolve, reject }] of batch.entries()) {
        const receipt = receipts[index];
        if (receipt === undefined) reject(new AppError('audit_unavailable'));
        else if (typeof receipt === 'string') reject(new AppError(CODES[receipt]));
        else resolve(receipt);
      }
    } catch (error) {
      this.#failing = true;
      const code = hasCode(error, 'sealed') ? 'sealed' : 'audit_unavailable';
      for (const { reject } of batch) reject(new AppError(code, { cause: error }));
    }
  }
}
