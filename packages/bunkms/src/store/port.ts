import type { KeyObject } from 'node:crypto';
import type { AuditRecord } from '@bundoc/shared/contract/audit';
import type { AuditReceipt, KeyInfo, KeyVersion } from '@bundoc/shared/contract/keys';
import type { Jwks, TokenInfo } from '@bundoc/shared/contract/tokens';
import type { AuditDraft, ChainHead } from '../audit/chain.ts';

/** A KEK that the store has been used with: its id and check value, both hex. Reveals nothing of the KEK. */
export interface KnownKek {
  readonly id: string;
  readonly checkValue: string;
}

/** A public key as the JWKS gives it. */
export type PublicJwk = Jwks['keys'][number];

/** What the first start makes, once and for good. */
export interface Installation {
  readonly createdAt: string;
  readonly chainKeyWrapped: Uint8Array;
  readonly signingSeedWrapped: Uint8Array;
  /** In clear and not authenticated: told to people (`bunkms status`), never trusted. */
  readonly signingKey: PublicJwk;
  readonly keks: readonly KnownKek[];
}

/** The offer of a key: the storage that may accept it, and the move that the offer is a part of. */
export interface KeyOffer {
  readonly to: string;
  readonly move: string;
  /** Of the holder that made it: when the holder advances, the offer is void. */
  readonly generation: string;
}

/**
 * A key as it is stored, without its versions. The store keeps it as it is given and judges nothing of it: that it is
 * genuine and the latest is shown by the audit chain (`audit/key-record.ts`).
 */
export interface KeyRecord {
  readonly id: string;
  readonly name: string;
  readonly type: KeyInfo['type'];
  readonly state: KeyInfo['state'];
  /** The current version. */
  readonly version: number;
  /** 1 when the key is made, and one more with each change. */
  readonly revision: number;
  readonly exportable: boolean;
  readonly rotateAfterDays: number | null;
  /** When the service has to do something by itself: rotate an enabled key, destroy one that is pending deletion. */
  readonly dueAt: string | null;
  readonly createdAt: string;
  readonly destroyedAt: string | null;
  /** Every KEK that ever wrapped a copy of a version, by id, in the order of first use. */
  readonly kekIds: readonly string[];
  /** Of the create that made the key, if it came with an idempotency key: hashes of that key and of the request. */
  readonly idempotency: { readonly key: string; readonly request: string } | null;
  /** Digests of the versions 1, 2, … behind each other, 32 bytes each. */
  readonly versionDigests: Uint8Array;
  /** The storage that holds the key, or `HOLDER_UNKNOWN`; null when nobody does. */
  readonly holder: string | null;
  /** To whom its holder hands it over, and in which move. */
  readonly offer: KeyOffer | null;
  /** Since when its holder wants it shredded. */
  readonly intendedAt: string | null;
}

/** One version of a key as it is stored. */
export interface KeyVersionRecord {
  readonly keyId: string;
  readonly version: number;
  readonly kcv: string;
  readonly state: KeyVersion['state'];
  readonly createdAt: string;
  readonly destroyedAt: string | null;
  /** The wrapped DEK; no bytes once the version is destroyed. */
  readonly wrapped: Uint8Array;
}

/** What the store has on a key name, all of one moment. Not to be trusted before it is authenticated. */
export interface StoredKey {
  /** Undefined when it is lost. */
  readonly record: KeyRecord | undefined;
  /** The versions asked for that there are records of, in ascending order. */
  readonly versions: readonly KeyVersionRecord[];
  /** The latest audit record of that key name whose `detail` has a `revision`. */
  readonly lastChange: AuditRecord | undefined;
}

/** A stored key of a list. */
export interface NamedKey extends StoredKey {
  readonly name: string;
}

