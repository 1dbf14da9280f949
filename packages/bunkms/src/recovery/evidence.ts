import type { AuditRecord } from '@bundoc/shared/contract/audit';
import type { AuditReceipt } from '@bundoc/shared/contract/keys';
import type { TokenInfo } from '@bundoc/shared/contract/tokens';
import { isIssue, REVOCATION } from '../records/token-record.ts';
import type { AuditCopy } from './audit-copy.ts';
import { DamagedFile, EvidenceTooOld } from './errors.ts';
import { afterChange, type KeySnapshot } from './key-snapshot.ts';
import type { Survey } from './survey.ts';
import { tokenOfIssue } from './token-of-issue.ts';

/** Changes after which a key, or one of its versions, is not released as before. */
const WITHDRAWALS: readonly string[] = [
  'key.destroy',
  'key.destroy_version',
  'key.disable',
  'key.schedule_deletion',
  'key.deletion_intent',
  'key.update',
  'key.take_over',
  'key.accept',
  'key.attach',
];

/**
 * The changes after a backup, from a copy of the audit chain that continues the backup's chain without gaps.
 * They are complete up to the end of the copy.
 *
 * If the store was rolled back at some time, the copy has another end of the chain, too. Nothing that such an
 * end withdrew comes back by the rollback alone: its revocations count, and {@link lostWithdrawal} has its
 * keys.
 */
export class EvidenceOfCopy {
  readonly copy: AuditCopy;
  /** The `kid` of the signing key; undefined when a lost end of the chain had replaced it. */
  readonly kid: string | undefined;
  /** If one token of a family is revoked, all are. */
  readonly revokedFamilies = new Set<string>();
  /** Revocations of lost ends, by family. The tokens may be unknown here, and valid in Bundoc. */
  readonly lostRevocations = new Map<string, AuditRecord>();
  readonly #changes = new Map<string, AuditRecord[]>();
  readonly #tokens = new Map<string, TokenInfo>();
  /** Keys with a withdrawal in a lost end: its action, and where that end began. */
  readonly #lostWithdrawals = new Map<string, { readonly action: string; readonly lostFrom: number }>();

  constructor(copy: AuditCopy, { secrets }: Pick<Survey, 'secrets'>) {
    this.copy = copy;
    const kid = copy.notable.reduce(kidAfter, secrets.publicKey.kid);
    const wasReplaced = copy.lost.some(({ record }) => kidAfter(kid, record) !== kid);
    this.kid = wasReplaced ? undefined : kid;
    for (const record of copy.notable) this.#note(record);
    for (const { record, lostFrom } of copy.lost) this.#noteLost(record, lostFrom);
  }

  /** The state of a key, if it has changed since the backup. */
  snapshot(name: string, inBackup: KeySnapshot | undefined): KeySnapshot | undefined {
    return this.#changes.get(name)?.reduce(afterChange, inBackup);
  }

  /**
   * How a lost end of the chain withdrew a key; undefined if none did, or if somebody has enabled the
   * key after that end was lost.
   */
  lostWithdrawal(name: string): string | undefined {
    const lost = this.#lostWithdrawals.get(name);
    if (lost === undefined) return undefined;
    const changes = this.#changes.get(name) ?? [];
    const isAllowed = changes.some(({ action, seq }) => action === 'key.enable' && seq >= lost.lostFrom);
    return isAllowed ? undefined : lost.action;
  }

  /** Whether the state of a key is certain. */
  covers(name: string): boolean {
    return this.lostWithdrawal(name) === undefined;
  }

  /** Names of the keys that have changed since the backup. */
  names(): Iterable<string> {
    return this.#changes.keys();
  }

  /** Tokens that were issued after the backup, including revoked ones. */
  tokens(): Iterable<TokenInfo> {
    return this.#tokens.values();
  }

  #note(record: AuditRecord): void {
    const { action, outcome, key, time, detail = {} } = record;
    if (key !== undefined && detail['revision'] !== undefined) {
      const changes = this.#changes.get(key);
      if (changes === undefined) this.#changes.set(key, [record]);
      else changes.push(record);
    }
    if (outcome !== 'allowed') return;
    const token = isIssue(record) ? tokenOfIssue(record) : undefined;
    if (token !== undefined) this.#tokens.set(token.jti, token);
    if (action === REVOCATION) this.#revoke(String(detail['family']), time);
  }

  #noteLost(record: AuditRecord, lostFrom: number): void {
    const { action, outcome, key, time, detail } = record;
    if (outcome !== 'allowed') return;
    if (key !== undefined && WITHDRAWALS.includes(action)) {
      const isDestroyed = this.#lostWithdrawals.get(key)?.action === 'key.destroy';
      this.#lostWithdrawals.set(key, { action: isDestroyed ? 'key.destroy' : action, lostFrom });
    }
    if (action !== REVOCATION) return;
    this.lostRevocations.set(String(detail?.['family']), record);
    this.#revoke(String(detail?.['family']), time);
  }

  #revoke(family: string, time: string): void {
    this.revokedFamilies.add(family);
    for (const [jti, token] of this.#tokens)
      if (token.family === family) this.#tokens.set(jti, { ...token, revoked_at: time });
  }
}

/** The `kid` of the signing key after a record. */
function kidAfter(kid: string, { action, detail }: AuditRecord): string {
  return action === 'store.restore' ? String(detail?.['kid']) : kid;
}

/**
 * Checks receipts of the caller against the backup and the evidence.
 *
 * @param evidence undefined when nothing is known about the time after the backup.
 * @throws DamagedFile for a record other than that of a receipt; EvidenceTooOld for a receipt of a later
 *   record.
 */
export function requireReceipts(
  { end }: Pick<Survey, 'end'>,
  evidence: Pick<EvidenceOfCopy, 'copy'> | undefined,
  receipts: readonly AuditReceipt[],
): void {
  const last = evidence?.copy.head.seq ?? end.audit.seq;
  for (const { seq, hash } of receipts) {
    const known = evidence?.copy.hashAt(seq);
    if (known !== undefined && known !== hash)
      throw new DamagedFile(`record ${seq} is not that of the receipt: it belongs to another history`);
    if (seq > last)
      throw new EvidenceTooOld(
        `a record ${seq} existed, but nothing is known after record ${last}: give a copy of the audit chain that has it, or leave out its --receipt`,
      );
  }
}
