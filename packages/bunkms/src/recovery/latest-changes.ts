import type { AuditRecord } from '@bundoc/shared/contract/audit';
import { digestOfKey, type KeyFault, type KeyRecord } from '../records/key-record.ts';

/**
 * What a chain that is walked from its first record last said of each key, in the place of a store that would
 * be asked for it (`keyFault` of `records/key-record.ts`).
 */
export class LatestChanges {
  readonly #byName = new Map<string, { readonly digest: unknown; readonly isGenuine: boolean }>();

  /** Takes in a record of the walk; all of them, in their order. */
  note({ key, detail }: AuditRecord, isGenuine: boolean): void {
    if (key === undefined || detail?.['revision'] === undefined) return;
    this.#byName.set(key, { digest: detail['record'], isGenuine });
  }

  /** Why a key must not be obeyed; undefined when it is what the chain last said of that name. */
  faultOf(key: KeyRecord): KeyFault | undefined {
    const latest = this.#byName.get(key.name);
    if (latest === undefined) return 'not in the audit chain';
    if (!latest.isGenuine) return 'its audit record was changed';
    return latest.digest === digestOfKey(key) ? undefined : 'changed or put back';
  }

  /** Every name that the chain knows. */
  names(): Iterable<string> {
    return this.#byName.keys();
  }
}
