import { isDeepStrictEqual } from 'node:util';
import { allDestroyed, destroyed, lostVersion } from '../keys/destroy-key.ts';
import { isGenuineVersion, type KeyRecord, type KeyVersionRecord } from '../records/key-record.ts';
import type { KeyChange } from '../store/keys.ts';
import { forceDisabled, type KeySnapshot, snapshotOf } from './key-snapshot.ts';
import type { ArchivedKey } from './read-archive.ts';
import { type Recovery, recoveredKey } from './recovered-key.ts';

/** The state in the backup of a key that matches the backup's audit chain. */
export function archivedSnapshot({ key, versions }: ArchivedKey): KeySnapshot {
  return snapshotOf(key, genuineOf(key, versions));
}

/**
 * The restored form of a key in a backup.
 *
 * @param known its later state; undefined without evidence of a change.
 * @param isCovered whether its later state is known. If not, it comes back disabled.
 * @param keepsOffers whether holders are known not to have advanced since their offers, which would void
 *   them.
 * @param isOnRecord whether the restored chain has a later change of the key, even if only a rewrap.
 * @returns undefined when it comes back unchanged.
 */
export function restoredKey(
  archived: ArchivedKey,
  known: KeySnapshot | undefined,
  {
    isCovered,
    isOnRecord,
    keepsOffers,
  }: { readonly isCovered: boolean; readonly isOnRecord: boolean; readonly keepsOffers: boolean },
  recovery: Recovery,
): KeyChange | undefined {
  const before = archivedSnapshot(archived);
  // A destroyed key stays destroyed, whatever the evidence says.
  if (before.state === 'destroyed') return undefined;
  const snapshot = isCovered ? later(before, known) : forceDisabled(before);
  const wanted = keepsOffers ? snapshot : { ...snapshot, offer: null };
  if (!isOnRecord && isDeepStrictEqual(wanted, before)) return undefined;
  const { key, versions } = archived;
  const restored = { ...wanted, revision: Math.max(wanted.revision, before.revision) + 1 };
  return recoveredKey(
    restored,
    versionsOf(restored, genuineOf(key, versions), recovery.time),
    recovery,
    key.idempotency,
  );
}

/**
 * A key without a sound record in the backup: created after it, or damaged in it. Its name and its version
 * numbers stay taken.
 *
 * @param genuine its available versions.
 */
export function knownKey(
  known: KeySnapshot,
  genuine: readonly KeyVersionRecord[],
  recovery: Recovery,
): KeyChange {
  const snapshot = { ...known, revision: known.revision + 1 };
  const own = genuine.filter(({ version }) => version <= known.version);
  return recoveredKey(snapshot, versionsOf(snapshot, own, recovery.time), recovery);
}

/**
 * The versions of a key in the given state.
 *
 * @param genuine the available versions. Destroyed versions lose their bytes.
 */
export function versionsOf(
  snapshot: KeySnapshot,
  genuine: readonly KeyVersionRecord[],
  time: string,
): KeyVersionRecord[] {
  if (snapshot.state === 'destroyed') return allDestroyed(snapshot, genuine, snapshot.destroyed_at ?? time);
  const byNumber = new Map(genuine.map((version) => [version.version, version]));
  for (const number of snapshot.destroyed_versions)
    byNumber.set(number, destroyed(byNumber.get(number) ?? lostVersion(snapshot.id, number, time), time));
  return [...byNumber.values()].sort((one, other) => one.version - other.version);
}

/**
 * Merges two states of a key; the one with the higher revision is later. Destruction and restrictions are
 * never undone, whichever state is later.
 */
function later(before: KeySnapshot, known: KeySnapshot | undefined): KeySnapshot {
  if (known === undefined) return before;
  const isLater = known.state === 'destroyed' || known.revision > before.revision;
  const last = isLater ? known : before;
  const destroyedVersions = union(before.destroyed_versions, known.destroyed_versions);
  return {
    ...last,
    exportable: before.exportable && known.exportable,
    destroyed_versions: last.state === 'destroyed' ? [] : destroyedVersions.sort((one, other) => one - other),
    kek_ids: union(before.kek_ids, known.kek_ids),
  };
}

export function union<T>(one: readonly T[], other: readonly T[]): T[] {
  return [...new Set([...one, ...other])];
}

function genuineOf(key: KeyRecord, versions: readonly KeyVersionRecord[]): KeyVersionRecord[] {
  return versions.filter((version) => version.version <= key.version && isGenuineVersion(key, version));
}
