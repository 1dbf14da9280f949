import type { KeyObject } from 'node:crypto';
import type { AuditRecord } from '@bundoc/shared/contract/audit';
import { keyFault } from '../records/key-record.ts';
import type { KeyStore } from '../store/keys.ts';
import { allItems } from '../store/page.ts';

const PAGE = 500;

/**
 * Compares all keys with the chain during a walk. Readers find the latest change of a key by an index, which
 * anyone who can write to the database can falsify. The walk sees the records themselves.
 */
export class KeyVerification {
  readonly #latest = new Map<string, number>();

  /** Adds a record of the walk. Call it for all records, in order. */
  note({ seq, key, detail }: AuditRecord): void {
    if (key !== undefined && detail?.['revision'] !== undefined) this.#latest.set(key, seq);
  }

  /**
   * @returns the names of the keys that contradict the chain, in order, except keys that change during the
   *   check.
   */
  async damagedKeys(store: KeyStore, chainKey: KeyObject): Promise<string[]> {
    const names = new Set(this.#latest.keys());
    const read = (after?: string) => store.listKeys(['*'], { after, limit: PAGE });
    for await (const { name } of allItems(read, (key) => key.name)) names.add(name);
    const damaged: string[] = [];
    for (const name of [...names].sort())
      if (!(await this.#isSound(store, chainKey, name))) damaged.push(name);
    return damaged;
  }

  async #isSound(store: KeyStore, chainKey: KeyObject, name: string): Promise<boolean> {
    const stored = await store.findKey(name, 'current');
    if (stored === undefined || keyFault(chainKey, name, stored) !== undefined) return false;
    return (stored.lastChange?.seq ?? 0) >= (this.#latest.get(name) ?? 0);
  }
}
