import type { KeyObject } from 'node:crypto';
import type { AuditRecord } from '@bundoc/shared/contract/audit';
import { isIssue, REVOCATION, type StoredToken, tokenFault } from '../records/token-record.ts';
import { allItems } from '../store/page.ts';
import type { TokenStore } from '../store/tokens.ts';

const PAGE = 500;

/** The facts of a token from the walk. */
interface Issued {
  readonly family: string;
  readonly expiresAt: string;
  readonly issuer: string | undefined;
}

/**
 * Compares all tokens with the chain during a walk, to find rows that were added, edited or removed. Readers
 * find the records of a token by an index, which anyone who can write to the database can falsify. The walk
 * sees the records themselves.
 */
export class TokenVerification {
  readonly #issued = new Map<string, Issued>();
  readonly #revoked = new Set<string>();
  /** Families that were revoked with cascade. */
  readonly #cascades = new Set<string>();
  /** The latest expiry of the tokens of a family. */
  readonly #ends = new Map<string, string>();
  /** Families that expired before this time may have been pruned. */
  #prunedBefore = '';

  /** Adds a record of the walk. Call it for all records, in order. */
  note(record: AuditRecord): void {
    const { action, detail = {} } = record;
    const text = (name: string) => String(detail[name]);
    if (action === REVOCATION) {
      this.#revoked.add(text('family'));
      if (detail['cascade'] === true) this.#cascades.add(text('family'));
    }
    if (action === 'token.prune' && text('expired_before') > this.#prunedBefore)
      this.#prunedBefore = text('expired_before');
    if (!isIssue(record)) return;
    const [family, expiresAt] = [text('family'), text('expires_at')];
    const issuer = detail['issuer'] === undefined ? undefined : text('issuer');
    this.#issued.set(text('token'), { family, expiresAt, issuer });
    if (expiresAt > (this.#ends.get(family) ?? '')) this.#ends.set(family, expiresAt);
  }

  /**
   * @param forgottenBefore families that expired before this time may be pruned while this runs.
   * @returns the ids of the tokens that contradict the chain, in order.
   */
  async damagedTokens(store: TokenStore, chainKey: KeyObject, forgottenBefore: string): Promise<string[]> {
    const damaged: string[] = [];
    const rowless = new Map(this.#issued);
    const read = (after?: string) => store.listTokens({ after, limit: PAGE });
    for await (const stored of allItems(read, ({ jti }) => jti)) {
      if (!this.#isSound(chainKey, stored)) damaged.push(stored.jti);
      rowless.delete(stored.jti);
    }
    const cutoff = this.#prunedBefore > forgottenBefore ? this.#prunedBefore : forgottenBefore;
    for (const [jti, { family, expiresAt }] of rowless)
      if ((this.#ends.get(family) ?? expiresAt) >= cutoff) damaged.push(jti);
    return damaged.sort();
  }

  /**
   * @returns the ids of tokens that should be revoked but expire at `time` or later, in order. Their
   *   issuer, or its issuer, was revoked with cascade, but the cascade was interrupted or did not see their
   *   records.
   */
  escapedTokens(time: string): string[] {
    const issued = new Map<string, Set<string>>();
    for (const { family, issuer } of this.#issued.values()) {
      const by = issuer === undefined ? undefined : this.#issued.get(issuer)?.family;
      if (by === undefined) continue;
      const families = issued.get(by) ?? new Set();
      issued.set(by, families.add(family));
    }
    // The set grows during the iteration, which covers the new members too.
    const reached = new Set(this.#cascades);
    for (const family of reached) for (const below of issued.get(family) ?? []) reached.add(below);
    return [...this.#issued]
      .filter(
        ([, { family, expiresAt }]) => reached.has(family) && !this.#revoked.has(family) && expiresAt >= time,
      )
      .map(([jti]) => jti)
      .sort();
  }

  #isSound(chainKey: KeyObject, stored: StoredToken): boolean {
    if (tokenFault(chainKey, stored) !== undefined) return false;
    const family = this.#issued.get(stored.jti)?.family ?? stored.row?.family ?? '';
    return stored.revoked !== undefined || !this.#revoked.has(family);
  }
}
