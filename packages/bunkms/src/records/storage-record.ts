import type { KeyObject } from 'node:crypto';
import type { AuditRecord } from '@bundoc/shared/contract/audit';
import type { Caller } from './caller.ts';
import { type AuditDraft, recordHash } from './chain.ts';

/**
 * Actions of the records that say how a storage of Bundoc stands. The latest one of a storage says all of it.
 */
export const STORAGE_ACTIONS: readonly string[] = ['storage.advance', 'storage.take_over'];

/** How a storage stands. */
export interface StorageState {
  readonly id: string;
  /** Null after a take-over that named none: the next start that asks is let in. */
  readonly generation: string | null;
  /** How often an administrator has taken the storage over. */
  readonly takeOvers: number;
}

/** A storage as the audit chain has it. */
export interface RecordedStorage extends StorageState {
  /** The place of the record in the chain, and its time. */
  readonly seq: number;
  readonly changedAt: string;
}

/** The record that makes a storage stand so. */
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
 * What the record says of the storage; undefined when it is not as it was written, or says nothing of that
 * storage.
 */
export function storageIn(chainKey: KeyObject, id: string, record: AuditRecord): RecordedStorage | undefined {
  const { seq, prev_hash: previous, hash, action, time, detail = {} } = record;
  const { storage, generation = null, take_overs: takeOvers } = detail;
  if (recordHash(chainKey, previous, seq, record) !== hash) return undefined;
  if (!STORAGE_ACTIONS.includes(action) || storage !== id || typeof takeOvers !== 'number') return undefined;
  if (generation !== null && typeof generation !== 'string') return undefined;
  return { id, generation, takeOvers, seq, changedAt: time };
}
