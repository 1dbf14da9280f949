import { AppError } from '@bundoc/shared/contract/app-error';
import type { AuditReceipt } from '@bundoc/shared/contract/keys';
import type { AuditDraft } from '../../audit/chain.ts';
import { isSaidBy } from '../../audit/token-record.ts';
import { kekIdOf } from '../../vault/vault.ts';
import {
  type FilteredPage,
  type KeyChange,
  type KeyRecord,
  type KeyUpdate,
  type NamedKey,
  REVOCATION,
  type StoredKey,
  type StoreOperations,
  TOKEN_ACTIONS,
  type VersionChoice,
} from '../port.ts';
import { byFamily } from '../row-records.ts';
import { AuditTable } from './audit-table.ts';
import { claimTask, releaseTask } from './claim-table.ts';
import type { Connection } from './connection.ts';
import {
  hasKek,
  insertInstallation,
  insertKek,
  readInstallation,
  replaceSecrets,
} from './installation-table.ts';
import {
  countWrappedOtherwise,
  isKekInUse,
  isWrappedWith,
  kekUses,
  listUnfetched,
  listWrapped,
} from './kek-uses.ts';
import {
  countDeletions,
  findIdempotent,
  findKey,
  findKeyById,
  insertKey,
  isAsRead,
  listDeletions,
  listDueKeys,
  listKeys,
  readVersions,
  removeKey,
  updateKey,
} from './key-table.ts';
import { LiveFamilies } from './live-families.ts';
import { announce, isHeldByAll, withdraw } from './presence-table.ts';
import {
  findToken,
  insertToken,
  listIssues,
  listRevoked,
  listTokens,
  markRevoked,
  pruneTokens,
  revocations,
} from './token-table.ts';

/** Versions that a page of keys with all of theirs brings; a further key may add its own. */
const VERSIONS_OF_PAGE_MAX = 1_000;

/** Records that say which tokens are live. */
const TOKEN_RECORDS: ReadonlySet<string> = new Set([...TOKEN_ACTIONS, REVOCATION]);

