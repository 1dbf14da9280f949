import type { KeyObject } from 'node:crypto';
import type { AuditRecord } from '@bundoc/shared/contract/audit';
import type { Caller } from './caller.ts';
import { type AuditDraft, recordHash } from './chain.ts';

/** Actions of the records of Bundoc's storages. The latest record of a storage has its complete state. */
export const STORAGE_ACTIONS: readonly string[] = ['storage.advance', 'storage.take_over'];

/**
 * A count of take-overs above each one that may be lost: the time, in milliseconds since 1970. Every later
 * such count is larger, if the clock has not been set back.
 */
export function takeOversAfterLoss(known: number, nowMs: number): number {
  return Math.max(known + 1, nowMs);
}

/** The state of a storage. */
export interface StorageState {
  readonly id: string;
  /** Null after a take-over without a generation: the next start is accepted. */
  readonly generation: string | null;
  /**
   * How often an administrator has taken the storage over, raised after each loss of records. It exceeds
   * every count that a Bundoc has seen.
   */
  readonly takeOvers: number;
}

/** A storage with the place of its record. */
export interface RecordedStorage extends StorageState {
  /** Number and time of the record. */
  readonly seq: number;
  readonly changedAt: string;
}

/** The record of a new state of a storage. */
export function storageDraft(
  { caller, time }: { readonly caller: Caller; readonly time: string },
  action: 'storage.advance' | 'storage.take_over',
  { id, generation, takeOvers }: StorageState,
): AuditDraft {
  return {
    ...caller,
    time,
    severity: action === 'storage.take_over' ? 'CRITICAL' : 'INFO',
    action,
    outcome: 'allowed',
    detail: { storage: id, ...(generation === null ? {} : { generation }), take_overs: takeOvers },
  };
}

/**
 * The state of the storage in the record; undefined when the record was changed, or is of another storage.
 */
export function storageIn(chainKey: KeyObject, id: string, record: AuditRecord): RecordedStorage | undefined {
  const { seq, prev_hash: previous, hash, action, time, detail = {} } = record;
  const { storage, generation = null, take_overs: takeOvers } = detail;
  if (recordHash(chainKey, previous, seq, record) !== hash) return undefined;
  if (!STORAGE_ACTIONS.includes(action) || storage !== id || typeof takeOvers !== 'number') return undefined;
  if (generation !== null && typeof generation !== 'string') return undefined;
  return { id, generation, takeOvers, seq, changedAt: time };
}
