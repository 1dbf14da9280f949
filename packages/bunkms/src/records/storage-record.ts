import type { KeyObject } from 'node:crypto';
import type { AuditRecord } from '@bundoc/shared/contract/audit';
import { TAKEN_OVER_MS_MAX } from '@bundoc/shared/contract/take-over-time';
import type { Caller } from './caller.ts';
import { type AuditDraft, recordHash } from './chain.ts';

/** Actions of the records of Bundoc's storages. The latest record of a storage has its complete state. */
export const STORAGE_ACTIONS: readonly string[] = ['storage.advance', 'storage.take_over'];

/** By how much a take-over is later than the former one where the clock was set back. */
const LATER_MS = 60_000;

/**
 * The time of a take-over, in milliseconds since 1970: later than the `former` one, and than each that is
 * lost, unless the clock was set back.
 */
export function takeOverTime(former: number, nowMs: number): number {
  return Math.min(nowMs > former ? nowMs : former + LATER_MS, TAKEN_OVER_MS_MAX);
}

/** The state of a storage. */
export interface StorageState {
  readonly id: string;
  /** Null after a take-over without a generation: the next start is accepted. */
  readonly generation: string | null;
  /**
   * When an administrator last let a copy of the storage take over, or records of that may have been lost, in
   * milliseconds since 1970; 0 for never.
   */
  readonly takenOverMs: number;
}

/** A storage with the place of its record. */
export interface RecordedStorage extends StorageState {
  /** Whether the record is of a take-over, and the storage has not advanced since. */
  readonly isTakenOver: boolean;
  /** Number and time of the record. */
  readonly seq: number;
  readonly changedAt: string;
}

/** The record of a new state of a storage. */
export function storageDraft(
  { caller, time }: { readonly caller: Caller; readonly time: string },
  action: 'storage.advance' | 'storage.take_over',
  { id, generation, takenOverMs }: StorageState,
): AuditDraft {
  return {
    ...caller,
    time,
    severity: action === 'storage.take_over' ? 'CRITICAL' : 'INFO',
    action,
    outcome: 'allowed',
    detail: { storage: id, ...(generation === null ? {} : { generation }), taken_over_ms: takenOverMs },
  };
}

/**
 * The state of the storage in the record; undefined when the record was changed, or is of another storage.
 */
export function storageIn(chainKey: KeyObject, id: string, record: AuditRecord): RecordedStorage | undefined {
  const { seq, prev_hash: previous, hash, action, time, detail = {} } = record;
  const { storage, generation = null, taken_over_ms: takenOverMs } = detail;
  if (recordHash(chainKey, previous, seq, record) !== hash) return undefined;
  if (!STORAGE_ACTIONS.includes(action) || storage !== id || typeof takenOverMs !== 'number')
    return undefined;
  if (generation !== null && typeof generation !== 'string') return undefined;
  const isTakenOver = action === 'storage.take_over';
  return { id, generation, takenOverMs, isTakenOver, seq, changedAt: time };
}
