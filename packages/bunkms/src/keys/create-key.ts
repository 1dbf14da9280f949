import { hash, randomUUID } from 'node:crypto';
import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import { defined } from '@bundoc/shared/contract/defined';
import { type CreateKey, IDEMPOTENCY_MS, type KeyInfo, LEASE_TTL_S_MAX } from '@bundoc/shared/contract/keys';
import type { Caller } from '../records/caller.ts';
import { outsideDetail } from '../records/key-outside.ts';
import {
  type KeyRecord,
  type KeyVersionRecord,
  keyChangeDraft,
  type StoredKey,
  withDigests,
} from '../records/key-record.ts';
import type { KeyChange } from '../store/keys.ts';
import { infoOf, nextRotationAt } from './key-state.ts';
import { mintVersion } from './mint-version.ts';
import { findAttached } from './open-dek.ts';
import { requireCurrent } from './storages.ts';
import { authenticate, type KeyDeps, readStoredKey, versionOf } from './stored-key.ts';

/** The `Idempotency-Key` of a create request, and who sends it. */
export interface Idempotency {
  /** The root of the token. A tenant chooses the subjects of its tokens, but not their root. */
  readonly root: string;
  readonly subject: string;
  readonly key: string;
}

/**
 * Creates a DEK and stores it wrapped, together with its audit record. For {@link IDEMPOTENCY_MS}, a repeated
 * request with the same idempotency key, subject and root gets the same answer and creates nothing. Later
 * changes of the key do not matter. With a generation, the storage must have it at that moment.
 *
 * @throws AppError `storage_superseded`; `key_exists`, also when the stored key with that name is damaged;
 *   `key_destroyed`; `idempotency_mismatch`; `outside_key_denied`, `outside_key_unavailable`. Neither a
 *   damaged nor a destroyed key is replaced.
 */
export async function createKey(
  deps: KeyDeps,
  wanted: CreateKey,
  caller: Caller,
  idempotency?: Idempotency,
): Promise<KeyInfo> {
  const { storage, generation } = wanted;
  const acting = storage === undefined || generation === undefined ? undefined : { storage, generation };
  for (let round = 0; round < ROUNDS_MAX; round++) {
    const storages = acting === undefined ? [] : [await requireCurrent(deps, acting)];
    const nowMs = deps.clock.now();
    const { change, first } = await newKey(deps, wanted, {
      caller,
      time: new Date(nowMs).toISOString(),
      idempotency: idempotency === undefined ? null : hashesOf(idempotency, wanted),
    });
    const since = idempotency === undefined ? undefined : new Date(nowMs - IDEMPOTENCY_MS).toISOString();
    const before = await insert(deps, { ...change, storages }, since);
    if (before === undefined) return infoOf(change.record, first);
    if (before !== 'outdated') return replay(deps, before, change.record);
    await deps.keks.refresh();
  }
  throw new AppError('overloaded');
}

/** Maximum retries after rotations of the KEK, or advances of the storage, during one request. */
const ROUNDS_MAX = 8;

interface Origin {
  readonly caller: Caller;
  readonly time: string;
  readonly idempotency: KeyRecord['idempotency'];
}

async function newKey(
  { vault, outside }: KeyDeps,
  { name, type, exportable, rotate_after_days: rotateAfterDays, storage }: CreateKey,
  { caller, time, idempotency }: Origin,
): Promise<{ readonly change: KeyChange; readonly first: KeyVersionRecord }> {
  const id = randomUUID();
  const of = outside.ofBirth(name);
  const target = of === undefined ? undefined : await findAttached(outside, of, null);
  const first = await mintVersion(vault, { keyId: id, name, version: 1 }, time, target);
  const attached =
    target === undefined ? null : { key: target.name, identity: target.identity, leaseTtlS: LEASE_TTL_S_MAX };
  const policies = { state: 'enabled', rotateAfterDays, version: 1 } as const;
  const record: KeyRecord = {
    ...policies,
    id,
    name,
    type,
    revision: 1,
    exportable,
    dueAt: nextRotationAt(policies, time),
    createdAt: time,
    destroyedAt: null,
    kekIds: [vault.currentKekId],
    idempotency,
    versionDigests: withDigests(new Uint8Array(), [first]),
    holder: storage ?? null,
    offer: null,
    intendedAt: null,
    outside: attached,
  };
  const draft = keyChangeDraft({ caller, time, action: 'key.create' }, record, {
    version: 1,
    // With these details, the chain alone gives the state of a key whose record is lost.
    detail: {
      kcv: first.kcv,
      ...(exportable ? {} : { exportable }),
      ...(rotateAfterDays === null ? {} : { rotate_after_days: rotateAfterDays }),
      ...defined({ holder: storage }),
      ...(attached === null ? {} : outsideDetail(attached)),
    },
  });
  return { change: { record, versions: [first], audit: draft, jti: caller.jti }, first };
}

async function insert(
  deps: KeyDeps,
  change: KeyChange,
  since: string | undefined,
): Promise<StoredKey | 'outdated' | undefined> {
  try {
    return await deps.store.insertKey(change, since);
  } catch (error) {
    if (!hasCode(error, 'key_exists')) throw error;
    const present = await readStoredKey(deps, change.record.name, 'current').catch(() => undefined);
    throw present?.record.state === 'destroyed' ? new AppError('key_destroyed') : error;
  }
}

/** The answer to the first such request. */
function replay(deps: KeyDeps, stored: StoredKey, asked: KeyRecord): KeyInfo {
  const key = authenticate(deps, stored.record?.name ?? '', stored);
  if (key === undefined) throw new AppError('key_damaged');
  if (key.record.idempotency?.request !== asked.idempotency?.request)
    throw new AppError('idempotency_mismatch');
  const { id, createdAt } = key.record;
  const dueAt = nextRotationAt(asked, createdAt);
  return infoOf({ ...asked, id, createdAt, dueAt }, versionOf(key, 1, deps.logger));
}

/**
 * Hashes, so that the store contains neither idempotency keys nor their subjects. The generation is left out:
 * a storage may advance between a request and its repetition.
 */
function hashesOf({ root, subject, key }: Idempotency, wanted: CreateKey): { key: string; request: string } {
  const { name, type, exportable, rotate_after_days: days, storage = null } = wanted;
  const request = JSON.stringify(['bunkms/create-key/v2', name, type, exportable, days, storage]);
  return {
    key: hash('sha256', JSON.stringify(['bunkms/idempotency-key/v2', root, subject, key]), 'hex'),
    request: hash('sha256', request, 'hex'),
  };
}
