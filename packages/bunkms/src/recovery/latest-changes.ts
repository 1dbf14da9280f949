import type { AuditRecord } from '@bundoc/shared/contract/audit';
import { digestOfKey, type KeyFault, type KeyRecord } from '../records/key-record.ts';

/**
 * The latest change of each key, from a walk of the chain from its first record. It replaces the look-up in a
 * store (`keyFault` of `records/key-record.ts`).
 */
export class LatestChanges {
  readonly #byName = new Map<string, { readonly digest: unknown; readonly isGenuine: boolean }>();

  /** Adds a record of the walk. Call it for all records, in order. */
  note({ key, detail }: AuditRecord, isGenuine: boolean): void {
    if (key === undefined || detail?.['revision'] === undefined) return;
    this.#byName.set(key, { digest: detail['record'], isGenuine });
  }

  /** Why a key must not be used; undefined when it matches the latest change of that name. */
  faultOf(key: KeyRecord): KeyFault | undefined {
    const latest = this.#byName.get(key.name);
    if (latest === undefined) return 'not in the audit chain';
    if (!latest.isGenuine) return 'its audit record was changed';
    return latest.digest === digestOfKey(key) ? undefined : 'changed or rolled back';
  }

  /** All names in the chain. */
  names(): Iterable<string> {
    return this.#byName.keys();
  }
}
