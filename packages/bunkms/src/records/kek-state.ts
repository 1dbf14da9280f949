import type { KeyObject } from 'node:crypto';
import type { AuditRecord } from '@bundoc/shared/contract/audit';
import { recordHash } from './chain.ts';

/**
 * The states of the KEKs from the audit chain (`docs/formats/kek-records.md`), which is the only authority.
 * The current KEK follows from the latest record that made one current, whatever other tables say and however
 * the ring is ordered.
 */

/**
 * `staged`: known, but never used. `current`: wraps everything new. `previous`: was current, and something
 * may still be wrapped with it. `retired`: nothing is or will be wrapped with it.
 */
export type KekStanding = 'staged' | 'current' | 'previous' | 'retired';

export interface KekState {
  readonly current: string;
  /** Number of the latest record of the KEKs. While it stays the same, so does all of this. */
  readonly seq: number;
  /** KEKs by id, in the order in which they became known. */
  readonly keks: ReadonlyMap<string, { readonly standing: KekStanding; readonly since: string }>;
  /**
   * The latest change of the current KEK; undefined if there was none since the creation of the installation.
   */
  readonly rotation: KekRotationState | undefined;
}

export interface KekRotationState {
  /** Number of its record. */
  readonly seq: number;
  readonly from: string;
  readonly startedAt: string;
  /** When everything that can be opened was rewrapped. */
  readonly completedAt: string | undefined;
}

/** The changed record among those of the KEKs. */
export interface KekRecordFault {
  readonly seq: number;
}

/** Actions of the records of the KEKs. */
export const KEK_ACTIONS: readonly string[] = [
  'vault.initialised',
  'kek.stage',
  'kek.rotate',
  'kek.rewrapped',
  'kek.retire',
];

/** Whether a record is one of those of the KEKs. */
export function isKekRecord({ action }: Pick<AuditRecord, 'action'>): boolean {
  return KEK_ACTIONS.includes(action);
}

/**
 * @param records all records with one of {@link KEK_ACTIONS}, in order.
 * @returns the state, or the first record with a wrong hash.
 */
export function foldKekRecords(
  chainKey: KeyObject,
  records: readonly AuditRecord[],
): KekState | KekRecordFault {
  const keks = new Map<string, { standing: KekStanding; since: string }>();
  let current = '';
  let rotation: KekRotationState | undefined;
  const stand = (kekId: string, standing: KekStanding, since: string) => keks.set(kekId, { standing, since });
  const makeCurrent = (kekId: string, time: string) => {
    if (keks.has(current)) stand(current, 'previous', time);
    stand(kekId, 'current', time);
    current = kekId;
  };
  for (const record of records) {
    const { seq, time, action, detail, prev_hash: previous } = record;
    if (recordHash(chainKey, previous, seq, record) !== record.hash) return { seq };
    const kekId = String(detail?.['kek_id']);
    switch (action) {
      case 'vault.initialised':
        makeCurrent(kekId, time);
        break;
      case 'kek.stage':
        // Removing a known KEK from its table does not undo its use.
        if (!keks.has(kekId)) stand(kekId, 'staged', time);
        break;
      case 'kek.rotate':
        rotation = { seq, from: current, startedAt: time, completedAt: undefined };
        makeCurrent(kekId, time);
        break;
      case 'kek.rewrapped':
        if (rotation?.seq === detail?.['rotation'] && rotation !== undefined)
          rotation = { ...rotation, completedAt: time };
        break;
      case 'kek.retire':
        stand(kekId, 'retired', time);
    }
  }
  return { current, seq: records.at(-1)?.seq ?? 0, keks, rotation };
}

/** KEKs with which something may be wrapped: a ring must contain all of them. */
export function neededKeks({ keks }: KekState): string[] {
  return [...keks].flatMap(([kekId, { standing }]) =>
    standing === 'current' || standing === 'previous' ? [kekId] : [],
  );
}