/** What the store has on a token, all of one moment. Not to be believed before it is authenticated (`audit/token-record.ts`). */
export interface StoredToken {
  readonly jti: string;
  /** Undefined when it is lost. Its `revoked_at` says nothing by itself: the audit chain does. */
  readonly row: TokenInfo | undefined;
  /** The audit record of its issue ({@link TOKEN_ACTIONS}). */
  readonly issued: AuditRecord | undefined;
  /** The first audit record that revokes its family. */
  readonly revoked: AuditRecord | undefined;
}

/** Which versions to read with a key. */
export type VersionChoice = number | 'current' | 'all';

/** A key as it shall be from now on, the versions that are new or become other ones, and the record that tells of it. */
export interface KeyChange {
  readonly record: KeyRecord;
  readonly versions: readonly KeyVersionRecord[];
  readonly audit: AuditDraft;
  /** The `jti` of the token in whose name this is done, which must be live ({@link KmsStore.liveFamily}) at that moment. */
  readonly jti?: string | undefined;
}

/** What tells one state of a key from any other, also from one that differs in its wrapping alone. */
export type KeyMark = Pick<KeyRecord, 'id' | 'revision' | 'versionDigests'>;

/** A change of a key that is stored as `previous`. Its revision is the next one, or the same when it is rewrapped and nothing else. */
export interface KeyUpdate extends KeyChange {
  readonly previous: KeyMark;
  readonly storages?: readonly StorageMark[] | undefined;
  /** Behind this record the key may not have been released. */
  readonly quietSince?: number | undefined;
}

/** The service's own secrets, wrapped. */
export type WrappedSecrets = Pick<Installation, 'chainKeyWrapped' | 'signingSeedWrapped'>;

/** How many versions of keys, and secrets of the service, are wrapped with a KEK. */
export interface KekUse {
  readonly kekId: string;
  readonly versions: number;
  readonly secrets: number;
}

/** One thing that a store keeps. */
export type StoreEntry =
  | { readonly kind: 'installation'; readonly installation: Installation }
  | { readonly kind: 'record'; readonly record: AuditRecord }
  | { readonly kind: 'key'; readonly key: KeyRecord }
  | { readonly kind: 'version'; readonly version: KeyVersionRecord }
  | { readonly kind: 'token'; readonly token: TokenInfo };

/** What a new store is filled with: what another one kept, and records that are new and get their places in the chain now. */
export type LoadEntry = StoreEntry | { readonly kind: 'new-record'; readonly draft: AuditDraft };

/** A storage of Bundoc that must stand as it was read. */
export interface StorageMark {
  readonly id: string;
  /** Number of its latest record; undefined when there was none. */
  readonly seq: number | undefined;
  /** Behind this record no key may have been released to the storage. */
  readonly quietSince?: number | undefined;
}

/** What must hold at the moment at which an audit record is appended; else the record is left out. */
export interface AuditCondition {
  /** The `jti` of a token that must be live ({@link KmsStore.liveFamily}). */
  readonly jti?: string | undefined;
  /** A key that must be as it was read. */
  readonly key?: KeyMark | undefined;
  readonly storage?: StorageMark | undefined;
  /** Number of the record that must still be the latest of the KEKs. */
  readonly kekRecord?: number | undefined;
  /** A KEK that nothing may be wrapped with. */
  readonly unusedKek?: string | undefined;
  /** A KEK that every service which is up at `now` must hold ({@link KmsStore.announce}). */
  readonly kekOfAll?: { readonly kekId: string; readonly now: string } | undefined;
}

/** Why a record was left out. */
export type LeftOut =
  | 'token_revoked'
  | 'key_changed'
  | 'storage_changed'
  | 'keks_changed'
  | 'kek_in_use'
  | 'kek_not_held';

/** Keyset paging: at most `limit` entries behind the entry `after` (from the start without it). */
export interface PageQuery<Cursor> {
  readonly after?: Cursor | undefined;
  readonly limit: number;
}

export interface Page<T> {
  readonly items: readonly T[];
  /** True when more follow behind the last item. */
  readonly more: boolean;
}

/**
 * A page of a list that is filtered. For one page a store looks at a bounded number of entries, so that nobody's filter holds up
 * the others: it may hold fewer than `limit`, or none, and still have `more`.
 */
