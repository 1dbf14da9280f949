import { nextRotationAt } from '../keys/key-state.ts';
import type { Caller } from '../records/caller.ts';
import {
  DIGEST_BYTES,
  type KeyRecord,
  type KeyVersionRecord,
  keyChangeDraft,
  withDigests,
} from '../records/key-record.ts';
import type { KeyChange } from '../store/keys.ts';
import { detailOfSnapshot, type KeySnapshot } from './key-snapshot.ts';

/** The source and the caller of the recovery of a key. */
export interface Recovery {
  readonly caller: Caller;
  readonly time: string;
  /** The source, for the audit record. */
  readonly source: 'backup' | 'project-file';
}

/**
 * A key in the state of `snapshot`, with the available versions. Missing versions are lost until they are
 * recovered.
 *
 * @param snapshot with the new revision.
 * @param isCovered false when it is disabled because its later state is unknown (`keys-to-review.ts`).
 * @param idempotency of the former key, if known.
 */
export function recoveredKey(
  snapshot: KeySnapshot,
  versions: readonly KeyVersionRecord[],
  isCovered: boolean,
  { caller, time, source }: Recovery,
  idempotency: KeyRecord['idempotency'] = null,
): KeyChange {
  const current = versions.find(({ version }) => version === snapshot.version);
  const rotationAt = current === undefined ? null : nextRotationAt(snapshot, current.createdAt);
  const { destroyedVersions: _, deletionAt, ...facts } = snapshot;
  const record: KeyRecord = {
    ...facts,
    dueAt: snapshot.state === 'pending_deletion' ? deletionAt : rotationAt,
    idempotency,
    versionDigests: withDigests(new Uint8Array(snapshot.version * DIGEST_BYTES), versions),
  };
  const lost = snapshot.version - versions.length;
  const audit = keyChangeDraft({ caller, time, action: 'key.recover' }, record, {
    version: record.version,
    detail: {
      ...detailOfSnapshot(snapshot),
      source,
      ...(isCovered ? {} : { later_state: 'unknown' }),
      ...(current === undefined || current.kcv === '' ? {} : { kcv: current.kcv }),
      ...(lost === 0 ? {} : { lost_versions: lost }),
    },
  });
  return { record, versions, audit: { ...audit, severity: 'CRITICAL' } };
}
