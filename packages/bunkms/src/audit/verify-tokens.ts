import type { KeyObject } from 'node:crypto';
import type { AuditRecord } from '@bundoc/shared/contract/audit';
import { isIssue, REVOCATION, type StoredToken, tokenFault } from '../records/token-record.ts';
import type { TokenStore } from '../store/tokens.ts';

const PAGE = 500;

/** What the walk has seen of a token. */
interface Issued {
  readonly family: string;
  readonly expiresAt: string;
  readonly issuer: string | undefined;
}

/**
 * Holds all tokens against the chain as it was walked: rows that were added, edited or removed. A reader
 * finds the records of a token by an index, and anyone who can write to the database can spoil that as
 * well; the walk has seen the records themselves.
 */
export class TokenVerification {
  readonly #issued = new Map<string, Issued>();
  readonly #revoked = new Set<string>();
  /** Families that were revoked together with what they issued. */
  readonly #cascades = new Set<string>();
  /** The latest end of a token of a family. */
  readonly #ends = new Map<string, string>();
  /** Families that ended before may have been forgotten since. */
  #prunedBefore = '';

  /** Takes in a record of the walk; all of them, in their order. */
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
   * @param forgottenBefore families that ended before may be forgotten while this runs.
   * @returns the ids of the tokens that are not what the chain says, in order.
   */
  async damagedTokens(store: TokenStore, chainKey: KeyObject, forgottenBefore: string): Promise<string[]> {
    const damaged: string[] = [];
    const rowless = new Map(this.#issued);
    for (let after: string | undefined, more = true; more; ) {
      const page = await store.listTokens({ after, limit: PAGE });
      for (const stored of page.items) {
        if (!this.#isSound(chainKey, stored)) damaged.push(stored.jti);
        rowless.delete(stored.jti);
      }
      after = page.items.at(-1)?.jti;
      more = page.more;
    }
    const cutoff = this.#prunedBefore > forgottenBefore ? this.#prunedBefore : forgottenBefore;
    for (const [jti, { family, expiresAt }] of rowless)
      if ((this.#ends.get(family) ?? expiresAt) >= cutoff) damaged.push(jti);
    return damaged.sort();
  }

  /**
   * @returns the ids of tokens that expire at `time` or later and live on though what issued them, or issued
   * their issuer, was revoked with cascade, in order: the cascade was cut short, or their records were hidden
   * from it.
   */
  escapedTokens(time: string): string[] {
    const issued = new Map<string, Set<string>>();
    for (const { family, issuer } of this.#issued.values()) {
      const by = issuer === undefined ? undefined : this.#issued.get(issuer)?.family;
      if (by === undefined) continue;
      const families = issued.get(by) ?? new Set();
      issued.set(by, families.add(family));
    }
    // A set that grows while it is walked: what is added is walked as well.
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
