import type { KeyObject } from 'node:crypto';
import type { AuditRecord } from '@bundoc/shared/contract/audit';
import { type ChainFault, type ChainHead, faultOf, GENESIS, recordHash } from './chain.ts';

/** Follows a chain record by record, even after the place where it is broken. */
export class ChainWalk {
  readonly #chainKey: KeyObject;
  #head: ChainHead;
  #fault: ChainFault | undefined;

  /** @param start the place that the first record must follow. */
  constructor(chainKey: KeyObject, start: ChainHead = GENESIS) {
    this.#chainKey = chainKey;
    this.#head = start;
  }

  /** The place of the last record, whether or not it is valid. */
  get head(): ChainHead {
    return this.#head;
  }

  /** The first fault of the chain; undefined while it is intact. */
  get fault(): ChainFault | undefined {
    return this.#fault;
  }

  /** @returns whether the record is unchanged, whatever its place. */
  take(record: AuditRecord): boolean {
    const fault = faultOf(this.#chainKey, this.#head, record);
    this.#fault ??= fault;
    this.#head = { seq: record.seq, hash: record.hash };
    return fault === undefined || isGenuine(this.#chainKey, record);
  }
}

/** Whether a record was written with this chain key, whatever its place. */
export function isGenuine(chainKey: KeyObject, record: AuditRecord): boolean {
  return recordHash(chainKey, record.prev_hash, record.seq, record) === record.hash;
}
