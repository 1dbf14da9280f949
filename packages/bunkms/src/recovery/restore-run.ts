import { randomBytes } from 'node:crypto';
import type { AuditRecord } from '@bundoc/shared/contract/audit';
import type { AuditReceipt } from '@bundoc/shared/contract/keys';
import type { TokenInfo } from '@bundoc/shared/contract/tokens';
import { KEY_BYTES } from '@bundoc/shared/crypto/aead';
import type { ByteSource } from '@bundoc/shared/files/file-source';
import type { Caller } from '../records/caller.ts';
import type { AuditDraft } from '../records/chain.ts';
import type { Installation } from '../records/installation.ts';
import { foldKekRecords, isKekRecord } from '../records/kek-state.ts';
import { REVOCATION, revocationDraft, tokenIssueDraft } from '../records/token-record.ts';
import { kekIdOf } from '../records/wrapped-key.ts';
import type { KeyChange } from '../store/keys.ts';
import type { LoadEntry } from '../store/transfer.ts';
import { publicJwkOf, signingKeyOf } from '../vault/signing-key.ts';
import type { Vault } from '../vault/vault.ts';
import { FileDamaged, listOf, ResurrectionNotAccepted } from './errors.ts';
import type { PostBackupEvidence } from './evidence.ts';
import { type ArchivedKey, readArchive } from './read-archive.ts';
import type { Recovery } from './recovered-key.ts';
import { archivedSnapshot, knownKey, restoredKey } from './restored-key.ts';
import { opens, type Survey } from './survey.ts';

export interface RestoreOptions {
  /** Accepts that keys with an unknown later state come back; they are disabled. */
  readonly acceptResurrection: boolean;
  /** Called with the number of restored bytes of the archive. */
  readonly onProgress?: (bytes: number) => void;
}

/** The result of a restore. Names are in order. */
export interface RestoreReport {
  readonly archive: string;
  readonly archive_created_at: string;
  /** The last audit record of the backup, and the last one that the evidence covers. */
  readonly backup_audit: AuditReceipt;
  readonly knowledge: PostBackupEvidence['source'];
  readonly as_of: AuditReceipt;
  /** The last audit record of the restored store: a receipt. */
  readonly audit: AuditReceipt;
  readonly keys: number;
  /** Keys that are disabled because their later state is unknown. */
  readonly held: readonly string[];
  /** Keys that are destroyed now but were not in the backup. */
  readonly destroyed: readonly string[];
  /** Keys that lack versions from after the backup: `bunkms recover` looks for those. */
  readonly incomplete: readonly string[];
  /** Keys that were damaged or lost in the backup and are lost now, because their state is unknown. */
  readonly damaged: readonly string[];
  readonly tokens: number;
  readonly tokens_revoked: number;
  /** False when earlier tokens are signed with a key that is no longer used. */
  readonly signing_key_kept: boolean;
}

export interface RestoreParts {
  readonly vault: Vault;
  /** The survey of the restored archive. */
  readonly survey: Survey;
  readonly evidence: PostBackupEvidence;
  readonly options: RestoreOptions;
  readonly caller: Caller;
  readonly time: string;
}

/** Generates the content of the store for one restore, and tracks its progress. */
export class RestoreRun {
  readonly #vault: Vault;
  readonly #survey: Survey;
  readonly #evidence: PostBackupEvidence;
  readonly #options: RestoreOptions;
  readonly #recovery: Recovery;
  /** Names of keys and ids of tokens in the backup. */
  readonly #names = new Set<string>();
  readonly #jtis = new Set<string>();
  /** Families that a record of the restored chain revokes. */
  readonly #revokedInChain = new Set<string>();
  readonly #held: string[] = [];
  readonly #destroyed: string[] = [];
  readonly #incomplete: string[] = [];
  readonly #damaged: string[] = [];
  readonly #counts = { keys: 0, tokens: 0, tokensRevoked: 0 };
  #signingKid: string;

  constructor({ vault, survey, evidence, options, caller, time }: RestoreParts) {
    this.#vault = vault;
    this.#survey = survey;
    this.#evidence = evidence;
    this.#options = options;
    this.#recovery = { caller, time, source: 'backup' };
    this.#signingKid = survey.secrets.publicKey.kid;
  }

