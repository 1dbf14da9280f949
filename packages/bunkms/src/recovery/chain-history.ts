import type { AuditRecord } from '@bundoc/shared/contract/audit';
import { afterChange, type KeySnapshot } from './key-snapshot.ts';

/** The history of one key in the audit chain. */
export interface KeyHistory {
  /** The state of the key; undefined when the chain lacks its creation. */
  readonly snapshot: KeySnapshot | undefined;
  /** `seq` of the latest record that changed it. */
  readonly lastChange: number;
  /** Check values of the versions whose creation is on record. */
  readonly kcvs: ReadonlyMap<number, string>;
}

/**
 * The history of every key, from a walk of the chain from its first record. It includes keys whose rows are
 * lost or damaged.
 */
export class ChainHistory {
  readonly #byName = new Map<string, KeyHistory>();

  /** Adds a record of the walk. Call it for all records, in order. */
  note(record: AuditRecord): void {
    const { key, outcome, version, detail, seq } = record;
    if (key === undefined || detail?.['revision'] === undefined) return;
    const before = this.#byName.get(key);
    const kcv = outcome === 'allowed' ? detail['kcv'] : undefined;
    const isMade = typeof kcv === 'string' && version !== undefined;
    this.#byName.set(key, {
      snapshot: afterChange(before?.snapshot, record),
      lastChange: seq,
      kcvs: isMade ? new Map(before?.kcvs).set(version, kcv) : (before?.kcvs ?? new Map()),
    });
  }

  /** All names in the chain. */
  names(): Iterable<string> {
    return this.#byName.keys();
  }

  of(name: string): KeyHistory | undefined {
    return this.#byName.get(name);
  }
}
