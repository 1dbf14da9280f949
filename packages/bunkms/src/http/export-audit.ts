import type { AppError } from '@bundoc/shared/contract/app-error';
import { callerNetwork } from '@bundoc/shared/runtime/addresses';
import type { FastifyRequest } from 'fastify';
import type { ExportRecorder } from '../audit/export-recorder.ts';
import { OutsideKeyError } from '../outside/port.ts';
import { isExportTarget, keyOfExportTarget, versionOfExportTarget } from './export-path.ts';
import { callerOf } from './guard.ts';

/**
 * Records every export request that is not answered with a key, whatever the cause: authentication,
 * authorization, validation, routing or a failure.
 */
export function exportAudit(exports: Pick<ExportRecorder, 'failed'>) {
  return (request: FastifyRequest, { code, outsideKey, cause }: AppError): Promise<void> | undefined => {
    const target = request.raw.url ?? '';
    if (!isExportTarget(target)) return undefined;
    const network = request.identity?.confirmed === true ? undefined : callerNetwork(request.ip);
    const [key, version] = [keyOfExportTarget(target), versionOfExportTarget(target)];
    const facts = cause instanceof OutsideKeyError ? cause.facts : {};
    const outside = outsideKey === undefined ? undefined : { ...facts, key: outsideKey };
    return exports.failed({ key, version, code, network, outside }, callerOf(request));
  };
}
