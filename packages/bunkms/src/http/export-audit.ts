import type { AppError } from '@bundoc/shared/contract/app-error';
import { PROBLEMS } from '@bundoc/shared/contract/problem';
import { callerNetwork } from '@bundoc/shared/runtime/addresses';
import type { FastifyRequest } from 'fastify';
import type { RefusalSink } from '../audit/recorders.ts';
import type { AuditDraft } from '../records/chain.ts';
import { isExportTarget, keyOfExportTarget, versionOfExportTarget } from './export-path.ts';
import { callerOf } from './guard.ts';

/** Counts accesses to export by their outcome. */
export interface ExportMetrics {
  readonly exports: { inc(labels: { readonly outcome: string }): void };
}

/**
 * Makes exactly one CRITICAL record of every request for an export that is not answered with a key, whatever
 * refused it: authentication, authorisation, validation, routing, or a failure.
 */
export function exportAudit(sink: RefusalSink, metrics: ExportMetrics, now: () => number) {
  return (request: FastifyRequest, error: AppError): void => {
    const target = request.raw.url ?? '';
    if (!isExportTarget(target)) return;
    const failed = PROBLEMS[error.code].status >= 500 || error.code === 'key_not_found';
    const outcome = failed ? 'failed' : 'refused';
    const key = keyOfExportTarget(target);
    const version = versionOfExportTarget(target);
    metrics.exports.inc({ outcome });
    const record: AuditDraft = {
      ...callerOf(request),
      time: new Date(now()).toISOString(),
      severity: 'CRITICAL',
      action: 'key.export',
      outcome,
      ...(key === undefined ? {} : { key }),
      ...(version === undefined ? {} : { version }),
      code: error.code,
    };
    if (request.identity?.confirmed === true) sink.named(record);
    else sink.anonymous(callerNetwork(request.ip), record);
  };
}
