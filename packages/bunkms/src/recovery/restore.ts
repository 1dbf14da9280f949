import { randomBytes } from 'node:crypto';
import { KEY_BYTES } from '@bundoc/shared/aead';
import type { Clock } from '@bundoc/shared/clock';
import type { AuditReceipt } from '@bundoc/shared/contract/keys';
import type { TokenInfo } from '@bundoc/shared/contract/tokens';
import type { Caller } from '../audit/caller.ts';
import type { AuditDraft } from '../audit/chain.ts';
import type { Installation, KeyChange, KmsStore, LoadEntry } from '../store/port.ts';
import { publicJwkOf, signingKeyOf } from '../vault/signing-key.ts';
import { kekOf } from '../vault/unseal.ts';
import type { Vault } from '../vault/vault.ts';
import type { ByteSource } from './archive.ts';
import { FileDamaged, ResurrectionNotAccepted } from './errors.ts';
import type { Knowledge } from './knowledge.ts';
import { type ArchivedKey, readArchive } from './read-archive.ts';
import type { Recovery } from './recovered-key.ts';
import { archivedStanding, lostKey, restoredKey } from './restored-key.ts';
import type { Survey } from './survey.ts';

export interface RestorePorts {
  readonly vault: Vault;
  /** Opens the store that is to be filled, once it is certain that there is something to fill it with. */
  readonly openStore: () => Promise<KmsStore>;
  readonly clock: Clock;
  readonly caller: Caller;
}

export interface RestoreOptions {
  /** Accepts that keys come back of which it is not known what became of them; they are disabled. */
  readonly acceptResurrection: boolean;
  /** Told how many bytes of the archive are in the store. */
  readonly onProgress?: (bytes: number) => void;
}

/** What a restore brought back. Names are in order. */
export interface RestoreReport {
  readonly archive: string;
  readonly archive_created_at: string;
  /** The last audit record of the backup, and the one up to which it was known what happened after. */
  readonly backup_audit: AuditReceipt;
  readonly knowledge: Knowledge['source'];
  readonly as_of: AuditReceipt;
  /** The last audit record of the restored store: a receipt. */
  readonly audit: AuditReceipt;
  readonly keys: number;
  /** Keys that are disabled, since it is not known what became of them. */
  readonly held: readonly string[];
  /** Keys that are destroyed now and were not in the backup. */
  readonly destroyed: readonly string[];
  /** Keys that lack versions which were made after the backup: `bunkms recover` looks for those. */
  readonly incomplete: readonly string[];
  /** Keys that were damaged in the backup. */
  readonly damaged: readonly string[];
  readonly tokens: number;
  readonly tokens_revoked: number;
  /** False when tokens from before are signed with a key that is not used any more. */
  readonly signing_key_kept: boolean;
}

/** There is something in the store already. */
export class StoreNotEmpty extends Error {
  override readonly name = 'StoreNotEmpty';
}

const BATCH = 500;

/**
 * Fills an empty store with a backup, as one write: a crash leaves nothing or all of it. The audit chain goes on from that of the backup,
 * with a CRITICAL record of the restore, and one for each key that does not come back as it was.
 *
 * A backup is older than what happened since. With knowledge of that, keys and tokens come back as they were last known; what is not covered
 * by it must be accepted, and then keys are disabled. Without any knowledge all tokens are revoked and the signing key is made anew, since
 * tokens that were issued and revoked after the backup would pass again.
 *
 * @param survey of this very archive.
 * @throws ResurrectionNotAccepted, StoreNotEmpty, FileDamaged; AppError of the store: nothing is restored then.
 */
export async function restore(
  ports: RestorePorts,
  source: ByteSource,
  survey: Survey,
  knowledge: Knowledge,
  options: RestoreOptions,
): Promise<RestoreReport> {
  const run = new RestoreRun(ports, survey, knowledge, options);
  run.requireAcceptance();
  await using store = await ports.openStore();
  if (!(await store.load(batched(run.entries(source)), survey.secrets.chainKey)))
    throw new StoreNotEmpty('there is a store already; a backup is restored into an empty data folder only');
  return run.report(await store.auditHead());
}

