import type { KeyObject } from 'node:crypto';
import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import type { AuditRecord } from '@bundoc/shared/contract/audit';
import type { AuditReceipt } from '@bundoc/shared/contract/keys';
import type { AuditDraft, ChainHead } from '../records/chain.ts';
import { isGenuine } from '../records/chain-walk.ts';
import type { KnownKek, WrappedSecrets } from '../records/installation.ts';
import { isGenuineVersion, type KeyVersionRecord, keyFault } from '../records/key-record.ts';
import { authenticToken } from '../records/token-record.ts';
import type { KeyChange, VersionChoice } from '../store/keys.ts';
import type { KmsStore } from '../store/port.ts';
import { ofKey, ofStorage } from './chain-memory.ts';
import type { StoreTrust } from './store-trust.ts';

/** How many tokens are looked up at once: other calls wait. */
const TOKENS_AT_ONCE = 128;

/**
 * A store that believes a write only once it was read back, after the commit and in a statement of its own.
 * The store itself reads the records of the audit chain, and this reads the changed row. While the database
 * is not trusted, every write fails with `sealed`.
 *
 * What another process changed in between is accepted when a later genuine record says so.
 *
 * Claims, presences, probes, and the removal of expired tokens are not read back: nothing follows from them.
 */
export function trustedStore(store: KmsStore, trust: StoreTrust): KmsStore {
  return {
    ...store,
    ...believedWrites(store, trust),
    ...rememberingReads(store, trust),
    unlock: async (chainKey) => {
      trust.unlock(chainKey);
      await store.unlock(chainKey);
    },
  };
}

/** What is read back after each write, from its result and its arguments. */
type ReadBacks = {
  readonly [Name in keyof KmsStore]?: KmsStore[Name] extends (...args: infer Args) => Promise<infer Result>
    ? (result: Result, ...args: Args) => unknown
    : never;
};

function readBacksOf(store: KmsStore, trust: StoreTrust) {
  const readBack = new ReadBack(store, trust);
  const changed = async (change: KeyChange, receipt: AuditReceipt | undefined) =>
    receipt === undefined ? undefined : readBack.key(change, receipt);
  const nothing = () => undefined;
  return {
    insertKey: (present, key) => (present === undefined ? readBack.key(key) : undefined),
    updateKey: (receipt, change) => changed(change, receipt),
    updateKeys: (receipts, changes) =>
      Promise.all(changes.map((change, at) => changed(change, receipts[at]))),
    replaceKey: (receipt, change) => changed(change, receipt),
    insertToken: (isStored, { jti }) => (isStored ? readBack.token(jti) : undefined),
    renewToken: (isStored, _parent, { jti }) => (isStored ? readBack.token(jti) : undefined),
    revokeFamilies: async (revoked, records) => {
      await readBack.note(revoked.map(({ place }) => place));
      await readBack.revocations(records);
    },
    initialise: (isMade, _installation, chainKey) => (isMade ? trust.unlock(chainKey) : undefined),
    addKek: (isAdded, kek) => (isAdded ? readBack.kek(kek) : undefined),
    replaceSecrets: (isReplaced, secrets) => (isReplaced ? readBack.secrets(secrets) : undefined),
    appendAudit: (results) => {
      // The store itself has read them back.
      for (const result of results) if (typeof result !== 'string') trust.memory.keep(result);
    },
    appendAuditOnce: nothing,
    pruneTokens: nothing,
    probe: nothing,
  } satisfies ReadBacks;
}

type Calls<Name extends string> = Readonly<Record<Name, (...args: readonly unknown[]) => unknown>>;

/** Each write of the store, with what is read back after it. */
function believedWrites(store: KmsStore, trust: StoreTrust) {
  type Name = keyof ReturnType<typeof readBacksOf>;
  const readBacks = readBacksOf(store, trust) as Calls<Name>;
  const writes = store as unknown as Calls<Name>;
  const names = Object.keys(readBacks) as Name[];
  const believing = names.map((name) => [
    name,
    (...args: readonly unknown[]) => {
      const write = async () => writes[name](...args);
      return believed(trust, write, (result) => readBacks[name](result, ...args));
    },
  ]);
  return Object.fromEntries(believing) as Pick<KmsStore, Name>;
}

