import type { AuditRecord } from '@bundoc/shared/contract/audit';
import { defined } from '@bundoc/shared/contract/defined';
import { type AttachedKey, OUTSIDE_FAULTS, type OutsideState } from '@bundoc/shared/contract/keys';
import type { KeyRecord, KeyVersionRecord } from '../records/key-record.ts';
import { formatOf, OUTSIDE_FORMAT } from '../records/wrapped-key.ts';
import { USE_ACTIONS } from '../store/audit.ts';
import { infoOfKey } from './key-state.ts';
import { versionsOpenedBy } from './leases.ts';
import { findOutsideOf, opens } from './open-dek.ts';
import { type AuthenticKey, type KeyDeps, readStoredKey } from './stored-key.ts';

/** Records of a key that are searched for its last success and its last error. */
const RECORDS_MAX = 500;
/** Changes of an attached key that its outside key has taken part in. */
const CHANGES: readonly string[] = ['key.create', 'key.attach', 'key.rotate'];

/** The outside keys of the versions that need one, by number. Asks no outside key. */
export function outsideNames(
  { vault }: Pick<KeyDeps, 'vault'>,
  { record, versions }: Pick<AuthenticKey, 'record' | 'versions'>,
): ReadonlyMap<number, string> {
  const names = new Map<number, string>();
  for (const version of versions) {
    if (formatOf(version.wrapped) !== OUTSIDE_FORMAT) continue;
    const name = findOutsideOf(vault, record.name, version);
    if (name !== undefined) names.set(version.version, name);
  }
  return names;
}

/**
 * How outside keys protect a key; undefined when it has nothing to do with them. Asks no outside key.
 *
 * @param key with all its versions.
 */
export async function outsideStateOf(
  deps: KeyDeps,
  key: AuthenticKey,
  names: ReadonlyMap<number, string>,
): Promise<OutsideState | undefined> {
  const { record } = key;
  if (record.outside === null && names.size === 0) return undefined;
  return {
    other_versions: otherVersions(deps, key, names).map(({ version }) => version),
    kek_ids: [...record.kekIds],
    ...(await lastUses(deps, record, names)),
  };
}

/** The key, and which of its versions are not protected as new ones are. Asks no outside key. */
export async function protectionOf(deps: KeyDeps, name: string): Promise<AttachedKey> {
  const key = await readStoredKey(deps, name, 'all');
  return {
    ...infoOfKey(key),
    other_versions: otherVersions(deps, key).map(({ version }) => version),
    kek_ids: [...key.record.kekIds],
  };
}

/**
 * The available versions that are not protected as new ones are: under another outside key, or under none. A
 * damaged one is a finding of "kek verify", and not among them.
 */
function otherVersions(
  deps: Pick<KeyDeps, 'vault'>,
  key: Pick<AuthenticKey, 'record' | 'versions'>,
  names = outsideNames(deps, key),
): KeyVersionRecord[] {
  const { name, outside } = key.record;
  return key.versions.filter(
    (version) =>
      version.state === 'available' &&
      names.get(version.version) !== outside?.key &&
      opens(deps.vault, name, version),
  );
}

/** A version that is not protected as new ones are. */
export interface LeftVersion {
  readonly version: KeyVersionRecord;
  /** The outside keys that its protection asks: the present one of the key, and its own. */
  readonly needs: readonly string[];
}

/** {@link otherVersions}, those first that need the fewest outside keys. */
export function versionsLeft(
  deps: Pick<KeyDeps, 'vault'>,
  key: Pick<AuthenticKey, 'record' | 'versions'>,
): LeftVersion[] {
  const names = outsideNames(deps, key);
  const present = key.record.outside?.key;
  const left = otherVersions(deps, key, names).map((version) => ({
    version,
    needs: [present, names.get(version.version)].filter((name) => name !== undefined),
  }));
  return left.sort((one, other) => one.needs.length - other.needs.length);
}

/** From the audit chain, whose records any node wrote. */
async function lastUses(
  { store }: KeyDeps,
  { name, createdAt, outside }: KeyRecord,
  names: ReadonlyMap<number, string>,
): Promise<Pick<OutsideState, 'last_success_at' | 'last_error'>> {
  const records = await store.newestRecords(name, RECORDS_MAX);
  const needs = (record: AuditRecord) => needsOutside(record, names, outside !== null);
  let success = records.find(needs);
  // Refusals may be all that is new.
  if (success === undefined && records.length === RECORDS_MAX)
    success = (await store.listExports(name, createdAt, { limit: 10 })).items.find(needs);
  const error = records.find(({ code }) => faultOf(code) !== undefined);
  const code = faultOf(error?.code);
  return defined({
    last_success_at: success?.time,
    last_error: error === undefined || code === undefined ? undefined : { code, at: error.time },
  });
}

/** Whether what a record says has needed an outside key. */
function needsOutside(record: AuditRecord, names: ReadonlyMap<number, string>, isAttached: boolean): boolean {
  const { action, outcome, detail } = record;
  if (outcome !== 'allowed') return false;
  if (action === 'key.export') return detail?.['outside_ms'] !== undefined;
  if (CHANGES.includes(action)) return isAttached && detail?.['kcv'] !== undefined;
  return USE_ACTIONS.includes(action) && versionsOpenedBy(record).some((version) => names.has(version));
}

function faultOf(code: string | undefined) {
  return OUTSIDE_FAULTS.find((fault) => fault === code);
}