/** One restore, and what it has come across so far. */
class RestoreRun {
  readonly #ports: RestorePorts;
  readonly #survey: Survey;
  readonly #knowledge: Knowledge;
  readonly #options: RestoreOptions;
  readonly #recovery: Recovery;
  /** Names and token ids that are in the backup. */
  readonly #names = new Set<string>();
  readonly #jtis = new Set<string>();
  readonly #held: string[] = [];
  readonly #destroyed: string[] = [];
  readonly #incomplete: string[] = [];
  readonly #damaged: string[] = [];
  readonly #counts = { keys: 0, tokens: 0, tokensRevoked: 0 };
  #signingKid: string;

  constructor(ports: RestorePorts, survey: Survey, knowledge: Knowledge, options: RestoreOptions) {
    this.#ports = ports;
    this.#survey = survey;
    this.#knowledge = knowledge;
    this.#options = options;
    const time = new Date(ports.clock.now()).toISOString();
    this.#recovery = { caller: ports.caller, time, source: 'backup' };
    this.#signingKid = survey.secrets.publicKey.kid;
  }

  /** @throws ResurrectionNotAccepted when something may come back that was destroyed, and nobody has accepted that. */
  requireAcceptance(): void {
    if (this.#options.acceptResurrection) return;
    if (this.#knowledge.source === 'none')
      throw new ResurrectionNotAccepted(
        'nothing is known of the time after the backup: keys may have been destroyed or disabled and tokens revoked since; give an inventory or a copy of the audit chain, or say --accept-resurrection',
      );
    const uncovered = [...this.#survey.soundKeys]
      .filter(([name, { id, state }]) => state !== 'destroyed' && !this.#knowledge.covers(name, id))
      .map(([name]) => name);
    if (uncovered.length > 0)
      throw new ResurrectionNotAccepted(
        `the inventory says nothing of ${listOf(uncovered)}; say --accept-resurrection to get them back disabled`,
      );
  }

  async *entries(source: ByteSource): AsyncGenerator<LoadEntry> {
    const { vault } = this.#ports;
    let isChainDone = false;
    for await (const item of readArchive(vault, source, this.#options.onProgress)) {
      if (item.kind !== 'head' && item.kind !== 'installation' && item.kind !== 'record' && !isChainDone) {
        isChainDone = true;
        yield* this.#goOnWithChain();
      }
      switch (item.kind) {
        case 'head':
          if (item.head.id !== this.#survey.head.id)
            throw new FileDamaged('the backup was exchanged meanwhile');
          break;
        case 'installation':
          yield { kind: 'installation', installation: this.#installation(item.installation) };
          break;
        case 'record':
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
      knowledge: this.#knowledge.source,
      as_of: this.#knowledge.asOf,
      audit,
      keys: this.#counts.keys,
      held: this.#held,
      destroyed: this.#destroyed.sort(),
      incomplete: this.#incomplete.sort(),
      damaged: this.#damaged,
      tokens: this.#counts.tokens,
      tokens_revoked: this.#counts.tokensRevoked,
      signing_key_kept: this.#signingKid === secrets.publicKey.kid,
    };
  }

  /** With a new signing key, unless it is known that the one of the backup was in use to the end. */
  #installation(installation: Installation): Installation {
    const { vault } = this.#ports;
    if (this.#keepsSigningKey()) return installation;
    const seed = randomBytes(KEY_BYTES);
    try {
      const signingKey = publicJwkOf(signingKeyOf(seed));
      this.#signingKid = signingKey.kid;
      return {
        ...installation,
        signingSeedWrapped: vault.wrapSecret(seed, 'token-signing-seed'),
        signingKey,
        keks: withCurrentKek(installation, vault),
      };
    } finally {
      seed.fill(0);
    }
  }

  #keepsSigningKey(): boolean {
    return this.#knowledge.kid === this.#survey.secrets.publicKey.kid;
  }

  async *#goOnWithChain(): AsyncGenerator<LoadEntry> {
    for await (const record of this.#knowledge.records()) yield { kind: 'record', record };
    const { head, end } = this.#survey;
    const { source, asOf } = this.#knowledge;
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
  }

  *#key(archived: ArchivedKey): Generator<LoadEntry> {
    const { key, versions } = archived;
    const { name } = key;
    this.#names.add(name);
    this.#counts.keys++;
    if (this.#survey.changes.faultOf(key) !== undefined) {
      this.#damaged.push(name);
      yield { kind: 'key', key };
      for (const version of versions) yield { kind: 'version', version };
      return;
    }
    const isCovered = this.#knowledge.covers(name, key.id);
    const known = this.#knowledge.standing(name, archivedStanding(archived));
    const change = restoredKey(archived, known, isCovered, this.#recovery);
    if (!isCovered && key.state !== 'destroyed') this.#held.push(name);
    if (change !== undefined) yield* this.#changed(change);
    else {
      yield { kind: 'key', key };
      for (const version of versions) yield { kind: 'version', version };
    }
  }

  *#changed({ record, versions, audit }: KeyChange): Generator<LoadEntry> {
    yield { kind: 'key', key: record };
    for (const version of versions) yield { kind: 'version', version };
    yield { kind: 'new-record', draft: audit };
    if (record.state === 'destroyed') this.#destroyed.push(record.name);
    if (versions.length < record.version) this.#incomplete.push(record.name);
  }

  /** Keys that were made after the backup: nothing of them is at hand, but their names stay taken. */
  *#newerKeys(): Generator<LoadEntry> {
    for (const name of this.#knowledge.names()) {
      if (this.#names.has(name)) continue;
      const known = this.#knowledge.standing(name, undefined);
      if (known === undefined) continue;
      this.#counts.keys++;
      yield* this.#changed(lostKey(known, this.#recovery));
    }
  }

  *#token(token: TokenInfo): Generator<LoadEntry> {
    this.#jtis.add(token.jti);
    const isRevoked = !this.#keepsSigningKey() || this.#knowledge.revokedFamilies.has(token.family);
    if (isRevoked && token.revoked_at === undefined) {
      this.#counts.tokensRevoked++;
      yield* this.#counted({ ...token, revoked_at: this.#recovery.time });
    } else yield* this.#counted(token);
  }

  /** Tokens that were issued after the backup: they go on, and the revoked ones are known as such to whoever asks. */
  *#newerTokens(): Generator<LoadEntry> {
    for (const token of this.#knowledge.tokens()) if (!this.#jtis.has(token.jti)) yield* this.#token(token);
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

const LISTED_MAX = 10;

/** For a message: the first few, and how many more. */
export function listOf(names: readonly string[]): string {
  const more = names.length - LISTED_MAX;
  return more > 0 ? `${names.slice(0, LISTED_MAX).join(', ')} and ${more} more` : names.join(', ');
}

/** The KEKs that a store knows, with the one that its new secret is wrapped with. */
function withCurrentKek({ keks }: Installation, vault: Vault): Installation['keks'] {
  const current = kekOf(vault, vault.currentKekId);
  return keks.some(({ id }) => id === current.id) ? keks : [...keks, current];
}

async function* batched(entries: AsyncIterable<LoadEntry>): AsyncGenerator<readonly LoadEntry[]> {
  let batch: LoadEntry[] = [];
  for await (const entry of entries) {
    batch.push(entry);
    if (batch.length < BATCH) continue;
    yield batch;
    batch = [];
  }
  if (batch.length > 0) yield batch;
}
