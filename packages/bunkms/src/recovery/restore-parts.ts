import type { Caller } from '../records/caller.ts';
import type { AuditDraft } from '../records/chain.ts';
import type { Vault } from '../vault/vault.ts';
import type { EvidenceOfCopy } from './evidence.ts';
import type { Survey } from './survey.ts';

export interface RestoreOptions {
  /** Called with the number of restored bytes of the archive. */
  readonly onProgress?: (bytes: number) => void;
}

export interface RestoreParts {
  readonly vault: Vault;
  /** The survey of the restored archive. */
  readonly survey: Survey;
  /** Undefined when nothing is known of the time after the backup. */
  readonly evidence: EvidenceOfCopy | undefined;
  readonly options: RestoreOptions;
  readonly caller: Caller;
  readonly time: string;
}

/** Whether tokens from before the restore stay signed with a key that is in use. */
export function keepsSigningKey({ evidence, survey }: RestoreParts): boolean {
  return evidence?.kid === survey.secrets.publicKey.kid;
}

export function draftOf(
  { caller, time }: RestoreParts,
  action: string,
  detail: NonNullable<AuditDraft['detail']>,
): AuditDraft {
  return { ...caller, time, severity: 'CRITICAL', action, outcome: 'allowed', detail };
}
