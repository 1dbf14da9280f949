import type { AuditReceipt } from '@bundoc/shared/contract/keys';
import type { AuditDraft } from '../../records/chain.ts';
import { STORAGE_ACTIONS } from '../../records/storage-record.ts';
import type { AuditCondition, RejectReason } from '../audit.ts';
import type { ReadBodies, WriteBodies } from './bodies.ts';
import type { ChainWriter } from './chain-writer.ts';
import type { Repository } from './repository.ts';
import type { Sql } from './statement.ts';

export function auditReads({ audit }: Repository) {
  return {
    auditHead: () => audit.head(),
    recordsAt: (seqs) => audit.at(seqs),
    latestRestore: () => audit.latestRestore(),
    brokenLink: (after, upTo) => audit.brokenLink(after, upTo),
    listAudit: (query) => audit.list(query),
    listExports: (key, from, page) => audit.exportsOf(key, from, page),
    listInnerUses: (key, from, page) => audit.innerUsesOf(key, from, page),
    newestRecords: (key, limit) => audit.newestOf(key, limit),
    listStorageExports: (storage, from, page) => audit.exportsToStorage(storage, from, page),
    listStorages: (page) => audit.storages(page),
    *storageRecord(id) {
      return (yield* audit.storageRecords([id])).get(id);
    },
  } satisfies ReadBodies<
    | 'auditHead'
    | 'recordsAt'
    | 'latestRestore'
    | 'brokenLink'
    | 'listAudit'
    | 'listExports'
    | 'listInnerUses'
    | 'newestRecords'
    | 'listStorageExports'
    | 'listStorages'
    | 'storageRecord'
  >;
}

export function auditWrites(repository: Repository) {
  return {
    appendAudit: (chain, records, conditions = []) => appendAll(repository, chain, records, conditions),
    *appendAuditOnce(chain, record) {
      if (yield* repository.audit.has(record)) return false;
      chain.append(record);
      return true;
    },
  } satisfies WriteBodies<'appendAudit' | 'appendAuditOnce'>;
}

/**
 * Appends the records whose conditions hold. Appending changes neither tokens nor keys, so all of them are
 * checked at once. Storages are also read at once, and updated by the appended records. Conditions on KEKs
 * may change with each record, so they are checked one by one.
 */
function* appendAll(
  repository: Repository,
  chain: ChainWriter,
  records: readonly AuditDraft[],
  conditions: readonly (AuditCondition | undefined)[],
): Sql<(AuditReceipt | RejectReason)[]> {
  const { audit, activeFamilies } = repository;
  const active = yield* activeFamilies([...new Set(conditions.flatMap((condition) => condition?.jti ?? []))]);
  const changed = yield* changedKeys(repository, conditions);
  const storages = yield* audit.storagePlaces(conditions.flatMap(({ storage } = {}) => storage?.id ?? []));
  const results: (AuditReceipt | RejectReason)[] = [];
  for (const [at, record] of records.entries()) {
    const condition = conditions[at] ?? {};
    const { jti, storage } = condition;
    let reason: RejectReason | undefined;
    if (jti !== undefined && !active.has(jti)) reason = 'token_revoked';
    else if (changed.has(at)) reason = 'key_changed';
    else if (storage !== undefined && !(yield* audit.isStorageAsRead(storage, storages)))
      reason = 'storage_changed';
    else reason = yield* kekReason(repository, condition);
    const result = reason ?? chain.append(record);
    if (typeof result !== 'string' && STORAGE_ACTIONS.includes(record.action))
      storages.set(String(record.detail?.['storage']), result.seq);
    results.push(result);
  }
  return results;
}

/** Indexes of the conditions whose key has changed. */
function* changedKeys(
  { keys }: Repository,
  conditions: readonly (AuditCondition | undefined)[],
): Sql<Set<number>> {
  const keyed = conditions.flatMap(({ key } = {}, at) => (key === undefined ? [] : [{ at, key }]));
  const areUnchanged = yield* keys.areUnchanged(keyed.map(({ key }) => key));
  return new Set(keyed.flatMap(({ at }, index) => (areUnchanged[index] === true ? [] : [at])));
}

function* kekReason(
  { audit, kekUses, cluster }: Repository,
  { kekRecord, requireUnusedKek, kekHeldByAllNodes }: AuditCondition,
): Sql<RejectReason | undefined> {
  if (kekRecord !== undefined && kekRecord !== (yield* audit.latestKekRecord())) return 'keks_changed';
  if (requireUnusedKek !== undefined && (yield* kekUses.isUsed(requireUnusedKek))) return 'kek_in_use';
  if (kekHeldByAllNodes !== undefined && !(yield* cluster.isHeldByAll(kekHeldByAllNodes)))
    return 'kek_not_held';
  return undefined;
}
