import type { KeyObject } from 'node:crypto';
import type { AuditRecord } from '@bundoc/shared/contract/audit';
import { LRUCache } from 'lru-cache';
import type { ChainHead } from '../records/chain.ts';
import { isGenuine } from '../records/chain-walk.ts';
import { STORAGE_ACTIONS } from '../records/storage-record.ts';
import { REVOCATION } from '../records/token-record.ts';

/** How many of its latest receipts a process keeps. */
const RECEIPTS_MAX = 64;
/** How many subjects a process remembers: keys and storages it has read, and families it saw revoked. */
const SUBJECTS_MAX = 65_536;
/** A limit of sizes in place of `max`, which would reserve the memory of all entries at the start. */
const SUBJECTS = { maxSize: SUBJECTS_MAX, sizeCalculation: () => 1 };

/** The subject of a key, and of a storage. */
export const ofKey = (name: string) => `key ${name}`;
export const ofStorage = (id: string) => `storage ${id}`;

/**
 * What a process knows of the chain: its latest receipts, the latest change of each key and storage that it
 * read, and the families that it saw revoked. So nobody can undo in the database what this process has
 * seen, however old the record is.
 *
 * Bounded: the oldest are forgotten. `bunkms audit verify` finds what a process no longer knows.
 */
export class ChainMemory {
  readonly #receipts = new Map<number, string>();
  readonly #latest = new LRUCache<string, ChainHead>(SUBJECTS);
  readonly #revoked = new LRUCache<string, ChainHead>(SUBJECTS);

  #revocations = 0;

  /** Remembers a record that was in the chain. */
  keep({ seq, hash }: ChainHead): void {
    this.#receipts.delete(seq);
    this.#receipts.set(seq, hash);
    for (const oldest of this.#receipts.keys()) {
      if (this.#receipts.size <= RECEIPTS_MAX) break;
      this.#receipts.delete(oldest);
    }
  }

  /** Whether that record is one of the latest. */
  knows({ seq, hash }: ChainHead): boolean {
    return this.#receipts.get(seq) === hash;
  }

  /** The kept receipts. */
  get receipts(): ChainHead[] {
    return [...this.#receipts].map(([seq, hash]) => ({ seq, hash }));
  }

  /** The latest record of a subject that was seen. */
  latestOf(subject: string): ChainHead | undefined {
    return this.#latest.get(subject);
  }

  /** Remembers the latest record of a subject, if it is later than the known one and genuine. */
  see(subject: string, latest: AuditRecord, chainKey: KeyObject): void {
    if ((this.#latest.get(subject)?.seq ?? 0) >= latest.seq) return;
    // A planted record must not be missed once it is gone.
    if (isGenuine(chainKey, latest)) this.#raise(subject, { seq: latest.seq, hash: latest.hash });
  }

  /** Remembers a genuine record: the revocation of a family, or the latest change of a key or storage. */
  note({ seq, hash, action, key, detail = {} }: AuditRecord): void {
    const { family, storage, revision } = detail;
    const place = { seq, hash };
    if (action === REVOCATION) {
      this.#revoked.set(String(family), place);
      this.#revocations = Math.max(this.#revocations, seq);
    }
    if (STORAGE_ACTIONS.includes(action)) this.#raise(ofStorage(String(storage)), place);
    else if (key !== undefined && revision !== undefined) this.#raise(ofKey(key), place);
  }

  #raise(subject: string, place: ChainHead): void {
    if ((this.#latest.get(subject)?.seq ?? 0) < place.seq) this.#latest.set(subject, place);
  }

  /** Number of the latest revocation that was seen. */
  get revocations(): number {
    return this.#revocations;
  }

  /** The record that revoked a family, if it was seen. */
  revocationOf(family: string): ChainHead | undefined {
    return this.#revoked.get(family);
  }

  /** Forgets everything, after a restore of the chain. */
  clear(): void {
    this.#receipts.clear();
    this.#latest.clear();
    this.#revoked.clear();
    this.#revocations = 0;
  }
}