export interface FilteredPage<T, Cursor> extends Page<T> {
  /** Where to go on when that is not the last item: see {@link cursorOf}. */
  readonly next?: Cursor | undefined;
}

/** Where to go on behind a page, while there is more. @param cursorOfItem the cursor that stands for an item. */
export function cursorOf<T, Cursor>(
  { items, more, next }: FilteredPage<T, Cursor>,
  cursorOfItem: (item: T) => Cursor,
): Cursor | undefined {
  if (!more || next !== undefined) return next;
  const last = items.at(-1);
  return last === undefined ? undefined : cursorOfItem(last);
}

/** All that is given must hold; times are ISO 8601 in UTC, `from` inclusive, `to` exclusive. */
export interface AuditQuery extends PageQuery<number> {
  readonly severity?: AuditRecord['severity'] | undefined;
  readonly key?: string | undefined;
  readonly actor?: string | undefined;
  readonly from?: string | undefined;
  readonly to?: string | undefined;
  /** False leaves out records of uses of keys (`USE_ACTIONS`). */
  readonly uses?: false | undefined;
  /** False leaves out all records that there are very many of (`BULK_ACTIONS`), without a walk over them. */
  readonly bulk?: false | undefined;
}

/** Records of the issue of tokens of one family, or by one token, behind that number. */
export interface IssuePlace {
  readonly of: string;
  readonly after: number;
}

/** A bounded piece of work for a holder. */
export interface TaskClaim {
  readonly task: string;
  readonly holder: string;
  readonly now: string;
  readonly until: string;
}

/** A service that is up. Times are ISO 8601 in UTC. */
export interface Presence {
  readonly service: string;
  readonly kekIds: readonly string[];
  readonly now: string;
  readonly until: string;
}

/** Names of keys; `next` is where to go on, behind that name, while there may be more. */
export interface ForwardPage {
  readonly names: readonly string[];
  readonly next?: string;
}

/** Actions of records that make a token known; each names it as `detail.token` and its family as `detail.family`. */
export const TOKEN_ACTIONS = ['token.issue', 'token.renew', 'token.restore'] as const;
/** Action of a record that revokes the family which it names as `detail.family`, until `detail.expires_at`. */
export const REVOCATION = 'token.revoke';

/** A place among the revocations, which are in the order of the ends of what they revoke. */
export interface RevocationPlace {
  readonly expiresAt: string;
  readonly seq: number;
}

/** Actions of records that tell of a use of a key. */
export const USE_ACTIONS: readonly string[] = ['key.export', 'key.encrypt', 'key.decrypt', 'key.rewrap'];
/** Actions of records that come in great numbers: uses of keys, and new wrappings of them. */
export const BULK_ACTIONS: readonly string[] = [...USE_ACTIONS, 'kek.rewrap'];

/** Records from the newest back; `next` is where to go on, below that `seq`, while there may be more. */
export interface BackwardPage {
  readonly items: readonly AuditRecord[];
  readonly next?: number;
}

/**
 * Where BunKMS keeps everything. `store/conformance.ts` holds every implementation to this text.
 *
 * **Trust**: none. The store sees wrapped keys and the audit chain; the one key it is given is the chain key
 * ({@link unlock}), because the head of the chain must be read and advanced in one transaction.
 *
 * **Durability**: a resolved write has reached the disk (or a quorum); it survives `kill -9` and power loss. A change and its
 * audit record are one transaction. Several processes may write at once; each write is serialised.
 *
 * **Errors**, of every method: AppError `storage_unavailable` when the storage fails or does not answer in time,
 * `disk_full`, and `overloaded` when too many calls wait already. A write that failed with `storage_unavailable` may
 * nevertheless have happened. Methods that write records also throw `storage_unavailable` before {@link unlock}.
 */
export interface KmsStore extends AsyncDisposable {
  /** The installation, or undefined before the first start. */
  readInstallation(): Promise<Installation | undefined>;