/** The store's operations over one connection, synchronous: they run in the worker. Each write is one transaction. */
export function sqliteOperations(connection: Connection): StoreOperations {
  const audit = new AuditTable(connection, (action) => {
    if (TOKEN_RECORDS.has(action)) families.forget();
  });
  const families = new LiveFamilies(connection, audit);
  const write = <T>(change: () => T): T => {
    try {
      return connection.write(change);
    } catch (error) {
      // What was found meanwhile may have been taken back.
      families.forget();
      throw error;
    }
  };
  const storedKey = (name: string, record: KeyRecord | undefined, choice: VersionChoice): StoredKey => ({
    record,
    versions: record === undefined ? [] : readVersions(connection, record, choice),
    lastChange: audit.lastChange(name),
  });
  /** The key's row was removed and its version left: nothing is known of that version. */
  const wrappedKey = (id: string): NamedKey => {
    const record = findKeyById(connection, id);
    return { name: record?.name ?? id, ...storedKey(record?.name ?? id, record, 'all') };
  };
  const liveFamily = (jti: string): string | undefined => families.familyOf(jti);
  const requireLive = ({ jti }: KeyChange): void => {
    if (jti !== undefined && liveFamily(jti) === undefined) throw new AppError('unauthenticated');
  };
  const isSaid = (family: string, draft: AuditDraft): boolean => {
    for (const record of revocations(connection, family))
      if (isSaidBy(audit.chainKey, draft, record)) return true;
    return false;
  };
  const update = (change: KeyUpdate, currentKek: string | undefined): AuditReceipt | undefined => {
    const { storages = [], quietSince } = change;
    requireLive(change);
    if (!isWrappedWith(change.versions, currentKek)) return undefined;
    if (!storages.every((storage) => audit.isStorageAsRead(storage))) return undefined;
    if (quietSince !== undefined && audit.isReleasedSince(change.record.name, quietSince)) return undefined;
    return updateKey(connection, change) ? audit.append(change.audit) : undefined;
  };
  const namedKeys = ({
    items,
    ...page
  }: FilteredPage<KeyRecord, string>): FilteredPage<NamedKey, string> => ({
    items: items.map((record) => ({ name: record.name, ...storedKey(record.name, record, 'current') })),
    ...page,
  });
  return {
    readInstallation: () => readInstallation(connection),
    initialise: (installation, chainKey, record) =>
      write(() => {
        if (readInstallation(connection) !== undefined) return false;
        audit.unlock(chainKey);
        insertInstallation(connection, installation);
        audit.append(record);
        return true;
      }),
    unlock: (chainKey) => {
      families.forget();
      audit.unlock(chainKey);
    },
    addKek: (kek, record) =>
      write(() => {
        if (hasKek(connection, kek.id)) return false;
        insertKek(connection, kek, record.time);
        audit.append(record);
        return true;
      }),
    kekRecords: () => audit.kekRecords(),
    kekUses: () => connection.read(() => kekUses(connection)),
    countWrappedOtherwise: (kekId) => countWrappedOtherwise(connection, kekId),
    listWrapped: (kekId, page) =>
      connection.read(() => {
        const ids = listWrapped(connection, kekId, page);
        const items: NamedKey[] = [];
        let versions = 0;
        for (const id of ids.items) {
          const key = wrappedKey(id);
          items.push(key);
          versions += key.versions.length;
          if (versions >= VERSIONS_OF_PAGE_MAX) break;
        }
        return { items, more: ids.more || items.length < ids.items.length };
      }),
    replaceSecrets: (secrets, previous, record) =>
      write(() => {
        const kekId = audit.currentKek();
        const wrapped = [secrets.chainKeyWrapped, secrets.signingSeedWrapped];
        if (wrapped.some((one) => kekIdOf(one) !== kekId)) return false;
        if (!replaceSecrets(connection, secrets, previous)) return false;
        audit.append(record);
        return true;
      }),
    claim: (claim) => write(() => claimTask(connection, claim)),
    announce: (presence) => write(() => announce(connection, presence)),
    withdraw: (service) => write(() => withdraw(connection, service)),
    release: (claim) => write(() => releaseTask(connection, claim)),

    insertKey: (key, idempotentSince) =>
      write(() => {
        const { name, idempotency } = key.record;
        requireLive(key);
        const before =
          idempotency === null || idempotentSince === undefined
            ? undefined
            : findIdempotent(connection, idempotency.key, idempotentSince);
        if (before !== undefined) return storedKey(before.name, before, 1);
        if (audit.lastChange(name) !== undefined) throw new AppError('KEY_EXISTS');
        if (!isWrappedWith(key.versions, audit.currentKek())) return 'keks_changed';
        insertKey(connection, key);
        audit.append(key.audit);
        return undefined;
      }),
    findKey: (name, versions) =>
      connection.read(() => {
        const stored = storedKey(name, findKey(connection, name), versions);
        return stored.record === undefined && stored.lastChange === undefined ? undefined : stored;
      }),
    lastChange: (name) => audit.placeOfLastChange(name),
    updateKey: (change) => write(() => update(change, audit.currentKek())),
    updateKeys: (changes) =>
      write(() => {
        const kekId = audit.currentKek();
        return changes.map((change) => update(change, kekId));
      }),
    replaceKey: (change, lastChange) =>
      write(() => {
        if (audit.lastChange(change.record.name)?.seq !== lastChange) return undefined;
        if (!isWrappedWith(change.versions, audit.currentKek())) return undefined;
        removeKey(connection, change.record);
        insertKey(connection, change);
        return audit.append(change.audit);
      }),
    listKeys: (globs, page) => connection.read(() => namedKeys(listKeys(connection, globs, page))),
    listDueKeys: (until, page) => connection.read(() => namedKeys(listDueKeys(connection, until, page))),
    scrub: () => connection.truncateLog(),

    insertToken: (token, record) =>
      write(() => {
        if (token.issuer !== undefined && liveFamily(token.issuer) === undefined) return false;
        insertToken(connection, token);
        audit.append(record);
        return true;
      }),
    renewToken: (parentJti, token, record) =>
      write(() => {
        if (liveFamily(parentJti) === undefined) return false;
        insertToken(connection, token);
        audit.append(record);
        return true;
      }),
    findToken: (jti) => connection.read(() => findToken(connection, jti)),
    liveFamily,
    listTokens: (page) => connection.read(() => listTokens(connection, page)),
    revokeFamilies: (records) =>
      write(() => {
        let count = 0;
        for (const [family, record] of byFamily(records)) {
          if (isSaid(family, record)) continue;
          markRevoked(connection, family, record.time);
          audit.append(record);
          count++;
        }
        return count;
      }),
    listIssues: (by, places, limit) => listIssues(connection, by, places, limit),
    listRevoked: (time, page) => listRevoked(connection, time, page),
    pruneTokens: (time, limit, record) =>
      write(() => {
        const count = pruneTokens(connection, time, limit);
        families.forget();
        if (count > 0) audit.append({ ...record, detail: { ...record.detail, count } });
        return count;
      }),

    appendAudit: (records, conditions = []) =>
      write(() => {
        let head: AuditReceipt | undefined;
        return records.map((record, at) => {
          const { jti, key, storage, kekRecord, unusedKek, kekOfAll } = conditions[at] ?? {};
          if (jti !== undefined && liveFamily(jti) === undefined) return 'token_revoked';
          if (key !== undefined && !isAsRead(connection, key)) return 'key_changed';
          if (storage !== undefined && !audit.isStorageAsRead(storage)) return 'storage_changed';
          if (kekRecord !== undefined && kekRecord !== audit.latestKekRecord()) return 'keks_changed';
          if (unusedKek !== undefined && isKekInUse(connection, unusedKek)) return 'kek_in_use';
          if (kekOfAll !== undefined && !isHeldByAll(connection, kekOfAll)) return 'kek_not_held';
          head = audit.append(record, head);
          return head;
        });
      }),
    appendAuditOnce: (record) =>
      write(() => {
        if (audit.has(record)) return false;
        audit.append(record);
        return true;
      }),
    listAudit: (query) => audit.list(query),
    listExports: (key, from, page) => audit.exportsOf(key, from, page),
    listStorageExports: (storage, from, page) => audit.exportsToStorage(storage, from, page),
    storageRecord: (id) => audit.storageRecord(id),
    listDeletions: (holder, page) =>
      connection.read(() => namedKeys(listDeletions(connection, holder, page))),
    countDeletions: () => countDeletions(connection),
    listUnfetched: (kekId, page) => connection.read(() => listUnfetched(connection, audit, kekId, page)),
    auditHead: () => audit.head(),

    counts: () => {
      const row = connection.row(
        'SELECT (SELECT count(*) FROM keys) AS keys, (SELECT count(*) FROM tokens) AS tokens',
      );
      return { keys: row?.['keys'] as number, tokens: row?.['tokens'] as number };
    },
    probe: () =>
      write(() => {
        connection.run('UPDATE probe SET count = count + 1');
      }),
  };
}
