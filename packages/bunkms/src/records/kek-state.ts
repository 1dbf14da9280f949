import type { KeyObject } from 'node:crypto';
import type { AuditRecord } from '@bundoc/shared/contract/audit';
import { recordHash } from './chain.ts';

/**
 * What the audit chain says of the KEKs (`docs/formats/kek-records.md`). It is the one authority: which KEK
 * is the current one follows from the latest record that made one so, whatever stands in another table and in
 * whatever order the ring lists them.
 */

/**
 * `staged`: known, and never used. `current`: everything new is wrapped with it. `previous`: was the current
 * one, and something may be wrapped with it. `retired`: nothing is, and nothing ever will be.
 */
export type KekStanding = 'staged' | 'current' | 'previous' | 'retired';

export interface KekState {
  readonly current: string;
  /** Number of the latest record of the KEKs: as long as that is so, so is all of this. */
  readonly seq: number;
  /** By id, in the order in which they became known. */
  readonly keks: ReadonlyMap<string, { readonly standing: KekStanding; readonly since: string }>;
  /**
   * The latest act that made a KEK the current one; undefined while there was none since the installation was
   * made.
   */
  readonly rotation: KekRotationState | undefined;
}

export interface KekRotationState {
  /** Number of its record. */
  readonly seq: number;
  readonly from: string;
  readonly startedAt: string;
  /** When everything that opens was rewrapped. */
  readonly completedAt: string | undefined;
}

/** The record that shows that what the chain says of the KEKs was changed. */
export interface KekRecordFault {
  readonly seq: number;
}

/**
 * Actions of the records that say what the KEKs are. `kek.added` is of earlier releases, which made the first
 * of the ring the current one at each start.
 */
export const KEK_ACTIONS: readonly string[] = [
  'vault.initialised',
  'kek.added',
  'kek.stage',
  'kek.rotate',
  'kek.rewrapped',
  'kek.retire',
];

/** Whether a record is one of those that say what the KEKs are. */
export function isKekRecord({ action }: Pick<AuditRecord, 'action'>): boolean {
  return KEK_ACTIONS.includes(action);
}

/**
 * @param records all that have one of {@link KEK_ACTIONS}, in their order.
 * @returns the state, or the first record whose hash does not hold.
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
      case 'kek.added':
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

/** KEKs that something may be wrapped with: without one of them a ring is unusable. */
export function neededKeks({ keks }: KekState): string[] {
  return [...keks].flatMap(([kekId, { standing }]) =>
    standing === 'current' || standing === 'previous' ? [kekId] : [],
  );
}
