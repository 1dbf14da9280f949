import { createSecretKey, type KeyObject, randomBytes, randomUUID } from 'node:crypto';
import { AppError } from '@bundoc/shared/contract/app-error';
import { defined } from '@bundoc/shared/contract/defined';
import { type AuditReceipt, type DestroyReceipt, projectOfDek } from '@bundoc/shared/contract/keys';
import type { DeletionIntent, StorageInfo, UnfinishedDeletion } from '@bundoc/shared/contract/storages';
import { keyCheckValue } from '@bundoc/shared/crypto/aead';
import { type Clock, instant } from '@bundoc/shared/runtime/clock';
import { type ActingStorage, KeyRefused, type LeasedKey, type StorageCalls } from '../kms/port.ts';
import { StorageKeys } from '../kms/storage-keys.ts';

interface CachedKey {
  readonly keyId: string;
  readonly dek: KeyObject;
  wrapped: string;
  /** 1 unless it was rotated. */
  readonly version?: number;
  /** Former versions. */
  readonly before?: readonly CachedKey[];
}

/** The facts about a key besides its material. */
interface Standing {
  holder?: string | undefined;
  /** With the generation of the holder that made the offer. The offer ends with this generation. */
  offer?: { readonly to: string; readonly move: string; readonly generation: string } | undefined;
  intendedAt?: string | undefined;
  /** The place of the key's latest change. */
  latest: AuditReceipt;
  /** Once it was shredded. */
  shredded?: DestroyReceipt;
}

/** A change of a key's holder or of its existence. */
export interface FakeChange {
  readonly kind: 'create' | 'claim' | 'take_over' | 'accept' | 'intend' | 'destroy' | 'removed' | 'rotate';
  readonly name: string;
}

type Call = keyof StorageCalls;

/**
 * A key service in memory. It counts its calls, fails on command, and knows the holder of each key, as BunKMS
 * does (`docs/keys.md`).
 */
