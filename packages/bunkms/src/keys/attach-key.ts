import { isDeepStrictEqual } from 'node:util';
import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import { type AttachedKey, type AttachKey, OUTSIDE_FAULTS } from '@bundoc/shared/contract/keys';
import type { OutsideKey } from '../outside/port.ts';
import type { Caller } from '../records/caller.ts';
import { outsideDetail } from '../records/key-outside.ts';
import type { KeyOutside, KeyRecord, KeyVersionRecord } from '../records/key-record.ts';
import { type ChangedKey, changeKey, type Decision, type KeyRequest } from './change-key.ts';
import { nextRotationAt, refuseDestroyed, requireEnabled } from './key-state.ts';
import { mintVersion, wrapVersion } from './mint-version.ts';
import { findAttached, openDek, outsideOf, outsideRefusal, requireOpens } from './open-dek.ts';
import { type LeftVersion, protectionOf, versionsLeft } from './outside-state.ts';
import { requireSpare, withKek } from './rotate-key.ts';
import { type AuthenticKey, type KeyDeps, versionOf } from './stored-key.ts';

/**
 * Keys of customers: a key that is attached to an outside key opens only with it as well, from a new version
 * on. Older versions follow by {@link rewrapVersions}. Each step may be cut short and repeated; the key is
 * usable throughout.
 */

/** Versions that one call protects: an outside key takes eight calls at once. */
const AT_ONCE = 8;

/**
 * Attaches a key to an outside key, by a new version. A repetition without effect leaves no record.
 *
 * @throws AppError `outside_key_unknown` for an entry that does not exist, or does not allow the key;
 *   `outside_key_denied`, `outside_key_unavailable`, and of `rotateKey`.
 */
export async function attachKey(
  deps: KeyDeps,
  wanted: KeyRequest & AttachKey,
  caller: Caller,
): Promise<AttachedKey> {
  const changed = await changeKey(deps, wanted, 'current', caller, async (key, time) => {
    requireEnabled(key.record);
    const { name } = key.record;
    if (!deps.outside.allows(wanted.key, name)) throw new AppError('outside_key_unknown');
    const target = await findAttached(deps.outside, wanted.key, null);
    const outside = { key: wanted.key, identity: target.identity, leaseTtlS: wanted.lease_ttl_s };
    if (isUnder(deps, key, outside)) return withLease(key.record, outside);
    await requireUnwraps(deps, target);
    return await withNewVersion(deps, key, time, { action: 'key.attach', outside, target });
  });
  return attachedOf(deps, changed);
}

/**
 * Detaches a key from its outside key, by a new version. The outside key is not asked: its holder may have
 * taken it back.
 *
 * @throws AppError as `rotateKey`.
 */
export async function detachKey(deps: KeyDeps, wanted: KeyRequest, caller: Caller): Promise<AttachedKey> {
  const changed = await changeKey(deps, wanted, 'current', caller, async (key, time) => {
    requireEnabled(key.record);
    if (isUnder(deps, key, null)) return undefined;
    return await withNewVersion(deps, key, time, { action: 'key.detach', outside: null, target: undefined });
  });
  return attachedOf(deps, changed);
}

/** A rewrap that asks for one version after another, so that other uses find places. */
export interface RewrapInTurn {
  /** The rewrap ends after its present version when it aborts. */
  readonly until: AbortSignal;
  /** Whether an outside key is left alone for now, with the versions that need it. */
  readonly rests: (outside: string) => boolean;
}

/**
 * Protects some older versions of a key as its present ones are: under its outside key, or under none. Copies
 * that were made before stay as they are, in backups and at holders, and open with their KEKs. Repeat it
 * until no version is left: versions that fail keep no other from it, and what has worked stays.
 *
 * @throws AppError `outside_key_denied`, `outside_key_unavailable`, `outside_key_changed`, `key_damaged`,
 *   once only versions are left that fail; `key_destroyed`, and of {@link changeKey}.
 */
export async function rewrapVersions(
  deps: KeyDeps,
  wanted: KeyRequest,
  caller: Caller,
  inTurn?: RewrapInTurn,
): Promise<AttachedKey> {
  let failure: AppError | undefined;
  const changed = await changeKey(deps, wanted, 'all', caller, async (key) => {
    const { record } = key;
    refuseDestroyed(record);
    const left = versionsLeft(deps, key);
    const { versions, ...rest } = await rewrapSome(left, (one) => rewrapped(deps, record, one), inTurn);
    failure = rest.failure;
    if (versions.length === 0) {
      if (failure !== undefined) throw failure;
      return undefined;
    }
    const kekIds = withKek(record.kekIds, deps.vault);
    const detail = { kek_id: deps.vault.currentKekId };
    return { action: 'key.rewrap', record: { ...record, kekIds }, versions, detail };
  });
  if (failure !== undefined) throw failure;
  return attachedOf(deps, changed);
}

