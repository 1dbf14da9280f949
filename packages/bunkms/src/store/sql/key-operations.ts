import { AppError } from '@bundoc/shared/contract/app-error';
import type { AuditReceipt } from '@bundoc/shared/contract/keys';
import type { KeyChange, KeyUpdate } from '../keys.ts';
import type { ReadBodies, WriteBodies } from './bodies.ts';
import type { ChainWriter } from './chain-writer.ts';
import { isWrappedWith } from './kek-uses.ts';
import type { Repository } from './repository.ts';
import type { Sql } from './statement.ts';

export function keySnapshots({ keys }: Repository) {
  return {
    *findKey(name, choice) {
      const stored =
        choice === 'all'
          ? yield* keys.findWithAllVersions(name)
          : (yield* keys.findStored([[name, choice === 'current' ? null : choice]]))[0];
      return stored?.record === undefined && stored?.lastChange === undefined ? undefined : stored;
    },
    listKeys: (globs, page) => keys.list(globs, page),
    listDueKeys: (until, page) => keys.listDue(until, page),
    listDeletions: (holder, page) => keys.listDeletions(holder, page),
  } satisfies ReadBodies<'findKey' | 'listKeys' | 'listDueKeys' | 'listDeletions'>;
}

export function keyReads({ audit, keys }: Repository) {
  return {
    lastChange: (name) => audit.placeOfLastChange(name),
    countDeletions: () => keys.countDeletions(),
  } satisfies ReadBodies<'lastChange' | 'countDeletions'>;
}

export function keyWrites(repository: Repository) {
  const { audit, keys } = repository;
  return {
    *insertKey(chain, key, idempotentSince) {
      const { name, idempotency } = key.record;
      yield* requireActiveToken(repository, key);
      if (idempotency !== null && idempotentSince !== undefined) {
        const before = yield* keys.findIdempotent(idempotency.key, idempotentSince);
        if (before !== undefined) return (yield* keys.findStored([[before.name, 1]]))[0];
      }
      const [present] = yield* keys.findStored([[name, null]]);
      if (present?.record !== undefined || present?.lastChange !== undefined)
        throw new AppError('key_exists');
      if (!isWrappedWith(key.versions, yield* audit.currentKek())) return 'outdated';
      if (!(yield* areAsRead(repository, key.storages))) return 'outdated';
      yield* keys.insert(key);
      chain.append(key.audit);
      return undefined;
    },
    *updateKey(chain, change) {
      return yield* update(repository, chain, change, yield* audit.currentKek());
    },
    *updateKeys(chain, changes) {
      const kekId = yield* audit.currentKek();
      const receipts: (AuditReceipt | undefined)[] = [];
      for (const change of changes) receipts.push(yield* update(repository, chain, change, kekId));
      return receipts;
    },
    *replaceKey(chain, change, expected) {
      if ((yield* audit.lastChange(change.record.name))?.seq !== expected) return undefined;
      if (!isWrappedWith(change.versions, yield* audit.currentKek())) return undefined;
      yield* keys.remove(change.record);
      yield* keys.insert(change);
      return chain.append(change.audit);
    },
  } satisfies WriteBodies<'insertKey' | 'updateKey' | 'updateKeys' | 'replaceKey'>;
}

function* requireActiveToken({ activeFamilies }: Repository, { jti }: KeyChange): Sql<void> {
  if (jti !== undefined && !(yield* activeFamilies([jti])).has(jti)) throw new AppError('unauthenticated');
}

/** Whether no storage has changed since it was read. */
function* areAsRead({ audit }: Repository, storages: KeyChange['storages'] = []): Sql<boolean> {
  const places = yield* audit.storagePlaces(storages.map(({ id }) => id));
  for (const storage of storages) if (!(yield* audit.isStorageAsRead(storage, places))) return false;
  return true;
}

/**
 * @returns undefined, with nothing written, when the key, a storage or the current KEK has changed, or the
 *   key was released.
 */
function* update(
  repository: Repository,
  chain: ChainWriter,
  change: KeyUpdate,
  kekId: string | undefined,
): Sql<AuditReceipt | undefined> {
  const { audit, keys } = repository;
  const { storages, unreleasedSince, record } = change;
  yield* requireActiveToken(repository, change);
  if (!isWrappedWith(change.versions, kekId)) return undefined;
  if (!(yield* areAsRead(repository, storages))) return undefined;
  if (unreleasedSince !== undefined && (yield* audit.isReleasedSince(record.name, unreleasedSince)))
    return undefined;
  return (yield* keys.update(change)) ? chain.append(change.audit) : undefined;
}