  /**
   * Records the installation and the first audit record, unless there is an installation.
   *
   * @returns false when another process was first; nothing was changed then.
   */
  initialise(installation: Installation, chainKey: KeyObject, record: AuditDraft): Promise<boolean>;

  /** Gives the key of the audit chain, which every write of records needs. Kept in memory only. */
  unlock(chainKey: KeyObject): Promise<void>;

  /** Remembers a further KEK. @returns false, with nothing changed, when a KEK of that id is known already. */
  addKek(kek: KnownKek, record: AuditDraft): Promise<boolean>;

  /** The records of the audit chain that say what the KEKs are (`KEK_ACTIONS`), in their order. */
  kekRecords(): Promise<readonly AuditRecord[]>;

  /** What is wrapped with which KEK, as the wrapped bytes themselves say; the KEKs in the order of their ids. */
  kekUses(): Promise<readonly KekUse[]>;

  /** How many versions of keys are wrapped with another KEK than this. Cheap when there are few. */
  countWrappedOtherwise(kekId: string): Promise<number>;

  /**
   * Keys, with all their versions, of which a version is wrapped with this KEK, in the order of their ids. A page may hold fewer than `limit` and
   * still have more behind it, when they have very many versions.
   */
  listWrapped(kekId: string, page: PageQuery<string>): Promise<Page<NamedKey>>;

  /**
   * Puts the service's secrets, wrapped with the current KEK, in the place of `previous`.
   *
   * @returns false, with nothing written, when others are stored, or another KEK is the current one.
   */
  replaceSecrets(secrets: WrappedSecrets, previous: WrappedSecrets, record: AuditDraft): Promise<boolean>;

  /**
   * Takes a task for a holder until a time, or goes on holding it; so that of several processes one works on it.
   *
   * @param claim times are ISO 8601 in UTC. A claim that reaches further than `until` is that of a clock which was set back, and counts as over.
   * @returns false when another one has it.
   */
  claim(claim: TaskClaim): Promise<boolean>;

  /** Says that a service is up until a time, and which KEKs it holds; so that no KEK becomes the current one that one of them lacks. */
  announce(presence: Presence): Promise<void>;

  /** A service is not up any more. */
  withdraw(service: string): Promise<void>;

  /** Gives a task back. */
  release(claim: Pick<TaskClaim, 'task' | 'holder'>): Promise<void>;

  /**
   * Stores a new key.
   *
   * @param idempotentSince with an idempotency key: how far back, by the time of making, a key that was made with the same one
   * counts.
   * @returns undefined when the key was stored; the key, with its first version, that the same idempotency key made, and nothing
   * was written; `keks_changed`, and nothing was written, when it is wrapped with a KEK that is not the current one.
   * @throws AppError `KEY_EXISTS` when the name is taken, or ever was; `unauthenticated` when its token is not live. Nothing is written then.
   */
  insertKey(key: KeyChange, idempotentSince?: string): Promise<StoredKey | 'keks_changed' | undefined>;

  /** What there is on that name; undefined when it was never a key's. */
  findKey(name: string, versions: VersionChoice): Promise<StoredKey | undefined>;

  /**
   * Where in the audit chain the latest change of that key name is (`StoredKey.lastChange`): as long as that stays the same, so does the key. The
   * cheapest look at a key that there is. Undefined when there is none.
   */
  lastChange(name: string): Promise<AuditReceipt | undefined>;

  /**
   * Puts a key in the place of its previous state, in the same transaction as the check that the stored one is in that state.
   * So of several writers that change the same state, one succeeds.
   *
   * @returns the place of the audit record; undefined, with nothing written, when the key is in another state, there is no such key, what is
   * new of it is wrapped with a KEK that is not the current one, a storage does not stand as it was read, or the key was released meanwhile.
   * @throws AppError `unauthenticated` when its token is not live; nothing is written then.
   */
  updateKey(change: KeyUpdate): Promise<AuditReceipt | undefined>;

