import { HOLDER_UNKNOWN, KEY_VERSIONS_MAX } from '@bundoc/shared/contract/keys';
import { findOutsideOf, opens } from '../keys/open-dek.ts';
import { rewrapDek } from '../keys/rewrap-dek.ts';
import type { AuthenticKey } from '../keys/stored-key.ts';
import { recoveredOutside } from '../records/key-outside.ts';
import type { KeyVersionRecord, StoredKey } from '../records/key-record.ts';
import { kekIdOf } from '../records/wrapped-key.ts';
import type { KeyChange } from '../store/keys.ts';
import type { Vault } from '../vault/vault.ts';
import type { KeyHistory } from './chain-history.ts';
import { forceDisabled, type KeySnapshot, newSnapshot, snapshotOf } from './key-snapshot.ts';
import type { ProjectKey } from './project-keys.ts';
import { type Recovery, recoveredKey } from './recovered-key.ts';
import { union, versionsOf } from './restored-key.ts';

/** The plan for the key of one project. */
export type Plan =
  /** It is intact. `lost`: versions that are missing in the store and in the project. */
  | { readonly outcome: 'sound'; readonly lost: readonly number[] }
  | {
      readonly outcome: 'recover';
      readonly change: KeyChange;
      readonly added: readonly number[];
      readonly lost: readonly number[];
    }
  /** It was destroyed, and stays so. */
  | { readonly outcome: 'destroyed' }
  /** Nothing is done, and an operator must look. */
  | { readonly outcome: 'conflict' | 'unreadable'; readonly problem: string };

/** The available facts about the key of one project. */
export interface Evidence {
  readonly projectKey: ProjectKey;
  /** The content of the store for the name and, if it matches the audit chain, the key. */
  readonly stored: StoredKey | undefined;
  readonly authentic: AuthenticKey | undefined;
  readonly history: KeyHistory | undefined;
}

/**
 * Decides what to do with the key of a project. From a project's file, only keys that unwrap under their
 * name, id and version are trusted. Only a BunKMS with the KEK can have wrapped them. The file cannot show
 * whether the key was destroyed since: a key whose later state the store does not know comes back disabled.
 */
export function planRecovery(vault: Vault, evidence: Evidence, recovery: Recovery): Plan {
  const { projectKey, authentic, history } = evidence;
  const { name, id } = projectKey;
  const known =
    authentic === undefined ? history?.snapshot : snapshotOf(authentic.record, authentic.versions);
  if (known?.state === 'destroyed') return { outcome: 'destroyed' };
  if (known !== undefined && known.id !== id)
    return { outcome: 'conflict', problem: 'another key has that name' };
  // The chain also covers versions whose record is lost.
  const destroyedVersions = [
    ...new Set([known, history?.snapshot].flatMap((one) => one?.destroyedVersions ?? [])),
  ];

  const present = presentVersions(vault, evidence, destroyedVersions, recovery.time);
  const found = openAll(vault, projectKey, destroyedVersions, recovery.time);
  const conflict = conflictOf(present, found.opened, history);
  if (conflict !== undefined) return { outcome: 'conflict', problem: conflict };

  const rows = new Map([...byNumber(authentic?.versions ?? []), ...found.opened, ...present]);
  const kekIds = kekIdsOf(rows.values());
  const newest = Math.max(0, ...rows.keys());
  const count = Math.max(known?.version ?? 0, newest);
  const unreadable = unreadableOf(vault, evidence, found, rows, count);
  if (unreadable !== undefined) return { outcome: 'unreadable', problem: unreadable };
  const added = [...found.opened.keys()].filter((version) => !present.has(version)).sort(ascending);
  const lost = numbersTo(count).filter(
    (version) => !present.has(version) && !found.opened.has(version) && !destroyedVersions.includes(version),
  );
  if (authentic !== undefined && added.length === 0) return { outcome: 'sound', lost };

  const isCovered = known !== undefined && newest <= known.version;
  const base = known ?? unknownKey(projectKey);
  const snapshot: KeySnapshot = {
    ...(isCovered || base.state !== 'enabled' ? base : forceDisabled(base)),
    version: count,
    destroyedVersions: destroyedVersions.filter((version) => version <= count).sort(ascending),
    revision: (authentic?.record.revision ?? base.revision) + 1,
    kekIds: union(base.kekIds, [...kekIds, vault.currentKekId]),
    outside: isCovered ? base.outside : outsideOfNewest(vault, name, rows.get(newest), base),
  };
  const change = recoveredKey(
    snapshot,
    versionsOf(
      snapshot,
      [...rows.values()].map((row) => underCurrentKek(vault, name, row)),
      recovery.time,
    ),
    isCovered,
    recovery,
    authentic?.record.idempotency,
  );
  return { outcome: 'recover', change, added, lost };
}

type Versions = ReadonlyMap<number, KeyVersionRecord>;

/**
 * The versions in the store that open or are destroyed. For a key that is not authentic, only versions that
 * are authentic on their own.
 */