interface RewrappedVersions {
  readonly versions: readonly KeyVersionRecord[];
  /** Why one has failed; undefined while others are left that may work. */
  readonly failure: AppError | undefined;
}

/** Rewraps versions until as many have worked as one call protects, or none is left. */
async function rewrapSome(
  candidates: readonly LeftVersion[],
  rewrap: (version: KeyVersionRecord) => Promise<KeyVersionRecord>,
  inTurn: RewrapInTurn | undefined,
): Promise<RewrappedVersions> {
  let left = candidates.filter(({ needs }) => inTurn === undefined || !needs.some(inTurn.rests));
  const versions: KeyVersionRecord[] = [];
  let failure: AppError | undefined;
  while (left.length > 0 && versions.length < AT_ONCE && inTurn?.until.aborted !== true) {
    const count = inTurn === undefined ? AT_ONCE - versions.length : 1;
    const tried = left.slice(0, count).map(({ version }) => rewrap(version).catch(ofVersion));
    left = left.slice(count);
    for (const result of await Promise.all(tried)) {
      if (!(result instanceof AppError)) {
        versions.push(result);
        continue;
      }
      failure ??= result;
      // Others that need this outside key would fail as well.
      const { outsideKey } = result;
      if (outsideKey !== undefined) left = left.filter(({ needs }) => !needs.includes(outsideKey));
    }
  }
  return { versions, failure: left.length === 0 ? failure : undefined };
}

/** The fault of a version, which only affects those that need the same outside key. */
function ofVersion(error: unknown): AppError {
  if (hasCode(error, ...OUTSIDE_FAULTS, 'key_damaged')) return error;
  throw error;
}

interface Attachment {
  readonly action: 'key.attach' | 'key.detach';
  readonly outside: KeyOutside | null;
  readonly target: OutsideKey | undefined;
}

async function withNewVersion(
  deps: KeyDeps,
  { record: present }: AuthenticKey,
  time: string,
  { action, outside, target }: Attachment,
): Promise<Decision> {
  requireSpare(present);
  const identity = { keyId: present.id, name: present.name, version: present.version + 1 };
  const added = await mintVersion(deps.vault, identity, time, target);
  const kekIds = withKek(present.kekIds, deps.vault);
  const record = { ...present, version: added.version, kekIds, outside };
  return {
    action,
    record: { ...record, dueAt: nextRotationAt(record, time) },
    versions: [added],
    version: added.version,
    detail: { kcv: added.kcv, ...(outside === null ? {} : outsideDetail(outside)) },
  };
}

/** A change of the lease alone needs no new version. */
function withLease(record: KeyRecord, outside: KeyOutside): Decision | undefined {
  if (isDeepStrictEqual(record.outside, outside)) return undefined;
  const detail = outsideDetail(outside);
  return { action: 'key.attach', record: { ...record, outside }, version: record.version, detail };
}

/** Whether the current version is protected so, by this very outside key. */
function isUnder(deps: KeyDeps, key: AuthenticKey, outside: KeyOutside | null): boolean {
  const { record } = key;
  if (record.outside?.key !== outside?.key || record.outside?.identity !== outside?.identity) return false;
  const current = versionOf(key, record.version, deps.logger);
  return outsideOf(deps, record.name, current) === outside?.key;
}

/** A provider may keep what it needs to unwrap in its process alone: another one must unwrap it, too. */
async function requireUnwraps({ outside }: KeyDeps, target: OutsideKey): Promise<void> {
  try {
    await using fresh = await outside.openFresh(target.name);
    if (fresh?.identity !== target.identity) throw new AppError('outside_key_changed');
    await fresh.check();
  } catch (error) {
    throw outsideRefusal(target.name, error);
  }
}

async function rewrapped(
  deps: KeyDeps,
  record: KeyRecord,
  version: KeyVersionRecord,
): Promise<KeyVersionRecord> {
  const { id: keyId, name, outside } = record;
  const target = outside === null ? undefined : await findAttached(deps.outside, outside.key, outside);
  const dek = await openDek(deps, record, version);
  try {
    const identity = { keyId, name, version: version.version };
    const renewed = { ...version, wrapped: await wrapVersion(deps.vault, dek, identity, target) };
    requireOpens(deps, name, renewed);
    return renewed;
  } finally {
    dek.fill(0);
  }
}

function attachedOf(deps: KeyDeps, { record }: ChangedKey): Promise<AttachedKey> {
  return protectionOf(deps, record.name);
}
