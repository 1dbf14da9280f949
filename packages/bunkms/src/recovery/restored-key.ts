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
 * @param known its later state; undefined without a later change on record.
 * @param isCovered whether nothing else can have happened since. If not, it comes back disabled.
 * @returns undefined when it comes back unchanged.
 */
export function restoredKey(
  archived: ArchivedKey,
  known: KeySnapshot | undefined,
  isCovered: boolean,
  recovery: Recovery,
): KeyChange | undefined {
  const before = archivedSnapshot(archived);
  // A destroyed key stays destroyed, whatever the evidence says.
  if (before.state === 'destroyed' || (isCovered && known === undefined)) return undefined;
  const { key, versions } = archived;
  return recoveredIn(known ?? before, isCovered, genuineOf(key, versions), recovery, key.idempotency);
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
  isCovered: boolean,
  recovery: Recovery,
): KeyChange {
  const own = genuine.filter(({ version }) => version <= known.version);
  return recoveredIn(known, isCovered, own, recovery);
}

function recoveredIn(
  known: KeySnapshot,
  isCovered: boolean,
  genuine: readonly KeyVersionRecord[],
  recovery: Recovery,
  idempotency?: KeyRecord['idempotency'],
): KeyChange {
  const last = isCovered ? known : forceDisabled(known);
  const snapshot = { ...last, revision: known.revision + 1 };
  const versions = versionsOf(snapshot, genuine, recovery.time);
  return recoveredKey(snapshot, versions, isCovered, recovery, idempotency);
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
  if (snapshot.state === 'destroyed') return allDestroyed(snapshot, genuine, snapshot.destroyedAt ?? time);
  const byNumber = new Map(genuine.map((version) => [version.version, version]));
  for (const number of snapshot.destroyedVersions)
    byNumber.set(number, destroyed(byNumber.get(number) ?? lostVersion(snapshot.id, number, time), time));
  return [...byNumber.values()].sort((one, other) => one.version - other.version);
}

export function union<T>(one: readonly T[], other: readonly T[]): T[] {
  return [...new Set([...one, ...other])];
}

function genuineOf(key: KeyRecord, versions: readonly KeyVersionRecord[]): KeyVersionRecord[] {
  return versions.filter((version) => version.version <= key.version && isGenuineVersion(key, version));
}
