import type { AuditRecord } from '@bundoc/shared/contract/audit';
import type { AuditReceipt } from '@bundoc/shared/contract/keys';
import type { TokenInfo } from '@bundoc/shared/contract/tokens';
import { isIssue, REVOCATION } from '../records/token-record.ts';
import type { AuditCopy } from './audit-copy.ts';
import { DamagedFile, ResurrectionNotAccepted } from './errors.ts';
import type { Inventory } from './inventory.ts';
import { afterChange, type KeySnapshot } from './key-snapshot.ts';
import type { Survey } from './survey.ts';
import { tokenOfIssue } from './token-of-issue.ts';

/** Knowledge about the time after a backup. */
export interface PostBackupEvidence {
  readonly source: 'inventory' | 'audit-copy' | 'none';
  /** The last record up to which everything is known; that of the backup without later knowledge. */
  readonly asOf: AuditReceipt;
  /** The `kid` of the signing key; undefined when unknown. */
  readonly kid: string | undefined;
  /** The hash of a record after the backup; undefined when unknown. */
  hashAt(seq: number): string | undefined;
  /** Records of the audit chain that follow those of the backup. */
  records(): AsyncIterable<AuditRecord>;
  /** The state of a key, if it is known to have changed since the backup. */
  snapshot(name: string, inBackup: KeySnapshot | undefined): KeySnapshot | undefined;
  /** Whether the later state of a key in the backup is known. */
  covers(name: string, id: string): boolean;
  /** Names of the known keys, including those in the backup. */
  names(): Iterable<string>;
  /** Known tokens, including revoked ones. If one token of a family is revoked, all are. */
  tokens(): Iterable<TokenInfo>;
  readonly revokedFamilies: ReadonlySet<string>;
}

async function* none(): AsyncGenerator<never> {}

/** No later knowledge: everything may have been destroyed or revoked since. */
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
 * The evidence of an inventory. It must not be older than the backup, neither by its place in the audit chain
 * nor by its time.
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
    throw new DamagedFile('the inventory and the backup are from different installations');
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
 * The evidence of a copy of the audit chain that continues the backup's chain without gaps.
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

  /** The chain has every change of every key. */
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
 * Checks receipts of the caller against the evidence.
 *
 * @throws DamagedFile for a record other than that of a receipt; ResurrectionNotAccepted for a receipt
 *   beyond the evidence, unless that is accepted.
 */
export function requireReceipts(
  evidence: Pick<PostBackupEvidence, 'asOf' | 'hashAt'>,
  receipts: readonly AuditReceipt[],
  acceptResurrection: boolean,
): void {
  for (const { seq, hash } of receipts) {
    const known = evidence.hashAt(seq);
    if (known !== undefined && known !== hash)
      throw new DamagedFile(`record ${seq} is not that of the receipt: it belongs to another history`);
    const { asOf } = evidence;
    if (seq > asOf.seq && !acceptResurrection)
      throw new ResurrectionNotAccepted(
        `a record ${seq} existed, but nothing is known after record ${asOf.seq}; give newer evidence, or use --accept-resurrection`,
      );
  }
}
