import type { AuditRecord } from '@bundoc/shared/contract/audit';
import type { AuditReceipt } from '@bundoc/shared/contract/keys';
import type { TokenInfo } from '@bundoc/shared/contract/tokens';
import { isIssue, REVOCATION, tokenOfIssue } from '../records/token-record.ts';
import type { AuditCopy } from './audit-copy.ts';
import { FileDamaged, ResurrectionNotAccepted } from './errors.ts';
import type { Inventory } from './inventory.ts';
import { afterChange, type KeySnapshot } from './key-snapshot.ts';
import type { Survey } from './survey.ts';

/** What is known of the time after a backup was made. */
export interface PostBackupEvidence {
  readonly source: 'inventory' | 'audit-copy' | 'none';
  /**
   * The last record up to which everything is known; that of the backup when nothing is known of the time
   * after.
   */
  readonly asOf: AuditReceipt;
  /** The key that tokens were signed with; undefined when that is not known. */
  readonly kid: string | undefined;
  /** The hash of a record behind the backup; undefined when it is not known. */
  hashAt(seq: number): string | undefined;
  /** Records of the audit chain that follow on those of the backup. */
  records(): AsyncIterable<AuditRecord>;
  /** How a key stood, if it is known that it did not stay as it was in the backup. */
  snapshot(name: string, inBackup: KeySnapshot | undefined): KeySnapshot | undefined;
  /** Whether it is known what became of a key that is in the backup. */
  covers(name: string, id: string): boolean;
  /** Names of keys that are known, those that are in the backup among them. */
  names(): Iterable<string>;
  /** Tokens that are known, revoked ones among them; of a family of which one is revoked, all are. */
  tokens(): Iterable<TokenInfo>;
  readonly revokedFamilies: ReadonlySet<string>;
}

async function* none(): AsyncGenerator<never> {}

/** Nothing is known: everything may have been destroyed or revoked since. */
export function noEvidence({ end }: Pick<Survey, 'end'>): PostBackupEvidence {
  return {
    source: 'none',
    asOf: end.audit,
    kid: undefined,
    hashAt: () => undefined,
    records: none,
    snapshot: () => undefined,
    covers: () => false,
    names: () => [],
    tokens: () => [],
    revokedFamilies: new Set(),
  };
}

/**
 * What an inventory tells, which must not be older than the backup: neither by its place in the audit chain,
 * nor by the time at which it was made.
 *
 * @throws ResurrectionNotAccepted when it is older.
 */
export function evidenceOfInventory(
  inventory: Inventory,
  { head, end }: Pick<Survey, 'head' | 'end'>,
): PostBackupEvidence {
  const { audit, created_at, kid, keys, tokens } = inventory;
  if (audit.seq < end.audit.seq || created_at < head.created_at)
    throw new ResurrectionNotAccepted(
      `the inventory of ${created_at}, as of record ${audit.seq}, is older than the backup of ${head.created_at}, as of record ${end.audit.seq}: it says nothing of the time after`,
    );
  if (audit.seq === end.audit.seq && audit.hash !== end.audit.hash)
    throw new FileDamaged('the inventory is not of the same installation as the backup');
  const byName = new Map(keys.map((key) => [key.name, key]));
  return {
    source: 'inventory',
    asOf: audit,
    kid,
    hashAt: (seq) => (seq === audit.seq ? audit.hash : undefined),
    records: none,
    snapshot: (name) => {
      const known = byName.get(name);
      return known && { ...known, offer: null };
    },
    covers: (name, id) => byName.get(name)?.id === id,
    names: () => byName.keys(),
    tokens: () => tokens,
    revokedFamilies: new Set(
      tokens.filter(({ revoked_at }) => revoked_at !== undefined).map(({ family }) => family),
    ),
  };
}

/**
 * What a copy of the audit chain tells, which goes on from the backup's chain without a gap.
 *
 * One class, because it has the members of its port, and one pass over the records fills them all.
 */
export class EvidenceOfCopy implements PostBackupEvidence {
  readonly source = 'audit-copy';
  readonly asOf: AuditReceipt;
  readonly revokedFamilies = new Set<string>();
  readonly #copy: AuditCopy;
  readonly #changes = new Map<string, AuditRecord[]>();
  readonly #tokens = new Map<string, TokenInfo>();
  #kid: string;

  constructor(copy: AuditCopy, { secrets }: Pick<Survey, 'secrets'>) {
    this.#copy = copy;
    this.asOf = copy.head;
    this.#kid = secrets.publicKey.kid;
    for (const record of copy.notable) this.#note(record);
  }

  get kid(): string {
    return this.#kid;
  }

  hashAt(seq: number): string | undefined {
    return this.#copy.hashAt(seq);
  }

  records(): AsyncGenerator<AuditRecord> {
    return this.#copy.records();
  }

  snapshot(name: string, inBackup: KeySnapshot | undefined): KeySnapshot | undefined {
    const changes = this.#changes.get(name);
    return changes?.reduce(afterChange, inBackup);
  }

  /** Nothing that happened to a key is missing in the chain. */
  covers(): boolean {
    return true;
  }

  names(): Iterable<string> {
    return this.#changes.keys();
  }

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
    if (isIssue(record)) this.#noteToken(record);
    if (action === REVOCATION) this.#revoke(String(detail['family']), time);
    if (action === 'store.restore') this.#kid = String(detail['kid']);
  }

  #noteToken(record: AuditRecord): void {
    const token = tokenOfIssue(record);
    if (token !== undefined) this.#tokens.set(token.jti, token);
  }

  #revoke(family: string, time: string): void {
    this.revokedFamilies.add(family);
    for (const [jti, token] of this.#tokens)
      if (token.family === family) this.#tokens.set(jti, { ...token, revoked_at: time });
  }
}

/**
 * Holds what is known against places of records that a caller brings along.
 *
 * @throws FileDamaged for another record in such a place; ResurrectionNotAccepted for a place behind all that
 * is known, unless that is accepted.
 */
export function requireReceipts(
  evidence: Pick<PostBackupEvidence, 'asOf' | 'hashAt'>,
  receipts: readonly AuditReceipt[],
  acceptResurrection: boolean,
): void {
  for (const { seq, hash } of receipts) {
    const known = evidence.hashAt(seq);
    if (known !== undefined && known !== hash)
      throw new FileDamaged(`record ${seq} is not that of the receipt: it is of another history`);
    const { asOf } = evidence;
    if (seq > asOf.seq && !acceptResurrection)
      throw new ResurrectionNotAccepted(
        `there was a record ${seq}, and nothing is known of what came after record ${asOf.seq}; give something newer, or say --accept-resurrection`,
      );
  }
}