function presentVersions(
  vault: Vault,
  { projectKey: { name, id }, stored, authentic, history }: Evidence,
  destroyedVersions: readonly number[],
  time: string,
): Versions {
  if (authentic !== undefined)
    return byNumber(authentic.versions.filter((one) => one.state === 'destroyed' || opens(vault, name, one)));
  const rows = (stored?.versions ?? []).filter(
    (one) =>
      one.keyId === id &&
      !destroyedVersions.includes(one.version) &&
      one.kcv === (history?.kcvs.get(one.version) ?? one.kcv) &&
      opens(vault, name, one),
  );
  // Anybody may have written the other columns of such a row.
  return byNumber(rows.map(({ version, kcv, wrapped }) => available(id, { version, kcv, wrapped }, time)));
}

interface Opened {
  readonly opened: ReadonlyMap<number, KeyVersionRecord>;
  /** Why the others do not open. */
  readonly unopened: ReadonlyMap<number, string>;
}

function openAll(
  vault: Vault,
  { name, id, versions }: ProjectKey,
  destroyedVersions: readonly number[],
  time: string,
): Opened {
  const opened = new Map<number, KeyVersionRecord>();
  const unopened = new Map<number, string>();
  for (const wrapped of versions) {
    const { version } = wrapped;
    if (destroyedVersions.includes(version) || version > KEY_VERSIONS_MAX || opened.has(version)) continue;
    const row = available(id, wrapped, time);
    if (opens(vault, name, row)) opened.set(version, row);
    else unopened.set(version, problemOf(vault, row.wrapped));
  }
  for (const version of opened.keys()) unopened.delete(version);
  return { opened, unopened };
}

function problemOf(vault: Vault, wrapped: Uint8Array): string {
  return lacksKek(vault, wrapped)
    ? `needs the KEK ${kekIdOf(wrapped)}, which the ring lacks`
    : 'does not open';
}

/** Why a key cannot be recovered without losing versions that may still open; undefined when it can. */
function unreadableOf(
  vault: Vault,
  { stored, authentic }: Evidence,
  { unopened }: Opened,
  rows: Versions,
  count: number,
): string | undefined {
  // A new version would get its number.
  for (const [version, problem] of unopened)
    if (version > count) return `version ${version} of the project ${problem}`;
  if (authentic === undefined)
    for (const { version, wrapped } of stored?.versions ?? [])
      if (!rows.has(version) && lacksKek(vault, wrapped))
        return `version ${version} in the store ${problemOf(vault, wrapped)}`;
  if ([...rows.values()].some(({ state }) => state === 'available')) return undefined;
  const [first] = unopened;
  return first === undefined ? 'no version of it exists' : `version ${first[0]} of the project ${first[1]}`;
}

export function lacksKek(vault: Vault, wrapped: Uint8Array): boolean {
  const kekId = kekIdOf(wrapped);
  return kekId !== undefined && vault.checkValueOf(kekId) === undefined;
}

/**
 * A conflict: a version that was created here after a restore has the number of an older one in the project.
 */
function conflictOf(
  present: Versions,
  opened: Versions,
  history: KeyHistory | undefined,
): string | undefined {
  for (const [version, { kcv }] of opened) {
    if (
      [present.get(version)?.kcv, history?.kcvs.get(version)].some(
        (here) => here !== undefined && here !== kcv,
      )
    )
      return `version ${version} of the project is another key than version ${version} in the store`;
  }
  return undefined;
}

/** The state of an otherwise unknown key, which was created and released to Bundoc before the project. */
function unknownKey({ name, id, createdAt }: ProjectKey): KeySnapshot {
  return { ...newSnapshot(name, id, createdAt), holder: HOLDER_UNKNOWN };
}

/**
 * The outside key of a key whose later state is unknown. Its newest version names it, so a key that was
 * attached never comes back without its customer.
 */
function outsideOfNewest(
  vault: Vault,
  name: string,
  newest: KeyVersionRecord | undefined,
  { outside }: KeySnapshot,
): KeySnapshot['outside'] {
  const key = newest === undefined ? undefined : findOutsideOf(vault, name, newest);
  if (key === undefined) return null;
  return outside?.key === key ? outside : recoveredOutside(key);
}

function available(
  keyId: string,
  { version, kcv, wrapped }: Pick<KeyVersionRecord, 'version' | 'kcv' | 'wrapped'>,
  time: string,
): KeyVersionRecord {
  return { keyId, version, kcv, state: 'available', createdAt: time, destroyedAt: null, wrapped };
}

/**
 * The version wrapped with the current KEK, because the store accepts no other. A version that does not open
 * is unchanged.
 */
function underCurrentKek(vault: Vault, name: string, row: KeyVersionRecord): KeyVersionRecord {
  const isNeeded = row.state === 'available' && kekIdOf(row.wrapped) !== vault.currentKekId;
  return isNeeded && opens(vault, name, row) ? { ...row, wrapped: rewrapDek(vault, name, row) } : row;
}

function kekIdsOf(versions: Iterable<KeyVersionRecord>): string[] {
  return [...versions].flatMap(({ wrapped }) => kekIdOf(wrapped) ?? []);
}

function byNumber(versions: readonly KeyVersionRecord[]): Map<number, KeyVersionRecord> {
  return new Map(versions.map((version) => [version.version, version]));
}

export function numbersTo(count: number): number[] {
  return Array.from({ length: count }, (_, index) => index + 1);
}

function ascending(one: number, other: number): number {
  return one - other;
}