  /** {@link updateKey} for many keys in one transaction, each for itself. */
  updateKeys(changes: readonly KeyUpdate[]): Promise<(AuditReceipt | undefined)[]>;

  /**
   * Puts a key in the place of whatever is stored under its name and under its id, if that is still what the caller has seen: for a key
   * that is lost or damaged, which {@link updateKey} cannot change.
   *
   * @param lastChange `seq` of the latest change of that name, as the caller saw it; undefined for a name that has none.
   * @returns the place of the audit record; undefined, with nothing written, when there was another change meanwhile.
   */
  replaceKey(change: KeyChange, lastChange: number | undefined): Promise<AuditReceipt | undefined>;

  /** Keys with their current version, in the order of their names, only those that one of `globs` matches. */
  listKeys(globs: readonly string[], page: PageQuery<string>): Promise<FilteredPage<NamedKey, string>>;

  /** Keys with their current version whose `dueAt` is not after `until`, in the order of their names. */
  listDueKeys(until: string, page: PageQuery<string>): Promise<Page<NamedKey>>;

  /**
   * Drops from the storage what earlier changes took out of it, so that bytes which were destroyed are found nowhere in it.
   *
   * @returns false when another process was in the way: try again later.
   */
  scrub(): Promise<boolean>;

  /**
   * Stores a token with the record of its issue, in the same transaction as the check that its `issuer`, if it has one, is live.
   *
   * @returns false, with nothing written, when the issuer is not live.
   */
  insertToken(token: TokenInfo, record: AuditDraft): Promise<boolean>;

  /**
   * Inserts `token` as the renewal of `parentJti`, in the same transaction as the check that the parent is live, so that no renewal
   * escapes a revocation of its family.
   *
   * @returns false, with nothing written, when the parent is not live.
   */
  renewToken(parentJti: string, token: TokenInfo, record: AuditDraft): Promise<boolean>;

  /** What there is on that token; undefined when there is neither a row nor a record of its issue. */
  findToken(jti: string): Promise<StoredToken | undefined>;

  /**
   * The family of a token that is live: it has a row, the record of its issue is genuine, and no record revokes its family. Undefined for any
   * other. The family is the one of that record, whatever the row says. Asked with each request, so it is cheap.
   */
  liveFamily(jti: string): Promise<string | undefined>;

  /** Tokens that have a row, in the order of their issue; the cursor is a `jti`, an unknown one gives an empty page. */
  listTokens(page: PageQuery<string>): Promise<Page<StoredToken>>;

  /**
   * Appends revocations, each ending the family that its `detail` names, and marks the rows. Those of families that a genuine record revokes
   * already are left out, but for the first that says `cascade: true`. From then on each process sees it.
   *
   * @returns how many were appended.
   */
  revokeFamilies(records: readonly AuditDraft[]): Promise<number>;

  /**
   * Records of the issue of tokens, found by their family or their issuer; not to be believed before they are authenticated.
   *
   * @returns for each place at most `limit` of them, in the order of `seq`.
   */
  listIssues(
    by: 'family' | 'issuer',
    places: readonly IssuePlace[],
    limit: number,
  ): Promise<readonly (readonly AuditRecord[])[]>;

  /** Revocations of what expires at `time` or later, by the audit chain alone, in the order of those ends. */
  listRevoked(time: string, page: PageQuery<RevocationPlace>): Promise<Page<AuditRecord>>;

  /**
   * Forgets at most `limit` tokens that expired before `time`, of families of which every token did: a family stays
   * revocable by any of its tokens. The record is appended with their number as `detail.count`, unless there are none.
   *
   * @returns how many.
   */
  pruneTokens(time: string, limit: number, record: AuditDraft): Promise<number>;

  /**
   * Appends records, all or none, in this order.
   *
   * @param conditions for each record, if given, what must hold, decided in the same transaction: so that in the chain no
   * release follows the revocation of its token, or the disabling or the end of its key.
   * @returns their places in the chain, or why they were left out.
   */
  appendAudit(
    records: readonly AuditDraft[],
    conditions?: readonly (AuditCondition | undefined)[],
  ): Promise<(AuditReceipt | LeftOut)[]>;

