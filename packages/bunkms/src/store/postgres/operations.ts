import { AppError } from '@bundoc/shared/contract/app-error';
import type { AuditRecord } from '@bundoc/shared/contract/audit';
import type { AuditReceipt } from '@bundoc/shared/contract/keys';
import type { AuditDraft } from '../../records/chain.ts';
import type { KeyRecord, NamedKey, StoredKey } from '../../records/key-record.ts';
import { STORAGE_ACTIONS } from '../../records/storage-record.ts';
import { kekIdOf } from '../../records/wrapped-key.ts';
import type {
  AuditCondition,
  FilteredPage,
  KeyChange,
  KeyUpdate,
  KmsStore,
  RejectReason,
  StorageStamp,
} from '../port.ts';
import { byFamily } from '../row-records.ts';
import {
  currentKek,
  exportsOf,
  exportsToStorage,
  hasRecord,
  head,
  isReleasedSince,
  isReleasedToSince,
  kekRecords,
  lastChange,
  lastChanges,
  latestKekRecord,
  listRecords,
  placesOfLastChanges,
  storagePlaces,
  storageRecords,
} from './audit-table.ts';
import { BatchedRead } from './batched-read.ts';
import { insertInstallation, insertKek, readInstallation, replaceSecrets } from './installation-table.ts';
import {
  countNotWrappedBy,
  isKekInUse,
  isWrappedWith,
  kekUses,
  listStaleCopies,
  listWrapped,
} from './kek-uses.ts';
import {
  allVersions,
  countDeletions,
  currentVersions,
  findIdempotent,
  findKey,
  findStoredKey,
  findStoredKeys,
  insertKey,
  keyQuestion,
  listDeletions,
  listDueKeys,
  listKeys,
  NOTHING,
  placesAsRead,
  removeKey,
  storedKey,
  updateKey,
} from './key-table.ts';
import type { Pools } from './pools.ts';
import { scrub } from './scrub.ts';
import type { Session } from './session.ts';
import { Tasks } from './tasks.ts';
import {
  findToken,
  insertToken,
  isRevoked,
  listIssues,
  listRevoked,
  listTokens,
  liveFamilies,
  markRevoked,
  pruneTokens,
} from './token-table.ts';
import type { WriteSession } from './write-session.ts';
import { TOUCH, type Writer } from './writer.ts';

export type PostgresOperations = Omit<KmsStore, 'readAll' | 'load' | 'close' | typeof Symbol.asyncDispose>;