function rememberingReads(store: KmsStore, trust: StoreTrust) {
  return {
    findKey: async (name, versions) => {
      const seen = seenOf(trust, ofKey(name));
      const stored = await store.findKey(name, versions);
      noteLatest(trust, ofKey(name), seen, stored?.lastChange);
      return stored;
    },
    lastChange: async (name) => {
      const seen = seenOf(trust, ofKey(name));
      const place = await store.lastChange(name);
      requireSeen(trust, seen, place?.seq);
      return place;
    },
    storageRecord: async (id) => {
      const seen = seenOf(trust, ofStorage(id));
      const record = await store.storageRecord(id);
      noteLatest(trust, ofStorage(id), seen, record);
      return record;
    },
    findActiveTokenFamily: async (jti) => {
      const { epoch } = trust;
      const seen = trust.memory.revocations;
      const family = await store.findActiveTokenFamily(jti);
      const revocation = family === undefined ? undefined : trust.memory.revocationOf(family);
      // One that came during the read may be later than that.
      if (revocation !== undefined && revocation.seq <= seen) throw trust.lacks(revocation, epoch);
      return family;
    },
  } satisfies Partial<KmsStore>;
}

/**
 * Runs a write while the database is trusted, then reads it back. A write that the store itself does not
 * believe ends the trust.
 *
 * @throws AppError of the write; `sealed`; and `storage_unavailable` when it could not be read back: it may
 *   have happened.
 */
async function believed<T>(
  trust: StoreTrust,
  write: () => Promise<T>,
  readBack: (result: T) => unknown,
): Promise<T> {
  trust.require();
  let isWritten = false;
  try {
    const result = await write();
    isWritten = true;
    await readBack(result);
    return result;
  } catch (error) {
    if (hasCode(error, 'sealed')) throw trust.isSealed ? error : trust.disbelieve(messageOf(error));
    // Among others `overloaded` says that nothing has changed.
    throw isWritten ? new AppError('storage_unavailable', { cause: error }) : error;
  }
}

function messageOf(error: AppError): string {
  return error.cause instanceof Error ? error.cause.message : error.message;
}

/** What is known of a subject before it is read: a concurrent read may see a later record. */
interface Seen {
  readonly latest: ChainHead | undefined;
  /** A restore of the chain since then ends what was known. */
  readonly epoch: number;
}

function seenOf({ memory, epoch }: StoreTrust, subject: string): Seen {
  return { latest: memory.latestOf(subject), epoch };
}

/** @throws AppError `sealed` when the database has an older record than was seen before the read. */
function requireSeen(trust: StoreTrust, { latest, epoch }: Seen, found: number | undefined): void {
  if (latest !== undefined && (found ?? 0) < latest.seq) throw trust.lacks(latest, epoch);
}

/** {@link requireSeen}, and remembers a later one. */
function noteLatest(trust: StoreTrust, subject: string, seen: Seen, found: AuditRecord | undefined): void {
  requireSeen(trust, seen, found?.seq);
  const { chainKey, memory, epoch } = trust;
  if (found !== undefined && chainKey !== undefined && epoch === seen.epoch)
    memory.see(subject, found, chainKey);
}

/** Reads what was written. Each method throws AppError `sealed`, and ends the trust, when it is not there. */
class ReadBack {
  readonly #store: KmsStore;
  readonly #trust: StoreTrust;

  constructor(store: KmsStore, trust: StoreTrust) {
    this.#store = store;
    this.#trust = trust;
  }