  /** Appends a record unless the chain holds one with the same action and detail. @returns whether it was appended. */
  appendAuditOnce(record: AuditDraft): Promise<boolean>;

  /**
   * Records in ascending order of `seq`, without a cursor from the lowest number on; the cursor is a `seq`. Pages are full while there are more, unless `severity`, `actor`, `from` or `to`
   * filters them.
   */
  listAudit(query: AuditQuery): Promise<FilteredPage<AuditRecord, number>>;

  /**
   * Records of allowed exports of a key, newest first, back to the first record of that key that is older than `from`.
   * Looks at a bounded number of records, so a page may hold fewer than `limit`, or none, and still have a `next`.
   *
   * @param page `before` is the `next` of the page before.
   */
  listExports(
    key: string,
    from: string,
    page: { readonly before?: number | undefined; readonly limit: number },
  ): Promise<BackwardPage>;

  /** {@link listExports} of the keys that were released to a storage. */
  listStorageExports(
    storage: string,
    from: string,
    page: { readonly before?: number | undefined; readonly limit: number },
  ): Promise<BackwardPage>;

  /** The latest record that says how a storage stands (`STORAGE_ACTIONS`); undefined when there is none. Found by an index. */
  storageRecord(id: string): Promise<AuditRecord | undefined>;

  /**
   * Keys with their current version that a storage holds and wants shredded, those that are destroyed already among them, in the order
   * of their names. Found by an index.
   */
  listDeletions(holder: string, page: PageQuery<string>): Promise<Page<NamedKey>>;

  /** How many keys {@link listDeletions} has, of all storages. */
  countDeletions(): Promise<number>;

  /**
   * Keys that were ever wrapped with this KEK and may be held by somebody in no newer wrapping: exported before they were rewrapped
   * for the last time, in a version that was not exported since. In the order of their names. Looks at a bounded number of records, so a page may
   * hold fewer than `limit`, or none, and still have a `next`; a key with very many records may be in it without need.
   */
  listUnfetched(kekId: string, page: PageQuery<string>): Promise<ForwardPage>;

  /** The last record's place, or the genesis of an empty chain. */
  auditHead(): Promise<ChainHead>;

  /**
   * Everything that there is at one moment, in batches, while others write: the installation, the audit records by `seq`, the keys
   * by name, each followed by its versions, and the tokens in the order of their issue. The moment is that of the first batch. Until the
   * iteration ends, {@link scrub} may find it in the way.
   */
  readAll(): AsyncIterable<readonly StoreEntry[]>;

  /**
   * Fills a store that has nothing in it, as one write: until this resolves, and when it fails, there is nothing in it. A failure of
   * `entries` is passed on. Other writers wait, or fail with `storage_unavailable`.
   *
   * @param entries an installation first, records in ascending order of `seq`, a key before its versions.
   * @param chainKey the one of that installation, as for {@link unlock}.
   * @returns false, with `entries` not begun, when there is something in the store.
   */
  load(entries: AsyncIterable<readonly LoadEntry[]>, chainKey: KeyObject): Promise<boolean>;

  /** How many keys and tokens there are. */
  counts(): Promise<{ readonly keys: number; readonly tokens: number }>;

  /** Proves that writing works, by a durable write that changes nothing that matters. */
  probe(): Promise<void>;

  /** Finishes what was asked before and lets go of the storage. Idempotent; later calls fail with `storage_unavailable`. */
  close(): Promise<void>;
}

/** The methods of the port that are one step in the storage, as a synchronous implementation has them. */
export type StoreOperations = {
  [Name in Exclude<keyof KmsStore, 'readAll' | 'load' | 'close' | typeof Symbol.asyncDispose>]: (
    ...args: Parameters<KmsStore[Name]>
  ) => Awaited<ReturnType<KmsStore[Name]>>;
};