/** The store's operations. Each write is a part of one transaction, which holds up those of all other nodes. */
export function postgresOperations(pools: Pools, writer: Writer): PostgresOperations {
  const tasks = new Tasks();
  const liveAmong = (session: Session, jtis: readonly string[]) =>
    liveFamilies(session, jtis, writer.chainKey);
  const requireLive = async (session: Session, { jti }: KeyChange) => {
    if (jti !== undefined && !(await liveAmong(session, [jti])).has(jti))
      throw new AppError('unauthenticated');
  };
  const updateInTurn = async (session: WriteSession, change: KeyUpdate, kekId: string | undefined) => {
    await requireLive(session, change);
    return update(session, change, kekId);
  };
  const families = new BatchedRead<string | undefined>(pools, liveAmong, undefined);
  const storedKeys = new BatchedRead<StoredKey>(pools, findStoredKeys, NOTHING);
  const storages = new BatchedRead<AuditRecord | undefined>(pools, storageRecords, undefined);
  const places = new BatchedRead<AuditReceipt | undefined>(pools, placesOfLastChanges, undefined);
  return {
    readInstallation: () => pools.read(readInstallation),
    initialise: async (installation, chainKey, record) => {
      const isMade = await writer.writeUnaudited(async (session) => {
        if ((await readInstallation(session)) !== undefined) return false;
        session.unlock(chainKey);
        await insertInstallation(session, installation);
        session.append(record);
        return true;
      });
      if (isMade) writer.unlock(chainKey);
      return isMade;
    },
    unlock: async (chainKey) => writer.unlock(chainKey),
    addKek: (kek, record) =>
      writer.write(async (session) => {
        if (!(await insertKek(session, kek, record.time))) return false;
        session.append(record);
        return true;
      }),
    kekRecords: () => pools.read(kekRecords),
    kekUses: () => pools.snapshot(kekUses),
    countNotWrappedBy: (kekId) => pools.read((session) => countNotWrappedBy(session, kekId)),
    listWrapped: (kekId, page) => pools.snapshot((session) => listWrapped(session, kekId, page)),
    replaceSecrets: (secrets, previous, record) =>
      writer.write(async (session) => {
        const kekId = await currentKek(session);
        const wrapped = [secrets.chainKeyWrapped, secrets.signingSeedWrapped];
        if (wrapped.some((one) => kekIdOf(one) !== kekId)) return false;
        if (!(await replaceSecrets(session, secrets, previous))) return false;
        session.append(record);
        return true;
      }),
    claim: (claim) => writer.writeUnaudited((session) => tasks.claim(session, claim)),
    announce: (presence) => writer.writeUnaudited((session) => tasks.announce(session, presence)),
    withdraw: (service) => writer.writeUnaudited((session) => tasks.withdraw(session, service)),
    release: (claim) => writer.writeUnaudited((session) => tasks.release(session, claim)),

    insertKey: (key, idempotentSince) =>
      writer.write(async (session) => {
        const { name, idempotency } = key.record;
        await requireLive(session, key);
        if (idempotency !== null && idempotentSince !== undefined) {
          const before = await findIdempotent(session, idempotency.key, idempotentSince);
          if (before !== undefined) return await findStoredKey(session, before.name, 1);
        }
        const present = await findStoredKey(session, name, undefined);
        if (present.record !== undefined || present.lastChange !== undefined)
          throw new AppError('KEY_EXISTS');
        if (!isWrappedWith(key.versions, await currentKek(session))) return 'keks_changed';
        await insertKey(session, key);
        session.append(key.audit);
        return undefined;
      }),
    findKey: async (name, choice) => {
      const stored =
        choice === 'all'
          ? await pools.snapshot((session) => findWithAllVersions(session, name))
          : await storedKeys.ask(keyQuestion(name, choice === 'current' ? undefined : choice));
      return stored.record === undefined && stored.lastChange === undefined ? undefined : stored;
    },
    lastChange: (name) => places.ask(name),
    updateKey: (change) =>
      writer.write(async (session) => updateInTurn(session, change, await currentKek(session))),
    updateKeys: (changes) =>
      writer.write(async (session) => {
        const kekId = await currentKek(session);
        const receipts: (AuditReceipt | undefined)[] = [];
        for (const change of changes) receipts.push(await updateInTurn(session, change, kekId));
        return receipts;
      }),
    replaceKey: (change, expected) =>
      writer.write(async (session) => {
        if ((await lastChange(session, change.record.name))?.seq !== expected) return undefined;
        if (!isWrappedWith(change.versions, await currentKek(session))) return undefined;
        await removeKey(session, change.record);
        await insertKey(session, change);
        return session.append(change.audit);
      }),
    listKeys: (globs, page) =>
      pools.snapshot(async (session) => namedKeys(session, await listKeys(session, globs, page))),
    listDueKeys: (until, page) =>
      pools.snapshot(async (session) => namedKeys(session, await listDueKeys(session, until, page))),
    scrub: () => scrub(pools),

    insertToken: (token, record) =>
      writer.write(async (session) => {
        const { issuer } = token;
        if (issuer !== undefined && !(await liveAmong(session, [issuer])).has(issuer)) return false;
        await insertToken(session, token);
        session.append(record);
        return true;
      }),
    renewToken: (parentJti, token, record) =>
      writer.write(async (session) => {
        if (!(await liveAmong(session, [parentJti])).has(parentJti)) return false;
        await insertToken(session, token);
        session.append(record);
        return true;
      }),
    findToken: (jti) => pools.snapshot((session) => findToken(session, jti)),
    findActiveTokenFamily: (jti) => families.ask(jti),
    listTokens: (page) => pools.snapshot((session) => listTokens(session, page)),
    revokeFamilies: (records) =>
      writer.write(async (session) => {
        let count = 0;
        for (const [family, record] of byFamily(records)) {
          if (await isRevoked(session, family, record, writer.chainKey)) continue;
          await markRevoked(session, family, record.time);
          session.append(record);
          count++;
        }
        return count;
      }),
    listIssues: (by, places, limit) => pools.read((session) => listIssues(session, by, places, limit)),
    listRevoked: (time, page) => pools.read((session) => listRevoked(session, time, page)),
    pruneTokens: (time, limit, record) =>
      writer.write(async (session) => {
        const count = await pruneTokens(session, time, limit);
        if (count > 0) session.append({ ...record, detail: { ...record.detail, count } });
        return count;
      }),

    appendAudit: (records, conditions = []) =>
      writer.write((session) => appendAll(session, { tasks, liveAmong }, records, conditions)),
    appendAuditOnce: (record) => writer.write((session) => appendOnce(session, record)),
    listAudit: (query) => pools.read((session) => listRecords(session, query)),
    listExports: (key, from, page) => pools.read((session) => exportsOf(session, key, from, page)),
    listStorageExports: (storage, from, page) =>
      pools.read((session) => exportsToStorage(session, storage, from, page)),
    storageRecord: (id) => storages.ask(id),
    listDeletions: (holder, page) =>
      pools.snapshot(async (session) => namedKeys(session, await listDeletions(session, holder, page))),
    countDeletions: () => pools.read(countDeletions),
    listStaleCopies: (kekId, page) => pools.snapshot((session) => listStaleCopies(session, kekId, page)),
    auditHead: () => pools.read(head),

    counts: () =>
      pools.read(async (session) => {
        const row = await session.row(
          'SELECT (SELECT count(*) FROM keys) AS keys, (SELECT count(*) FROM tokens) AS tokens',
        );
        return { keys: row?.['keys'] as number, tokens: row?.['tokens'] as number };
      }),
    probe: () =>
      writer.writeUnaudited(async (session) => {
        await session.run(TOUCH);
      }),
  };
}

