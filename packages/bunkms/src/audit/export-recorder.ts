import { defined } from '@bundoc/shared/contract/defined';
import type { AuditReceipt } from '@bundoc/shared/contract/keys';
import { PROBLEMS, type ProblemCode } from '@bundoc/shared/contract/problem';
import type { Logger } from '@bundoc/shared/logs/logger';
import type { Clock } from '@bundoc/shared/runtime/clock';
import type { CallFacts } from '../outside/port.ts';
import type { Caller } from '../records/caller.ts';
import type { AuditDraft } from '../records/chain.ts';
import { draftNow } from '../records/draft-now.ts';
import type { AuditCondition } from '../store/audit.ts';
import type { AuditLog } from './log.ts';
import type { ExportRefusalSink } from './recorders.ts';

export interface ExportRecorderOptions {
  readonly audit: Pick<AuditLog, 'append'>;
  /** Records exports that were refused or failed. */
  readonly refusals: ExportRefusalSink;
  /** Counts exports by their outcome. */
  readonly metrics: { readonly exports: { inc(labels: { readonly outcome: string }): void } };
  readonly clock: Clock;
  readonly logger: Logger;
}

/** A key that is about to be released. */
export interface Release {
  readonly keyId: string;
  readonly name: string;
  readonly version: number;
  readonly leaseTtlMs: number;
  /** The storage that it is released to, if any. */
  readonly storage: string | undefined;
  /** Why no storage asks. */
  readonly purpose: 'drill' | undefined;
  /** The call of an outside key; empty when none was asked. */
  readonly outside: CallFacts;
}

/** A refused or failed export. The key and version are those of its target, as audit records name them. */
export interface FailedExport {
  readonly key: string | undefined;
  readonly version: number | undefined;
  readonly code: ProblemCode;
  /** The network of a caller without a confirmed token; undefined for one with a valid token. */
  readonly network: string | undefined;
  /** The outside key that refused it, and its call; undefined for none. */
  readonly outside: (CallFacts & { readonly key: string }) | undefined;
}

function detailOf({ ms, requestId }: CallFacts) {
  return defined({ outside_ms: ms, outside_request_id: requestId });
}

/** Records and counts every access to export. Each has one CRITICAL record, whether it succeeds or not. */
export class ExportRecorder {
  readonly #options: ExportRecorderOptions;

  constructor(options: ExportRecorderOptions) {
    this.#options = options;
  }

  /**
   * Records the release of a key.
   *
   * @param condition what must still hold when the record is written.
   * @returns the place of the record once it is durable. Only then may the key be released.
   * @throws AppError of `AuditLog.append`; then the key must not be released.
   */
  async release(release: Release, caller: Caller, condition: AuditCondition): Promise<AuditReceipt> {
    const { audit, metrics, logger } = this.#options;
    const { keyId, name, version, leaseTtlMs, storage, purpose, outside } = release;
    const outcome = 'allowed';
    const receipt = await audit.append(
      {
        ...this.#draft(caller, outcome, { key: name, version }),
        detail: {
          key_id: keyId,
          lease_ttl_ms: leaseTtlMs,
          ...defined({ storage, purpose }),
          ...detailOf(outside),
        },
      },
      condition,
    );
    metrics.exports.inc({ outcome });
    const { actor, jti, source, request_id: reqId } = caller;
    logger.info(
      { keyName: name, version, actor, jti, source, reqId, outcome, auditSeq: receipt.seq },
      'key exported',
    );
    return receipt;
  }

  /**
   * Records an export that was refused or failed. Never rejects.
   *
   * @returns for a caller with a valid token, when the record is durable or is in the log instead. The answer
   *   waits for it, so that no caller makes records faster than the chain takes them.
   */
  failed({ key, version, code, network, outside }: FailedExport, caller: Caller): Promise<void> | undefined {
    const { metrics, refusals } = this.#options;
    const hasFailed = PROBLEMS[code].status >= 500 || code === 'key_not_found';
    const outcome = hasFailed ? 'failed' : 'refused';
    metrics.exports.inc({ outcome });
    const detail = outside && { outside: outside.key, ...detailOf(outside) };
    const draft = this.#draft(caller, outcome, { key, version });
    const record: AuditDraft = { ...draft, code, ...defined({ detail }) };
    if (network === undefined) return refusals.named(record);
    refusals.anonymous(network, record);
    return undefined;
  }

  #draft(
    caller: Caller,
    outcome: AuditDraft['outcome'],
    { key, version }: { readonly key: string | undefined; readonly version: number | undefined },
  ): AuditDraft {
    const more = { severity: 'CRITICAL', outcome, ...defined({ key, version }) } as const;
    return draftNow(this.#options, caller, 'key.export', more);
  }
}
