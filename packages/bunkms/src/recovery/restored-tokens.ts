import type { AuditRecord } from '@bundoc/shared/contract/audit';
import type { TokenInfo } from '@bundoc/shared/contract/tokens';
import { REVOCATION, revocationDraft } from '../records/token-record.ts';
import type { LoadEntry } from '../store/transfer.ts';
import { keepsSigningKey, type RestoreParts } from './restore-parts.ts';

/** Generates the tokens of a restored store, and tracks their progress. */
export class RestoredTokens {
  /** Tokens that are in the store, and those of them that the restore revoked. */
  count = 0;
  revokedCount = 0;
  readonly #parts: RestoreParts;
  /** Ids of tokens in the store. */
  readonly #jtis = new Set<string>();
  /** Families that a record of the restored chain revokes. */
  readonly #revokedInChain = new Set<string>();

  constructor(parts: RestoreParts) {
    this.#parts = parts;
  }

  /** A record of the restored chain. */
  note({ action, detail }: AuditRecord): void {
    if (action === REVOCATION) this.#revokedInChain.add(String(detail?.['family']));
  }

  /** A token. If it is known to be revoked, or not known to be kept, it comes back revoked, with a record. */
  *archived(token: TokenInfo): Generator<LoadEntry> {
    this.#jtis.add(token.jti);
    const { family, revoked_at: revokedAt } = token;
    const isRevoked =
      !keepsSigningKey(this.#parts) ||
      this.#parts.evidence?.revokedFamilies.has(family) === true ||
      this.#revokedInChain.has(family);
    if (!isRevoked && revokedAt === undefined) {
      yield* this.#counted(token);
      return;
    }
    const { caller, time } = this.#parts;
    if (revokedAt === undefined) this.revokedCount++;
    yield* this.#counted({ ...token, revoked_at: revokedAt ?? time });
    // The audit copy contains later records, and the backup earlier ones.
    if (this.#revokedInChain.has(family)) return;
    this.#revokedInChain.add(family);
    yield { kind: 'new-record', draft: revocationDraft(caller, time, token, { source: 'backup' }) };
  }

  /** Tokens that were issued after the backup. They stay valid, and the revoked ones stay revoked. */
  *newer(): Generator<LoadEntry> {
    for (const token of this.#parts.evidence?.tokens() ?? [])
      if (!this.#jtis.has(token.jti)) yield* this.archived(token);
    yield* this.#lost();
  }

  /** Revocations of tokens of a lost end of the chain, too: Bundoc knows them by these records. */
  *#lost(): Generator<LoadEntry> {
    const { caller, time, evidence } = this.#parts;
    for (const [family, { detail = {} }] of evidence?.lostRevocations ?? []) {
      if (this.#revokedInChain.has(family)) continue;
      this.#revokedInChain.add(family);
      const text = (name: string) => String(detail[name]);
      const token = { jti: text('token'), family, sub: text('sub'), expires_at: text('expires_at') };
      yield { kind: 'new-record', draft: revocationDraft(caller, time, token, { source: 'backup' }) };
    }
  }

  *#counted(token: TokenInfo): Generator<LoadEntry> {
    this.count++;
    yield { kind: 'token', token };
  }
}
