import { AppError } from '@bundoc/shared/contract/app-error';
import { defined } from '@bundoc/shared/contract/defined';
import type { AuditReceipt } from '@bundoc/shared/contract/keys';
import type { Caller } from '../records/caller.ts';
import type { AuditDraft } from '../records/chain.ts';
import { type KeyRecord, type KeyVersionRecord, keyChangeDraft, withDigests } from '../records/key-record.ts';
import type { VersionChoice } from '../store/keys.ts';
import type { StorageStamp } from '../store/storages.ts';
import { type ActingStorage, requireCurrent } from './storages.ts';
import { type AuthenticKey, type KeyDeps, readStoredKey, stampOf } from './stored-key.ts';

/**
 * The revisions that a change requires: `*` for any, or the given entity tags. Undefined for no requirement.
 */
export type IfMatch = '*' | readonly string[] | undefined;

/**
 * The result of a decision: the new state of a key. The digests, the revision and the record are added here.
 */
export interface Decision {
  readonly action: string;
  readonly record: KeyRecord;
  readonly versions?: readonly KeyVersionRecord[];
  /** The version in the record of the change. */
  readonly version?: number;
  readonly detail?: NonNullable<AuditDraft['detail']>;
  /** The key must not have been released after this record of the audit chain. */
  readonly unreleasedSince?: number | undefined;
  /** Further storages, besides the acting one, that must be unchanged since they were read. */
  readonly storages?: readonly StorageStamp[];
}

export interface ChangedKey extends Pick<AuthenticKey, 'record' | 'versions'> {
  /** Undefined when there was nothing to change. */
  readonly receipt: AuditReceipt | undefined;
  /** The place of the key's latest change in the audit chain. */
  readonly change: AuditReceipt;
}

/** A request for a key by name. */
export interface KeyRequest {
  readonly name: string;
  readonly ifMatch?: IfMatch;
  /** The acting storage. Nothing is changed unless its generation is the current one at that moment. */
  readonly acting?: ActingStorage;
}

/** Maximum retries: each round lets one of the concurrent writers succeed. */
const ROUNDS_MAX = 256;

/** The present entity tag of a key, without its quotes. */
export function tagOf({ id, revision }: Pick<KeyRecord, 'id' | 'revision'>): string {
  return `${id}-${revision}`;
}

/**
 * Changes a key together with its audit record. It reads the key, calls `decide` for the new state, and
 * stores that. If another writer in any process was faster, it reads again and repeats the decision.
 *
 * @param decide returns undefined when there is nothing to change, and throws to refuse. It may be called
 *   more than once.
 * @returns the resulting key, once durable, with the versions that were read.
 * @throws AppError `unauthenticated` when the caller's token was revoked, `storage_superseded`,
 *   `key_not_found`, `key_damaged`, `precondition_failed`, and what `decide` throws.
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
    // Before the tag is compared: a destroyed key is reported as destroyed rather than changed.
    const decision = await decide(key, time);
    requireMatch(key.record, ifMatch);
    if (decision === undefined) return { ...key, receipt: undefined };
    const { action, version, detail, versions = [], unreleasedSince, storages = [] } = decision;
    const record: KeyRecord = {
      ...decision.record,
      revision: key.record.revision + 1,
      versionDigests: withDigests(key.record.versionDigests, versions),
    };
    const audit = keyChangeDraft({ caller, time, action }, record, {
      ...defined({ version, detail }),
    });
    const previous = stampOf(key.record);
    const marks = storage === undefined ? storages : [storage, ...storages];
    const update = { record, versions, audit, previous, jti: caller.jti, storages: marks, unreleasedSince };
    const receipt = await deps.store.updateKey(update);
    if (receipt !== undefined)
      return { record, versions: merged(key.versions, versions), receipt, change: receipt };
    // Another writer was faster, or a new version was wrapped with a KEK that is no longer current.
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
