import type { AuditRecord } from '@bundoc/shared/contract/audit';
import { afterChange, type KeySnapshot } from './key-snapshot.ts';

/** What the audit chain tells of one key. */
export interface KeyHistory {
  /** How the key stands; undefined when the chain does not say how it was made. */
  readonly snapshot: KeySnapshot | undefined;
  /** `seq` of the latest record that changed it. */
  readonly lastChange: number;
  /** Check values of the versions whose making is on record. */
  readonly kcvs: ReadonlyMap<number, string>;
}

/**
 * What a chain, walked from its first record, tells of every key: also of those whose records are lost or
 * damaged.
 */
export class ChainHistory {
  readonly #byName = new Map<string, KeyHistory>();

  /** Takes in a record of the walk; all of them, in their order. */
  note(record: AuditRecord): void {
    const { key, action, outcome, version, detail, seq } = record;
    if (
      key === undefined ||
      (detail?.['revision'] === undefined && action !== 'key.create' && action !== 'key.rotate')
    )
      return;
    const before = this.#byName.get(key);
    const kcv = outcome === 'allowed' ? detail?.['kcv'] : undefined;
    const isMade = typeof kcv === 'string' && version !== undefined;
    this.#byName.set(key, {
      snapshot: afterChange(before?.snapshot, record),
      lastChange: seq,
      kcvs: isMade ? new Map(before?.kcvs).set(version, kcv) : (before?.kcvs ?? new Map()),
    });
  }

  of(name: string): KeyHistory | undefined {
    return this.#byName.get(name);
  }
}