async function update(
  session: WriteSession,
  change: KeyUpdate,
  kekId: string | undefined,
): Promise<AuditReceipt | undefined> {
  const { storages = [], quietSince, record } = change;
  if (!isWrappedWith(change.versions, kekId)) return undefined;
  const places = await storagePlaces(
    session,
    storages.map(({ id }) => id),
  );
  for (const storage of storages) if (!(await isStorageAsRead(session, storage, places))) return undefined;
  if (quietSince !== undefined && (await isReleasedSince(session, record.name, quietSince))) return undefined;
  return (await updateKey(session, change)) ? session.append(change.audit) : undefined;
}

async function isStorageAsRead(
  session: Session,
  { id, seq, quietSince }: StorageStamp,
  places: ReadonlyMap<string, number>,
): Promise<boolean> {
  if (places.get(id) !== seq) return false;
  return quietSince === undefined || !(await isReleasedToSince(session, id, quietSince));
}

async function appendOnce(session: WriteSession, record: AuditDraft): Promise<boolean> {
  if (await hasRecord(session, record)) return false;
  session.append(record);
  return true;
}

/** Inside a snapshot. */
async function findWithAllVersions(session: Session, name: string) {
  const record = await findKey(session, name);
  const versions = record === undefined ? undefined : await allVersions(session, [record.id]);
  return {
    record,
    versions: versions?.get(record?.id ?? '') ?? [],
    lastChange: await lastChange(session, name),
  };
}

/** Inside a snapshot. */
async function namedKeys(
  session: Session,
  { items, ...page }: FilteredPage<KeyRecord, string>,
): Promise<FilteredPage<NamedKey, string>> {
  const versions = await currentVersions(
    session,
    items.map(({ id }) => id),
  );
  const changes = await lastChanges(
    session,
    items.map(({ name }) => name),
  );
  return { items: items.map((record) => storedKey(record, versions, changes)), ...page };
}

interface AppendDeps {
  readonly tasks: Tasks;
  readonly liveAmong: (session: Session, jtis: readonly string[]) => Promise<ReadonlyMap<string, string>>;
}

/**
 * Appends the records whose conditions hold. Tokens and keys do not change by what is appended, so they are looked at all at once, and so are
 * storages, with what is appended noted; what is asked of the KEKs may change, so that is asked in turn.
 */
async function appendAll(
  session: WriteSession,
  { tasks, liveAmong }: AppendDeps,
  records: readonly AuditDraft[],
  conditions: readonly (AuditCondition | undefined)[],
): Promise<(AuditReceipt | RejectReason)[]> {
  const jtis = conditions.flatMap((condition) => condition?.jti ?? []);
  const live = await liveAmong(session, [...new Set(jtis)]);
  const keyed = conditions.flatMap(({ key } = {}, at) => (key === undefined ? [] : [{ at, key }]));
  const places = await placesAsRead(
    session,
    keyed.map(({ key }) => key),
  );
  const changed = new Set(keyed.flatMap(({ at }, place) => (places.has(place) ? [] : [at])));
  const storages = await storagePlaces(session, [
    ...new Set(conditions.flatMap(({ storage } = {}) => storage?.id ?? [])),
  ]);
  const results: (AuditReceipt | RejectReason)[] = [];
  for (const [at, record] of records.entries()) {
    const condition = conditions[at] ?? {};
    const { jti, storage } = condition;
    const reason =
      jti !== undefined && !live.has(jti)
        ? 'token_revoked'
        : changed.has(at)
          ? 'key_changed'
          : storage !== undefined && !(await isStorageAsRead(session, storage, storages))
            ? 'storage_changed'
            : await kekReason(session, tasks, condition);
    const result = reason ?? session.append(record);
    if (typeof result !== 'string' && STORAGE_ACTIONS.includes(record.action))
      storages.set(String(record.detail?.['storage']), result.seq);
    results.push(result);
  }
  return results;
}

async function kekReason(
  session: WriteSession,
  tasks: Tasks,
  { kekRecord, requireUnusedKek, kekHeldByAllNodes }: AuditCondition,
): Promise<RejectReason | undefined> {
  if (kekRecord !== undefined && kekRecord !== (await latestKekRecord(session))) return 'keks_changed';
  if (requireUnusedKek !== undefined && (await isKekInUse(session, requireUnusedKek))) return 'kek_in_use';
  if (kekHeldByAllNodes !== undefined && !(await tasks.isHeldByAll(session, kekHeldByAllNodes)))
    return 'kek_not_held';
  return undefined;
}
