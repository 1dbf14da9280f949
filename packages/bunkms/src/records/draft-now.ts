import type { Clock } from '@bundoc/shared/runtime/clock';
import type { Caller } from './caller.ts';
import type { AuditDraft } from './chain.ts';

/** A record of what a caller does now: INFO and allowed, unless `more` says otherwise. */
export function draftNow(
  { clock }: { readonly clock: Pick<Clock, 'now'> },
  caller: Caller,
  action: string,
  more: Partial<AuditDraft> = {},
): AuditDraft {
  const time = new Date(clock.now()).toISOString();
  return { ...caller, time, severity: 'INFO', action, outcome: 'allowed', ...more };
}
