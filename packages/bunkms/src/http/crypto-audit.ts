import type { AppError } from '@bundoc/shared/contract/app-error';
import { defined } from '@bundoc/shared/contract/defined';
import { PROBLEMS } from '@bundoc/shared/contract/problem';
import { callerNetwork } from '@bundoc/shared/runtime/addresses';
import type { Clock } from '@bundoc/shared/runtime/clock';
import type { FastifyRequest } from 'fastify';
import type { RefusalSink } from '../audit/recorders.ts';
import { CRYPTO_ACTIONS, type CryptoOperation } from '../encryption/encrypt-items.ts';
import { draftNow } from '../records/draft-now.ts';
import { keyNamedBy, pathOfTarget } from './audited-path.ts';
import { callerOf } from './guard.ts';

const TARGET = new RegExp(`^/v1/(${Object.keys(CRYPTO_ACTIONS).join('|')})(?:/(.*))?$`, 's');

/**
 * Records every request to encrypt, decrypt or rewrap that is refused or fails as a whole, for any reason.
 */
export function cryptoAudit(sink: RefusalSink, clock: Clock) {
  return (request: FastifyRequest, error: AppError): void => {
    const [, operation, name = ''] = TARGET.exec(pathOfTarget(request.raw.url ?? '')) ?? [];
    if (operation === undefined) return;
    const key = keyNamedBy(name);
    const hasFailed = PROBLEMS[error.code].status >= 500 || FAILURES.has(error.code);
    const record = draftNow({ clock }, callerOf(request), CRYPTO_ACTIONS[operation as CryptoOperation], {
      outcome: hasFailed ? 'failed' : 'refused',
      ...defined({ key }),
      code: error.code,
    });
    if (request.identity?.confirmed === true) sink.named(record);
    else sink.anonymous(callerNetwork(request.ip), record);
  };
}

/** Codes of attempts that failed, as opposed to requests that were not allowed. */
const FAILURES: ReadonlySet<string> = new Set(['key_not_found', 'decryption_failed']);
