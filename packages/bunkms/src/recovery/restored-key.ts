import { isDeepStrictEqual } from 'node:util';
import { allDestroyed, destroyed, lostVersion } from '../keys/destroy-key.ts';
import { isGenuineVersion, type KeyRecord, type KeyVersionRecord } from '../records/key-record.ts';
import type { KeyChange } from '../store/keys.ts';
import { forceDisabled, type KeySnapshot, snapshotOf } from './key-snapshot.ts';
import type { ArchivedKey } from './read-archive.ts';
import { type Recovery, recoveredKey } from './recovered-key.ts';

/** How a key of a backup, which is what the audit chain of the backup says, stands there. */
export function archivedSnapshot({ key, versions }: ArchivedKey): KeySnapshot {
  return snapshotOf(key, genuineOf(key, versions));
}

/**
 * How a key of a backup comes back.
 *
 * @param known how it stood later; undefined when nothing says that it changed.
 * @param isCovered whether it is known what became of it. If it is not, it comes back disabled.
 * @param keepsOffers whether it is known that the holders have not advanced since they made their offers,
 * which voids them.
 * @param isOnRecord whether the chain that is restored tells of a change of it since, be it a new wrapping
 * alone.
 * @returns undefined when it is to be as it is in the backup.
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
  // What was destroyed stays destroyed, whatever a list says.
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
 * A key that the backup has no sound record of: made after it, or damaged in it. Its name and its number of
 * versions stay taken.
 *
 * @param genuine versions of it that are at hand.
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
 * The versions of a key that stands so.
 *
 * @param genuine those that are at hand; what the key does not have any more comes without its bytes.
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
 * Each says what the key was at some time; the one of the higher revision is later. What was destroyed stays
 * so, and what may only become less never becomes more, whichever is later.
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
