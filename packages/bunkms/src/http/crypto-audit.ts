import type { AppError } from '@bundoc/shared/contract/app-error';
import { defined } from '@bundoc/shared/contract/defined';
import { PROBLEMS } from '@bundoc/shared/contract/problem';
import { callerNetwork } from '@bundoc/shared/runtime/addresses';
import type { Clock } from '@bundoc/shared/runtime/clock';
import type { FastifyRequest } from 'fastify';
import type { RefusalSink } from '../audit/recorders.ts';
import { CRYPTO_ACTIONS } from '../encryption/encrypt-items.ts';
import { draftNow } from '../records/draft-now.ts';
import { keyNamedBy, pathOfTarget } from './audited-path.ts';
import { callerOf } from './guard.ts';

/** By the first part of the path. A data key is an encryption of random bytes. */
const ACTIONS = new Map<string, string>([
  ...Object.entries(CRYPTO_ACTIONS),
  ['data-key', CRYPTO_ACTIONS.encrypt],
]);
const TARGET = new RegExp(`^/v1/(${[...ACTIONS.keys()].join('|')})(?:/(.*))?$`, 's');

/**
 * Records every request to encrypt, decrypt, rewrap or make a data key that is refused or fails as a whole,
 * for any reason.
 */
export function cryptoAudit(sink: RefusalSink, clock: Clock) {
  return (request: FastifyRequest, error: AppError): void => {
    const [, operation = '', name = ''] = TARGET.exec(pathOfTarget(request.raw.url ?? '')) ?? [];
    const action = ACTIONS.get(operation);
    if (action === undefined) return;
    const key = keyNamedBy(name);
    const hasFailed = PROBLEMS[error.code].status >= 500 || FAILURES.has(error.code);
    const record = draftNow({ clock }, callerOf(request), action, {
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
