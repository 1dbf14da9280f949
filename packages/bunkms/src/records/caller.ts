import type { AuditDraft } from './chain.ts';

/** The caller, in the form of audit records. */
export type Caller = Pick<AuditDraft, 'actor' | 'jti' | 'source' | 'request_id'>;

/** The service itself. */
export const SYSTEM: Caller = { actor: 'system' };

/** The operator who runs `bunkms` on this machine. */
export const CLI_CALLER: Caller = { actor: 'cli' };