export class FakeKeyService implements StorageCalls {
  readonly #clock: Clock;
  #seq = 0;
  readonly keys = new Map<string, CachedKey>();
  readonly standings = new Map<string, Standing>();
  readonly storages = new Map<string, { generation: string | undefined; takenOverMs: number }>();
  /** All changes, in order. */
  readonly changes: FakeChange[] = [];
  /** Who the tests of one storage act as, and what that storage asks with. */
  readonly acting: ActingStorage = { storage: randomUUID(), generation: randomUUID() };
  readonly held: StorageKeys;
  /** The same storage, as project files name it. */
  readonly storage = { id: this.acting.storage, takenOverMs: 0 };
  exports = 0;
  /** Listings of held keys. */
  listings = 0;
  /** When set, listings wait for it before they end. */
  afterListing: Promise<void> | undefined;
  creations = 0;
  rotations = 0;
  destructions = 0;
  /** Names of destroyed keys. */
  readonly destroyed = new Set<string>();
  /** When false, this service may not shred keys. */
  mayShred = true;
  /** When true, shreds are not answered. */
  shredsFail = false;
  /** When set, intents are refused with it. */
  intentRefusal: AppError | undefined;
  /** Called when an intent is requested. The intent waits for the result. */
  onIntent: ((name: string, client: string) => Promise<void> | undefined) | undefined;
  /** Called when a key was destroyed, before that is answered. */
  onDestroyed: (() => void) | undefined;
  ttlMs = 900_000;
  /** When set, every call fails with it. */
  failure: AppError | undefined;
  /** Kinds of calls whose next one takes effect but gets no answer. */
  readonly unanswered = new Set<Call>();
  /** When set, exports wait for it. */
  gate: Promise<void> | undefined;
  /** When set, answers of exports arrive after it. */
  afterExport: Promise<void> | undefined;
  /** Called when an export is requested. */
  onExport: (() => void) | undefined;
  /** Number of running exports, now and at its maximum so far. */
  running = 0;
  runningMax = 0;
  /** Called before a key is created, so that another node can be first. */
  beforeCreate: ((name: string) => void) | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.held = this.as(this.acting);
  }

  /** What a storage asks with; one that is not known is registered. */
  as(acting: ActingStorage): StorageKeys {
    if (!this.storages.has(acting.storage))
      this.storages.set(acting.storage, { generation: acting.generation, takenOverMs: 0 });
    return new StorageKeys(this, {
      acting: () => acting,
      refused: () => Promise.reject(new AppError('storage_superseded')),
    });
  }

  async exportKey(name: string, version?: number, acting?: ActingStorage): Promise<LeasedKey> {
    this.exports++;
    const requestedAt = instant(this.#clock);
    this.running++;
    this.runningMax = Math.max(this.runningMax, this.running);
    try {
      await this.gate;
    } finally {
      this.running--;
    }
    if (this.failure !== undefined) throw this.failure;
    if (acting !== undefined) this.#requireCurrent(acting);
    if (this.destroyed.has(name)) throw new AppError('project_destroyed');
    const current = this.keys.get(name);
    if (current !== undefined && acting !== undefined) {
      this.#requireHolder(name, acting);
      if (this.#standingOf(name).intendedAt !== undefined) throw new AppError('project_deleting');
    }
    const all = current === undefined ? [] : [current, ...(current.before ?? [])];
    const key = version === undefined ? current : all.find((one) => (one.version ?? 1) === version);
    if (key === undefined) throw new AppError('key_not_found');
    this.onExport?.();
    await this.afterExport;
    return {
      keyId: key.keyId,
      version: key.version ?? 1,
      kcv: keyCheckValue(key.dek),
      wrapped: key.wrapped,
      dek: key.dek,
      requestedAt,
      ttlMs: this.ttlMs,
    };
  }

  async createKey(name: string, acting?: ActingStorage): Promise<boolean> {
    this.creations++;
    if (this.failure !== undefined) throw this.failure;
    if (acting !== undefined) this.#requireCurrent(acting);
    if (this.destroyed.has(name)) throw new AppError('project_destroyed');
    this.beforeCreate?.(name);
    if (this.keys.has(name)) return false;
    this.put(name, acting?.storage ?? null);
    this.changes.push({ kind: 'create', name });
    this.#answer('createKey');
    return true;
  }

  async claimKey(name: string, acting: ActingStorage): Promise<void> {
    this.#begin(name, acting);
    const standing = this.#standingOf(name);
    if (standing.holder !== undefined) return this.#requireHolder(name, acting);
    standing.holder = acting.storage;
    this.#changed('claim', name);
    this.#answer('claimKey');
  }

  /** Makes a storage the holder of a key, as an administrator. */
  takeOverKey(name: string, storage: string): void {
    const standing = this.#standingOf(name);
    standing.holder = storage;
    standing.offer = undefined;
    this.#changed('take_over', name);
  }

  async rotateKey(name: string, version: number): Promise<void> {
    this.rotations++;
    if (this.failure !== undefined) throw this.failure;
    const current = this.keys.get(name);
    if (current === undefined) throw new AppError('key_not_found');
    if ((current.version ?? 1) !== version) return;
    this.keys.set(name, {
      ...newKey(),
      keyId: current.keyId,
      version: version + 1,
      before: [current, ...(current.before ?? [])],
    });
    this.#changed('rotate', name);
  }

  async intendDeletion(name: string, client: string, acting: ActingStorage): Promise<DeletionIntent> {
    this.#requireShredding();
    await this.onIntent?.(name, client);
    if (this.intentRefusal !== undefined) throw this.intentRefusal;
    this.#begin(name, acting);
    this.#requireHolder(name, acting);
    const standing = this.#standingOf(name);
    if (standing.intendedAt === undefined) {
      standing.intendedAt = this.#now();
      standing.offer = undefined;
      this.#changed('intend', name);
    }
    this.#answer('intendDeletion');
    return { name, receipt: standing.latest, intended_at: standing.intendedAt };
  }

  async shredKey(name: string, receipt: AuditReceipt, acting: ActingStorage): Promise<DestroyReceipt> {
    this.#requireShredding();
    const { shredded, holder } = this.#standingOf(name);
    if (shredded !== undefined && holder === acting.storage) return shredded;
    this.#begin(name, acting);
    this.#requireHolder(name, acting);
    const standing = this.#standingOf(name);
    if (standing.intendedAt === undefined || standing.latest.seq !== receipt.seq)
      throw new AppError('precondition_failed');
    if (this.shredsFail) throw new AppError('kms_unavailable', { retryAfterS: 1 });
    standing.shredded = this.destroy(name);
    this.onDestroyed?.();
    this.#answer('shredKey');
    return standing.shredded;
  }

  /** Destroys a key, as its shredding or an administrator does. */
  destroy(name: string): DestroyReceipt {
    const key = this.keys.get(name);
    if (key === undefined) throw new AppError('key_not_found');
    this.destructions++;
    this.keys.delete(name);
    this.destroyed.add(name);
    this.#changed('destroy', name);
    return {
      id: key.keyId,
      name,
      state: 'destroyed',
      revision: 2,
      destroyed_at: this.#now(),
      kek_ids: ['0000000000000001'],
      audit: this.#standingOf(name).latest,
    };
  }

  async contentRemoved(name: string, acting: ActingStorage): Promise<void> {
    this.#requireShredding();
    this.#requireCurrent(acting);
    const standing = this.#standingOf(name);
    if (standing.holder === undefined) return;
    if (standing.intendedAt === undefined || !this.destroyed.has(name))
      throw new AppError('precondition_failed');
    this.#requireHolder(name, acting);
    standing.holder = undefined;
    this.#changed('removed', name);
    this.#answer('contentRemoved');
  }

  async unfinishedDeletions(acting: ActingStorage): Promise<readonly UnfinishedDeletion[]> {
    this.#requireShredding();
    this.#requireCurrent(acting);
    return [...this.standings].flatMap(([name, { holder, intendedAt, latest }]) =>
      holder !== acting.storage || intendedAt === undefined
        ? []
        : [
            {
              name,
              state: this.destroyed.has(name) ? ('destroyed' as const) : ('pending_deletion' as const),
              receipt: latest,
              intended_at: intendedAt,
            },
          ],
    );
  }

  async *heldProjects(storage: string): AsyncGenerator<readonly string[]> {
    this.listings++;
    if (this.failure !== undefined) throw this.failure;
    for (const name of this.keys.keys()) {
      const { holder, intendedAt } = this.#standingOf(name);
      if (holder === storage && intendedAt === undefined) yield [projectOfDek(name) ?? name];
    }
    await this.afterListing;
  }

  /** Cancels an intent, as an administrator. */
  restore(name: string): void {
    this.#standingOf(name).intendedAt = undefined;
    this.#standingOf(name).latest = this.#receipt();
  }

  async offerKey(name: string, to: string, move: string, acting: ActingStorage): Promise<void> {
    this.#begin(name, acting);
    this.#requireHolder(name, acting);
    this.#standingOf(name).offer = { to, move, generation: acting.generation };
    this.#answer('offerKey');
  }

  async withdrawOffer(name: string, move: string, acting: ActingStorage): Promise<void> {
    this.#begin(name, acting);
    this.#requireHolder(name, acting);
    const standing = this.#standingOf(name);
    if (standing.offer?.move === move) standing.offer = undefined;
    this.#answer('withdrawOffer');
  }

  async acceptKey(name: string, move: string, acting: ActingStorage): Promise<void> {
    this.#begin(name, acting);
    const standing = this.#standingOf(name);
    if (standing.holder === acting.storage) return;
    const { offer, holder = '' } = standing;
    const isOffered = offer?.to === acting.storage && offer.move === move;
    if (!isOffered || this.storages.get(holder)?.generation !== offer.generation)
      throw new AppError('key_not_offered');
    standing.holder = acting.storage;
    standing.offer = undefined;
    this.#changed('accept', name);
    this.#answer('acceptKey');
  }

  async advanceStorage(id: string, from: readonly string[], to: string): Promise<StorageInfo> {
    if (this.failure !== undefined) throw this.failure;
    const known = this.storages.get(id) ?? { generation: undefined, takenOverMs: 0 };
    const { generation } = known;
    if (generation !== undefined && generation !== to && !from.includes(generation))
      throw new AppError('storage_superseded');
    this.storages.set(id, { ...known, generation: to });
    this.#answer('advanceStorage');
    return { id, generation: to, taken_over_ms: known.takenOverMs, advanced_at: this.#now() };
  }

  async storageInfo(id: string): Promise<StorageInfo> {
    if (this.failure !== undefined) throw this.failure;
    const known = this.storages.get(id);
    if (known === undefined) throw new AppError('storage_not_found');
    const { generation, takenOverMs: taken_over_ms } = known;
    return { id, ...defined({ generation }), taken_over_ms, advanced_at: this.#now() };
  }

  /**
   * An administrator lets one copy of a storage take the place of the others: that of this generation, or the
   * next that asks.
   */
  takeOverStorage(id: string, generation?: string): void {
    const former = this.storages.get(id)?.takenOverMs ?? 0;
    this.storages.set(id, { generation, takenOverMs: Math.max(former + 1, Date.parse(this.#now())) });
  }

  /**
   * Makes a key. @param holder the storage of {@link acting} by default; null for nobody, as of keys that a
   * user makes.
   */
  put(name: string, holder: string | null = this.acting.storage): CachedKey {
    const key = newKey();
    this.keys.set(name, key);
    this.standings.set(name, { holder: holder ?? undefined, latest: this.#receipt() });
    return key;
  }

  /** @throws AppError of the service, of the storage's generation, or of the key. */
  #begin(name: string, acting: ActingStorage): void {
    if (this.failure !== undefined) throw this.failure;
    this.#requireCurrent(acting);
    if (this.destroyed.has(name)) throw new AppError('project_destroyed');
    if (!this.keys.has(name)) throw new AppError('key_not_found');
  }

  #requireCurrent({ storage, generation }: ActingStorage): void {
    if (this.storages.get(storage)?.generation !== generation) throw new AppError('storage_superseded');
  }

  #requireHolder(name: string, { storage }: ActingStorage): void {
    const { holder } = this.#standingOf(name);
    if (holder === undefined) throw new AppError('key_unheld');
    if (holder !== storage) throw new AppError('project_elsewhere', { storage: holder });
  }

  #requireShredding(): void {
    if (this.failure !== undefined) throw this.failure;
    const cause = new KeyRefused('BunKMS answered 403 forbidden');
    if (!this.mayShred) throw new AppError('kms_unavailable', { cause, retryAfterS: 60 });
  }

  /** Keys that a test has put here by hand are held by the storage of {@link acting}. */
  #standingOf(name: string): Standing {
    const standing = this.standings.get(name) ?? { holder: this.acting.storage, latest: this.#receipt() };
    this.standings.set(name, standing);
    return standing;
  }

  #changed(kind: FakeChange['kind'], name: string): void {
    this.changes.push({ kind, name });
    this.#standingOf(name).latest = this.#receipt();
  }

  #receipt(): AuditReceipt {
    const seq = ++this.#seq;
    return { seq, hash: seq.toString(16).padStart(64, '0') };
  }

  #answer(call: Call): void {
    if (this.unanswered.delete(call)) throw new AppError('kms_unavailable', { retryAfterS: 1 });
  }

  #now(): string {
    return new Date(this.#clock.now()).toISOString();
  }
}

function newKey(): CachedKey {
  return {
    keyId: randomUUID(),
    dek: createSecretKey(randomBytes(32)),
    wrapped: Buffer.concat([Buffer.of(1), randomBytes(68)]).toString('base64'),
  };
}
