import { AppError } from '@bundoc/shared/contract/app-error';
import type { AuditReceipt } from '@bundoc/shared/contract/keys';
import type { Caller } from '../records/caller.ts';
import type { AuditDraft } from '../records/chain.ts';
import { type KeyRecord, type KeyVersionRecord, keyChangeDraft, withDigests } from '../records/key-record.ts';
import type { VersionChoice } from '../store/keys.ts';
import type { StorageStamp } from '../store/storages.ts';
import { type ActingStorage, requireCurrent } from './storages.ts';
import { type AuthenticKey, type KeyDeps, readStoredKey, stampOf } from './stored-key.ts';

/**
 * Which revisions a caller will change: `*` for any, else the entity tags that it names. Undefined when it
 * does not say.
 */
export type IfMatch = '*' | readonly string[] | undefined;

/** What a change makes of a key. The digests, the revision and the record of it are added here. */
export interface Decision {
  readonly action: string;
  readonly record: KeyRecord;
  readonly versions?: readonly KeyVersionRecord[];
  /** The version that the record of the change names. */
  readonly version?: number;
  readonly detail?: NonNullable<AuditDraft['detail']>;
  /** Behind this record of the audit chain the key may not have been released. */
  readonly quietSince?: number | undefined;
  /** Storages beside the one that asks, which must stand as they were read. */
  readonly storages?: readonly StorageStamp[];
}

export interface ChangedKey extends Pick<AuthenticKey, 'record' | 'versions'> {
  /** Undefined when there was nothing to change. */
  readonly receipt: AuditReceipt | undefined;
  /** Where in the audit chain the latest change of the key is. */
  readonly change: AuditReceipt;
}

/** What is asked of a key by name. */
export interface KeyRequest {
  readonly name: string;
  readonly ifMatch?: IfMatch;
  /** The storage that asks. Nothing is changed unless its generation is the current one at that moment. */
  readonly acting?: ActingStorage;
}

/**
 * Of concurrent writers each round lets one succeed, so this many lose at most; beyond it something is wrong.
 */
const ROUNDS_MAX = 256;

/** The entity tag of a key as it is, without its quotes. */
export function tagOf({ id, revision }: Pick<KeyRecord, 'id' | 'revision'>): string {
  return `${id}-${revision}`;
}

/**
 * Changes a key, together with the audit record of it: reads it, lets `decide` say what shall become of it,
 * and stores that unless another writer, in this process or another, was faster; then it decides again on
 * what that one left.
 *
 * @param decide returns undefined when there is nothing to change, and throws to refuse. May be called more
 * than once.
 * @returns the key as it is then, durable, with the versions that were read.
 * @throws AppError `unauthenticated` when the caller's token was revoked meanwhile, `storage_superseded`,
 * `key_not_found`, `key_damaged`, `precondition_failed`, and what `decide` throws.
 */
export async function changeKey(
  deps: KeyDeps,
  { name, ifMatch, acting }: KeyRequest,
  choice: VersionChoice,
  caller: Caller,
  decide: (key: AuthenticKey, time: string) => Decision | undefined | Promise<Decision | undefined>,
): Promise<ChangedKey> {
  for (let round = 0; round < ROUNDS_MAX; round++) {
    const storage = acting === undefined ? undefined : await requireCurrent(deps, acting);
    const key = await readStoredKey(deps, name, choice);
    const time = new Date(deps.clock.now()).toISOString();
    // Before the tag is looked at: that a key was destroyed is more than that it has changed.
    const decision = await decide(key, time);
    requireMatch(key.record, ifMatch);
    if (decision === undefined) return { ...key, receipt: undefined };
    const { action, version, detail, versions = [], quietSince, storages = [] } = decision;
    const record: KeyRecord = {
      ...decision.record,
      revision: key.record.revision + 1,
      versionDigests: withDigests(key.record.versionDigests, versions),
    };
    const audit = keyChangeDraft({ caller, time, action }, record, {
      ...(version === undefined ? {} : { version }),
      ...(detail === undefined ? {} : { detail }),
    });
    const previous = stampOf(key.record);
    const marks = storage === undefined ? storages : [storage, ...storages];
    const update = { record, versions, audit, previous, jti: caller.jti, storages: marks, quietSince };
    const receipt = await deps.store.updateKey(update);
    if (receipt !== undefined)
      return { record, versions: merged(key.versions, versions), receipt, change: receipt };
    // Another writer was faster; or what is new was wrapped with a KEK that is not the current one any more.
    if (versions.some(({ wrapped }) => wrapped.length > 0)) await deps.keks.refresh();
  }
  throw new AppError('overloaded');
}

/** @throws AppError `precondition_failed`. */
function requireMatch(record: KeyRecord, ifMatch: IfMatch): void {
  if (ifMatch !== undefined && ifMatch !== '*' && !ifMatch.includes(tagOf(record)))
    throw new AppError('precondition_failed');
}

function merged(
  before: readonly KeyVersionRecord[],
  changed: readonly KeyVersionRecord[],
): KeyVersionRecord[] {
  const byNumber = new Map([...before, ...changed].map((one) => [one.version, one]));
  return [...byNumber.values()].sort((one, other) => one.version - other.version);
}
