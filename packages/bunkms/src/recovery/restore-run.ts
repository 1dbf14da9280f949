import { randomBytes } from 'node:crypto';
import type { AuditRecord } from '@bundoc/shared/contract/audit';
import type { AuditReceipt } from '@bundoc/shared/contract/keys';
import { KEY_BYTES } from '@bundoc/shared/crypto/aead';
import type { ByteSource } from '@bundoc/shared/files/file-source';
import type { AuditDraft } from '../records/chain.ts';
import type { Installation } from '../records/installation.ts';
import { foldKekRecords, isKekRecord } from '../records/kek-state.ts';
import { CHAIN_RESTORED, epochOf, restoreDraft } from '../records/restore-record.ts';
import { kekIdOf } from '../records/wrapped-key.ts';
import type { LoadEntry } from '../store/transfer.ts';
import { publicJwkOf, signingKeyOf } from '../vault/signing-key.ts';
import { DamagedFile } from './errors.ts';
import { readArchive } from './read-archive.ts';
import { draftOf, keepsSigningKey, type RestoreParts } from './restore-parts.ts';
import { RestoredKeys } from './restored-keys.ts';
import { RestoredStorages } from './restored-storages.ts';
import { RestoredTokens } from './restored-tokens.ts';

/** The result of a restore. Names are in order. */
export interface RestoreReport {
  readonly archive: string;
  readonly archive_created_at: string;
  /** The last audit record of the backup, and the last one up to which everything is known. */
  readonly backup_audit: AuditReceipt;
  readonly knowledge: 'audit-copy' | 'none';
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
  /** Storages of Bundoc. The restore counts as a take-over of each. */
  readonly storages: number;
  /** False when earlier tokens are signed with a key that is no longer used. */
  readonly signing_key_kept: boolean;
}

/** Generates the content of the store for one restore. */
export class RestoreRun {
  readonly #parts: RestoreParts;
  readonly #tokens: RestoredTokens;
  readonly #keys: RestoredKeys;
  readonly #storages: RestoredStorages;
  readonly #epochs: number[] = [];
  #signingKid: string;

  constructor(parts: RestoreParts) {
    this.#parts = parts;
    this.#tokens = new RestoredTokens(parts);
    this.#keys = new RestoredKeys(parts);
    this.#storages = new RestoredStorages(parts);
    this.#signingKid = parts.survey.secrets.publicKey.kid;
  }

  async *entries(source: ByteSource): AsyncGenerator<LoadEntry> {
    let isChainDone = false;
    for await (const item of readArchive(this.#parts.vault, source, this.#parts.options.onProgress)) {
      if (item.kind !== 'head' && item.kind !== 'installation' && item.kind !== 'record' && !isChainDone) {
        isChainDone = true;
        yield* this.#continueChain();
      }
      switch (item.kind) {
        case 'head':
          if (item.head.id !== this.#parts.survey.head.id)
            throw new DamagedFile('the backup has changed since it was checked');
          break;
        case 'installation':
          yield { kind: 'installation', installation: this.#installation(item.installation) };
          break;
        case 'record':
          this.#note(item.record);
          yield item;
          break;
        case 'key':
          yield* this.#keys.archived(item);
          break;
        case 'token':
          yield* this.#tokens.archived(item.token);
          break;
        case 'end':
          yield* this.#keys.newer();
          yield* this.#keys.lost();
          yield* this.#tokens.newer();
          yield* this.#storages.takenOver();
          yield { kind: 'new-record', draft: this.#restored() };
          yield { kind: 'new-record', draft: this.#newEpoch() };
      }
    }
  }

  report(audit: AuditReceipt): RestoreReport {
    const { head, end, secrets } = this.#parts.survey;
    return {
      archive: head.id,
      archive_created_at: head.created_at,
      backup_audit: end.audit,
      knowledge: this.#knowledge,
      as_of: this.#asOf,
      audit,
      keys: this.#keys.count,
      held: this.#keys.held.sort(),
      destroyed: this.#keys.destroyed.sort(),
      incomplete: this.#keys.incomplete.sort(),
      damaged: this.#keys.damaged.sort(),
      tokens: this.#tokens.count,
      tokens_revoked: this.#tokens.revokedCount,
      storages: this.#storages.count,
      signing_key_kept: this.#signingKid === secrets.publicKey.kid,
    };
  }

  get #knowledge(): RestoreReport['knowledge'] {
    return this.#parts.evidence === undefined ? 'none' : 'audit-copy';
  }

  get #asOf(): AuditReceipt {
    return this.#parts.evidence?.copy.head ?? this.#parts.survey.end.audit;
  }

  /** The installation, with a new signing key unless that of the backup is known to be the latest. */
  #installation(installation: Installation): Installation {
    if (keepsSigningKey(this.#parts)) return installation;
    const seed = randomBytes(KEY_BYTES);
    // Wrap with the KEK of the other secret: the first KEK of this ring may be a different one.
    this.#parts.vault.makeCurrent(this.#kekOfSecrets());
    try {
      const signingKey = publicJwkOf(signingKeyOf(seed));
      this.#signingKid = signingKey.kid;
      return {
        ...installation,
        signingSeedWrapped: this.#parts.vault.wrapSecret(seed, 'token-signing-seed'),
        signingKey,
      };
    } finally {
      seed.fill(0);
    }
  }

  #kekOfSecrets(): string {
    return kekIdOf(this.#parts.survey.installation.chainKeyWrapped) ?? '';
  }

  async *#continueChain(): AsyncGenerator<LoadEntry> {
    const kekRecords = [...this.#parts.survey.kekRecords];
    for await (const record of this.#parts.evidence?.copy.records() ?? []) {
      if (isKekRecord(record)) kekRecords.push(record);
      this.#note(record);
      yield { kind: 'record', record };
    }
    const { head, end } = this.#parts.survey;
    yield {
      kind: 'new-record',
      draft: draftOf(this.#parts, 'store.restore', {
        archive: head.id,
        backup_seq: end.audit.seq,
        backup_hash: end.audit.hash,
        knowledge: this.#knowledge,
        known_seq: this.#asOf.seq,
        known_hash: this.#asOf.hash,
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
    const state = foldKekRecords(this.#parts.survey.secrets.chainKey, records);
    if (!('keks' in state) || this.#parts.vault.holds(state.current)) return;
    const detail = { kek_id: this.#kekOfSecrets(), from: state.current };
    yield { kind: 'new-record', draft: draftOf(this.#parts, 'kek.rotate', detail) };
  }

  #note(record: AuditRecord): void {
    this.#tokens.note(record);
    this.#storages.note(record);
    if (record.action === CHAIN_RESTORED) this.#epochs.push(epochOf(record));
  }

  /** The last record: receipts of what was lost are older than it. */
  #newEpoch(): AuditDraft {
    const { caller, time, survey } = this.#parts;
    return restoreDraft(caller, Date.parse(time), this.#epochs, { archive: survey.head.id });
  }

  #restored(): AuditDraft {
    return draftOf(this.#parts, 'store.restored', {
      archive: this.#parts.survey.head.id,
      keys: this.#keys.count,
      held: this.#keys.held.length,
      destroyed: this.#keys.destroyed.length,
      incomplete: this.#keys.incomplete.length,
      damaged: this.#keys.damaged.length,
      tokens: this.#tokens.count,
      tokens_revoked: this.#tokens.revokedCount,
      storages: this.#storages.count,
    });
  }
}
