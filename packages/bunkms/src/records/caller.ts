import type { AuditDraft } from './chain.ts';

/** Who acts, as audit records tell it. */
export type Caller = Pick<AuditDraft, 'actor' | 'jti' | 'source' | 'request_id'>;

/** The service itself. */
export const SYSTEM: Caller = { actor: 'system' };

/** The operator who runs `bunkms` on the machine itself. */
export const CLI_CALLER: Caller = { actor: 'cli' };