  /**
   * @throws ResurrectionNotAccepted when something that was destroyed may come back, unless that is accepted.
   */
  requireAcceptance(): void {
    if (this.#options.acceptResurrection) return;
    if (this.#evidence.source === 'none')
      throw new ResurrectionNotAccepted(
        'nothing is known of the time after the backup: keys may have been destroyed or disabled and tokens revoked since; give an inventory or a copy of the audit chain, or use --accept-resurrection',
      );
    const uncovered = [...this.#survey.soundKeys]
      .filter(([name, { id, state }]) => state !== 'destroyed' && !this.#evidence.covers(name, id))
      .map(([name]) => name);
    if (uncovered.length > 0)
      throw new ResurrectionNotAccepted(
        `the inventory lacks ${listOf(uncovered)}; use --accept-resurrection to get them back disabled`,
      );
  }

  async *entries(source: ByteSource): AsyncGenerator<LoadEntry> {
    let isChainDone = false;
    for await (const item of readArchive(this.#vault, source, this.#options.onProgress)) {
      if (item.kind !== 'head' && item.kind !== 'installation' && item.kind !== 'record' && !isChainDone) {
        isChainDone = true;
        yield* this.#goOnWithChain();
      }
      switch (item.kind) {
        case 'head':
          if (item.head.id !== this.#survey.head.id)
            throw new FileDamaged('the backup has changed since it was checked');
          break;
        case 'installation':
          yield { kind: 'installation', installation: this.#installation(item.installation) };
          break;
        case 'record':
          this.#noteRecord(item.record);
          yield item;
          break;
        case 'key':
          yield* this.#key(item);
          break;
        case 'token':
          yield* this.#token(item.token);
          break;
        case 'end':
          yield* this.#newerKeys();
          yield* this.#lostKeys();
          yield* this.#newerTokens();
          yield { kind: 'new-record', draft: this.#restored() };
      }
    }
  }

  report(audit: AuditReceipt): RestoreReport {
    const { head, end, secrets } = this.#survey;
    return {
      archive: head.id,
      archive_created_at: head.created_at,
      backup_audit: end.audit,
      knowledge: this.#evidence.source,
      as_of: this.#evidence.asOf,
      audit,
      keys: this.#counts.keys,
      held: this.#held,
      destroyed: this.#destroyed.sort(),
      incomplete: this.#incomplete.sort(),
      damaged: this.#damaged.sort(),
      tokens: this.#counts.tokens,
      tokens_revoked: this.#counts.tokensRevoked,
      signing_key_kept: this.#signingKid === secrets.publicKey.kid,
    };
  }

  /** The installation, with a new signing key unless that of the backup is known to be the latest. */
  #installation(installation: Installation): Installation {
    if (this.#keepsSigningKey()) return installation;
    const seed = randomBytes(KEY_BYTES);
    // Wrap with the KEK of the other secret: the first KEK of this ring may be a different one.
    this.#vault.makeCurrent(this.#kekOfSecrets());
    try {
      const signingKey = publicJwkOf(signingKeyOf(seed));
      this.#signingKid = signingKey.kid;
      return {
        ...installation,
        signingSeedWrapped: this.#vault.wrapSecret(seed, 'token-signing-seed'),
        signingKey,
      };
    } finally {
      seed.fill(0);
    }
  }

  #kekOfSecrets(): string {
    return kekIdOf(this.#survey.installation.chainKeyWrapped) ?? '';
  }

  #keepsSigningKey(): boolean {
    return this.#evidence.kid === this.#survey.secrets.publicKey.kid;
  }

  #noteRecord({ action, detail }: AuditRecord): void {
    if (action === REVOCATION) this.#revokedInChain.add(String(detail?.['family']));
  }

  async *#goOnWithChain(): AsyncGenerator<LoadEntry> {
    const kekRecords = [...this.#survey.kekRecords];
    for await (const record of this.#evidence.records()) {
      if (isKekRecord(record)) kekRecords.push(record);
      this.#noteRecord(record);
      yield { kind: 'record', record };
    }
    const { head, end } = this.#survey;
    const { source, asOf } = this.#evidence;
    yield {
      kind: 'new-record',
      draft: this.#draft('store.restore', {
        archive: head.id,
        backup_seq: end.audit.seq,
        backup_hash: end.audit.hash,
        knowledge: source,
        known_seq: asOf.seq,
        known_hash: asOf.hash,
        accepted_resurrection: this.#options.acceptResurrection,
        kid: this.#signingKid,
      }),
    };
    yield* this.#kekInRing(kekRecords);
  }

  /**
   * The current KEK may be lost, and that may be the reason for the restore. Then the KEK of the backup's
   * secrets replaces it, with a record.
   */
  *#kekInRing(records: readonly AuditRecord[]): Generator<LoadEntry> {
    const state = foldKekRecords(this.#survey.secrets.chainKey, records);
    if (!('keks' in state) || this.#vault.holds(state.current)) return;
    const detail = { kek_id: this.#kekOfSecrets(), from: state.current };
    yield { kind: 'new-record', draft: this.#draft('kek.rotate', detail) };
  }

  *#key(archived: ArchivedKey): Generator<LoadEntry> {
    const { key, versions } = archived;
    const { name } = key;
    this.#names.add(name);
    if (this.#survey.changes.faultOf(key) !== undefined) {
      yield* this.#damagedKey(archived);
      return;
    }
    const isCovered = this.#evidence.covers(name, key.id);
    const known = this.#evidence.snapshot(name, archivedSnapshot(archived));
    // The records of an audit copy are also restored.
    const isOnRecord = this.#evidence.source === 'audit-copy' && known !== undefined;
    // An inventory lacks the generations of storages: an offer in it may be void.
    const keepsOffers = this.#evidence.source !== 'inventory';
    const change = restoredKey(archived, known, { isCovered, isOnRecord, keepsOffers }, this.#recovery);
    if (!isCovered && key.state !== 'destroyed') this.#held.push(name);
    if (change !== undefined) yield* this.#changed(change);
    else {
      this.#counts.keys++;
      yield { kind: 'key', key };
      for (const version of versions) yield { kind: 'version', version };
    }
  }

  /**
   * A key whose record contradicts the chain. If its state is known, it comes back in that state, with the
   * versions that open under its identity. Otherwise its record is dropped, because anybody may have written
   * it.
   */
  *#damagedKey({ key, versions }: ArchivedKey): Generator<LoadEntry> {
    const known = this.#evidence.snapshot(key.name, undefined);
    if (known === undefined) {
      this.#damaged.push(key.name);
      return;
    }
    const own = versions.filter(
      (version) => version.keyId === known.id && opens(this.#vault, key.name, version),
    );
    yield* this.#changed(knownKey(known, own, this.#recovery));
  }

  *#changed({ record, versions, audit }: KeyChange): Generator<LoadEntry> {
    this.#counts.keys++;
    yield { kind: 'key', key: record };
    for (const version of versions) yield { kind: 'version', version };
    yield { kind: 'new-record', draft: audit };
    if (record.state === 'destroyed') this.#destroyed.push(record.name);
    if (versions.length < record.version) this.#incomplete.push(record.name);
  }

  /** Keys that were created after the backup. Their material is not available, but their names stay taken. */
  *#newerKeys(): Generator<LoadEntry> {
    for (const name of this.#evidence.names()) {
      if (this.#names.has(name)) continue;
      const known = this.#evidence.snapshot(name, undefined);
      if (known !== undefined) yield* this.#changed(knownKey(known, [], this.#recovery));
    }
  }

  /**
   * Names in the chain of the backup without a record. They stay damaged. A later recovery restores them
   * disabled, unless their state is fully known.
   */
  *#lostKeys(): Generator<LoadEntry> {
    const damaged = new Set(this.#damaged);
    for (const name of this.#survey.changes.names()) {
      if (this.#names.has(name) && !damaged.has(name)) continue;
      if (this.#evidence.snapshot(name, undefined) !== undefined) continue;
      if (!damaged.has(name)) this.#damaged.push(name);
      if (this.#evidence.source === 'audit-copy') continue;
      const draft = this.#draft('key.recover', { revision: 0, source: 'backup' });
      yield { kind: 'new-record', draft: { ...draft, outcome: 'failed', key: name, code: 'key_damaged' } };
    }
  }

  /** A token. If it is known to be revoked, or not known to be kept, it comes back revoked, with a record. */
  *#token(token: TokenInfo): Generator<LoadEntry> {
    this.#jtis.add(token.jti);
    const { family, revoked_at: revokedAt } = token;
    const isRevoked =
      !this.#keepsSigningKey() ||
      this.#evidence.revokedFamilies.has(family) ||
      this.#revokedInChain.has(family);
    if (!isRevoked && revokedAt === undefined) {
      yield* this.#counted(token);
      return;
    }
    const { caller, time } = this.#recovery;
    if (revokedAt === undefined) this.#counts.tokensRevoked++;
    yield* this.#counted({ ...token, revoked_at: revokedAt ?? time });
    // The audit copy contains later records, and the backup earlier ones.
    if (this.#revokedInChain.has(family)) return;
    this.#revokedInChain.add(family);
    yield { kind: 'new-record', draft: revocationDraft(caller, time, token, { source: 'backup' }) };
  }

  /** Tokens that were issued after the backup. They stay valid, and the revoked ones stay revoked. */
  *#newerTokens(): Generator<LoadEntry> {
    const { caller, time } = this.#recovery;
    for (const token of this.#evidence.tokens()) {
      if (this.#jtis.has(token.jti)) continue;
      if (this.#evidence.source === 'inventory')
        yield {
          kind: 'new-record',
          draft: tokenIssueDraft({ caller, time, action: 'token.restore' }, token),
        };
      yield* this.#token(token);
    }
  }

  *#counted(token: TokenInfo): Generator<LoadEntry> {
    this.#counts.tokens++;
    yield { kind: 'token', token };
  }

  #restored(): AuditDraft {
    return this.#draft('store.restored', {
      archive: this.#survey.head.id,
      keys: this.#counts.keys,
      held: this.#held.length,
      destroyed: this.#destroyed.length,
      incomplete: this.#incomplete.length,
      damaged: this.#damaged.length,
      tokens: this.#counts.tokens,
      tokens_revoked: this.#counts.tokensRevoked,
    });
  }

  #draft(action: string, detail: NonNullable<AuditDraft['detail']>): AuditDraft {
    const { caller, time } = this.#recovery;
    return { ...caller, time, severity: 'CRITICAL', action, outcome: 'allowed', detail };
  }
}
