import type { KeyObject } from 'node:crypto';
import type { AuditRecord } from '@bundoc/shared/contract/audit';
import { type ChainFault, type ChainHead, faultOf, GENESIS, recordHash } from './chain.ts';

/** Follows a chain record by record, also behind the place where it is broken. */
export class ChainWalk {
  readonly #chainKey: KeyObject;
  #head: ChainHead;
  #fault: ChainFault | undefined;

  /** @param start what the first record must follow. */
  constructor(chainKey: KeyObject, start: ChainHead = GENESIS) {
    this.#chainKey = chainKey;
    this.#head = start;
  }

  /** The last record that was taken, whatever it was. */
  get head(): ChainHead {
    return this.#head;
  }

  /** Where the chain is broken first; undefined while it is not. */
  get fault(): ChainFault | undefined {
    return this.#fault;
  }

  /** @returns whether the record is as it was written, wherever it stands. */
  take(record: AuditRecord): boolean {
    const fault = faultOf(this.#chainKey, this.#head, record);
    this.#fault ??= fault;
    this.#head = { seq: record.seq, hash: record.hash };
    return fault === undefined || isGenuine(this.#chainKey, record);
  }
}

/** True for a record that was written with this chain key, in whatever place. */
export function isGenuine(chainKey: KeyObject, record: AuditRecord): boolean {
  return recordHash(chainKey, record.prev_hash, record.seq, record) === record.hash;
}