  /** Remembers the records of one write, which the store itself has read back. */
  async note(receipts: readonly AuditReceipt[]): Promise<void> {
    const found = await this.#store.recordsAt(receipts.map(({ seq }) => seq));
    for (const receipt of receipts) {
      const record = found.find(({ seq, hash }) => seq === receipt.seq && hash === receipt.hash);
      if (record === undefined || !this.#isGenuine(record))
        throw this.#trust.disbelieve(`record ${receipt.seq} of the audit chain was not stored`);
      this.#trust.memory.note(record);
      this.#trust.memory.keep(receipt);
    }
  }

  /**
   * A key and its changed versions, or a later state of both that the chain knows.
   *
   * @param receipt of the record of the change; undefined for a new key.
   */
  async key({ record, versions }: KeyChange, receipt?: AuditReceipt): Promise<void> {
    const stored = await this.#store.findKey(record.name, choiceOf(versions));
    const fault = stored === undefined ? 'lost' : keyFault(this.#key, record.name, stored);
    const now = stored?.record;
    const isLater = (stored?.lastChange?.seq ?? 0) >= (receipt?.seq ?? 0);
    const isThere =
      fault === undefined && now?.id === record.id && now.revision >= record.revision && isLater;
    const isWhole = versions.every(({ version }) =>
      stored?.versions.some(
        (one) => one.version === version && now !== undefined && isGenuineVersion(now, one),
      ),
    );
    if (!isThere || !isWhole)
      throw this.#trust.disbelieve(`the change of the key ${record.name} was not stored`);
    const lastChange = stored?.lastChange;
    if (lastChange === undefined) return;
    this.#trust.memory.see(ofKey(record.name), lastChange, this.#key);
    this.#trust.memory.keep(lastChange);
  }

  async token(jti: string): Promise<void> {
    const stored = await this.#store.findToken(jti);
    if (stored?.issued === undefined || authenticToken(this.#key, stored) === undefined)
      throw this.#trust.disbelieve(`the token ${jti} was not stored`);
    this.#trust.memory.keep(stored.issued);
  }

  /**
   * Tokens that end, whether by these revocations or by earlier ones. The records decide about that; the rows
   * only show it.
   */
  async revocations(records: readonly AuditDraft[]): Promise<void> {
    const jtis = records.map(({ detail }) => String(detail?.['token']));
    for (let from = 0; from < jtis.length; from += TOKENS_AT_ONCE) {
      const some = jtis.slice(from, from + TOKENS_AT_ONCE);
      const families = await Promise.all(some.map((jti) => this.#store.findActiveTokenFamily(jti)));
      const alive = some.find((_, at) => families[at] !== undefined);
      if (alive !== undefined)
        throw this.#trust.disbelieve(`the revocation of the token ${alive} was not stored`);
    }
  }

  async kek({ id, checkValue }: KnownKek): Promise<void> {
    const stored = await this.#store.readInstallation();
    if (stored?.keks.some((kek) => kek.id === id && kek.checkValue === checkValue) !== true)
      throw this.#trust.disbelieve(`the KEK ${id} was not stored`);
  }

  async secrets({ chainKeyWrapped, signingSeedWrapped }: WrappedSecrets): Promise<void> {
    const stored = await this.#store.readInstallation();
    const isSame = (one: Uint8Array | undefined, other: Uint8Array) =>
      one !== undefined && Buffer.from(one).equals(other);
    if (
      !isSame(stored?.chainKeyWrapped, chainKeyWrapped) ||
      !isSame(stored?.signingSeedWrapped, signingSeedWrapped)
    )
      throw this.#trust.disbelieve('the rewrapped secrets of the service were not stored');
  }

  get #key(): KeyObject {
    const { chainKey } = this.#trust;
    if (chainKey === undefined) throw new AppError('sealed');
    return chainKey;
  }

  #isGenuine(record: AuditRecord): boolean {
    return isGenuine(this.#key, record);
  }
}

/** The versions to read for those that were changed. */
function choiceOf(versions: readonly KeyVersionRecord[]): VersionChoice {
  const [first, ...others] = versions;
  if (first === undefined) return 'current';
  return others.length === 0 ? first.version : 'all';
}
