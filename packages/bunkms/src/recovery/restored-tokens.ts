import type { AuditRecord } from '@bundoc/shared/contract/audit';
import type { TokenInfo } from '@bundoc/shared/contract/tokens';
import { REVOCATION, revocationDraft, tokenIssueDraft } from '../records/token-record.ts';
import type { LoadEntry } from '../store/transfer.ts';
import { keepsSigningKey, type RestoreParts } from './restore-parts.ts';

/** The tokens that a restore brings back, and what it has come across so far. */
export class RestoredTokens {
  /** Tokens that are in the store, and those of them that the restore revoked. */
  count = 0;
  revokedCount = 0;
  readonly #parts: RestoreParts;
  /** Ids of tokens that are in the store. */
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

  /**
   * A token that is known to be revoked, or that nobody is known to have kept, comes back as such, and on
   * record.
   */
  *archived(token: TokenInfo): Generator<LoadEntry> {
    this.#jtis.add(token.jti);
    const { family, revoked_at: revokedAt } = token;
    const isRevoked =
      !keepsSigningKey(this.#parts) ||
      this.#parts.evidence.revokedFamilies.has(family) ||
      this.#revokedInChain.has(family);
    if (!isRevoked && revokedAt === undefined) {
      yield* this.#counted(token);
      return;
    }
    const { caller, time } = this.#parts;
    if (revokedAt === undefined) this.revokedCount++;
    yield* this.#counted({ ...token, revoked_at: revokedAt ?? time });
    // A copy of the chain brings its own records, and the backup those from before.
    if (this.#revokedInChain.has(family)) return;
    this.#revokedInChain.add(family);
    yield { kind: 'new-record', draft: revocationDraft(caller, time, token, { source: 'backup' }) };
  }

  /**
   * Tokens that were issued after the backup: they go on, and the revoked ones are known as such to anyone
   * who asks.
   */
  *newer(): Generator<LoadEntry> {
    const { caller, time } = this.#parts;
    for (const token of this.#parts.evidence.tokens()) {
      if (this.#jtis.has(token.jti)) continue;
      if (this.#parts.evidence.source === 'inventory')
        yield {
          kind: 'new-record',
          draft: tokenIssueDraft({ caller, time, action: 'token.restore' }, token),
        };
      yield* this.archived(token);
    }
  }

  *#counted(token: TokenInfo): Generator<LoadEntry> {
    this.count++;
    yield { kind: 'token', token };
  }
}
