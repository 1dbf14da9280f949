import { nextRotationAt } from '../keys/key-state.ts';
import type { Caller } from '../records/caller.ts';
import type { KeyRecord, KeyVersionRecord } from '../records/key-record.ts';
import { DIGEST_BYTES, keyChangeDraft, withDigests } from '../records/key-record.ts';
import type { KeyChange } from '../store/port.ts';
import { detailOfStanding, type KeyStanding } from './key-standing.ts';

/** Why and by whom a key is brought back. */
export interface Recovery {
  readonly caller: Caller;
  readonly time: string;
  /** Where it comes from, for the audit record. */
  readonly source: 'backup' | 'project-file';
  /** What else the audit record shall say. */
  readonly detail?: Readonly<Record<string, string | number | boolean>>;
}

/**
 * A key that stands as `standing` says, with the versions that there are; those that are missing are lost until they are recovered.
 *
 * @param standing with the revision that it shall have.
 * @param idempotency of the key as it was, if that is known.
 */
export function recoveredKey(
  standing: KeyStanding,
  versions: readonly KeyVersionRecord[],
  { caller, time, source, detail }: Recovery,
  idempotency: KeyRecord['idempotency'] = null,
): KeyChange {
  const current = versions.find(({ version }) => version === standing.version);
  const rotation = {
    state: standing.state,
    rotateAfterDays: standing.rotate_after_days,
    version: standing.version,
  };
  const rotationAt = current === undefined ? null : nextRotationAt(rotation, current.createdAt);
  const record: KeyRecord = {
    ...rotation,
    id: standing.id,
    name: standing.name,
    type: standing.type,
    revision: standing.revision,
    exportable: standing.exportable,
    dueAt: standing.state === 'pending_deletion' ? standing.deletion_at : rotationAt,
    createdAt: standing.created_at,
    destroyedAt: standing.destroyed_at,
    kekIds: standing.kek_ids,
    idempotency,
    versionDigests: withDigests(new Uint8Array(standing.version * DIGEST_BYTES), versions),
    holder: standing.holder,
    offer: standing.offer,
    intendedAt: standing.intended_at,
  };
  const lost = standing.version - versions.length;
  const audit = keyChangeDraft({ caller, time, action: 'key.recover' }, record, {
    version: record.version,
    detail: {
      ...detailOfStanding(standing),
      source,
      ...detail,
      ...(current === undefined || current.kcv === '' ? {} : { kcv: current.kcv }),
      ...(lost === 0 ? {} : { lost_versions: lost }),
    },
  });
  return { record, versions, audit: { ...audit, severity: 'CRITICAL' } };
}
