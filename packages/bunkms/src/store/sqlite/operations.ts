import { AppError } from '@bundoc/shared/errors';
import type { KeyRecord, NamedKey, Page, StoredKey, StoreOperations, VersionChoice } from '../port.ts';
import { adoptKeys } from './adopt-keys.ts';
import { AuditTable } from './audit-table.ts';
import type { Connection } from './connection.ts';
import { hasKek, insertInstallation, insertKek, readInstallation } from './installation-table.ts';
import {
  findIdempotent,
  findKey,
  hasRevision,
  insertKey,
  listDueKeys,
  listKeys,
  readVersions,
  removeKey,
  updateKey,
} from './key-table.ts';
import { findToken, insertToken, listRevoked, listTokens, pruneTokens, revokeFamily } from './token-table.ts';

/** The store's operations over one connection, synchronous: they run in the worker. Each write is one transaction. */
export function sqliteOperations(connection: Connection): StoreOperations {
  const audit = new AuditTable(connection);
  const isLive = (jti: string): boolean => {
    const token = findToken(connection, jti);
    return token !== undefined && token.revoked_at === undefined;
  };
  const storedKey = (name: string, record: KeyRecord | undefined, choice: VersionChoice): StoredKey => ({
    record,
    versions: record === undefined ? [] : readVersions(connection, record, choice),
    lastChange: audit.lastChange(name),
  });
  const namedKeys = ({ items, more }: Page<KeyRecord>): Page<NamedKey> => ({
    items: items.map((record) => ({ name: record.name, ...storedKey(record.name, record, 'current') })),
    more,
  });
  return {
    readInstallation: () => readInstallation(connection),
    initialise: (installation, chainKey, record) =>
      connection.write(() => {
        if (readInstallation(connection) !== undefined) return false;
        audit.unlock(chainKey);
        insertInstallation(connection, installation);
        audit.append(record);
        return true;
      }),
    unlock: (chainKey) => audit.unlock(chainKey),
    addKek: (kek, record) =>
      connection.write(() => {
        if (hasKek(connection, kek.id)) return false;
        insertKek(connection, kek, record.time);
        audit.append(record);
        return true;
      }),

    adoptKeys: (mark) => {
      if (audit.has(mark)) return undefined;
      // Earlier releases did not overwrite what they deleted.
      connection.vacuum();
      return connection.write(() => (audit.has(mark) ? undefined : adoptKeys(connection, audit, mark)));
    },
    insertKey: (key, idempotentSince) =>
      connection.write(() => {
        const { name, idempotency } = key.record;
        const before =
          idempotency === null || idempotentSince === undefined
            ? undefined
            : findIdempotent(connection, idempotency.key, idempotentSince);
        if (before !== undefined) return storedKey(before.name, before, 1);
        if (audit.lastChange(name) !== undefined) throw new AppError('KEY_EXISTS');
        insertKey(connection, key);
        audit.append(key.audit);
        return undefined;
      }),
    findKey: (name, versions) =>
      connection.read(() => {
        const stored = storedKey(name, findKey(connection, name), versions);
        return stored.record === undefined && stored.lastChange === undefined ? undefined : stored;
      }),
    updateKey: (change) =>
      connection.write(() => (updateKey(connection, change) ? audit.append(change.audit) : undefined)),
    replaceKey: (change, lastChange) =>
      connection.write(() => {
        if (audit.lastChange(change.record.name)?.seq !== lastChange) return undefined;
        removeKey(connection, change.record);
        insertKey(connection, change);
        return audit.append(change.audit);
      }),
    listKeys: (globs, page) => connection.read(() => namedKeys(listKeys(connection, globs, page))),
    listDueKeys: (until, page) => connection.read(() => namedKeys(listDueKeys(connection, until, page))),
    scrub: () => connection.truncateLog(),

    insertToken: (token, record) =>
      connection.write(() => {
        insertToken(connection, token);
        audit.append(record);
      }),
    renewToken: (parentJti, token, record) =>
      connection.write(() => {
        const parent = findToken(connection, parentJti);
        if (parent === undefined || parent.revoked_at !== undefined) return false;
        insertToken(connection, token);
        audit.append(record);
        return true;
      }),
    findToken: (jti) => findToken(connection, jti),
    listTokens: (page) => listTokens(connection, page),
    revokeFamily: (family, revokedAt, record) =>
      connection.write(() => {
        revokeFamily(connection, family, revokedAt);
        audit.append(record);
      }),

    listRevoked: (time, page) => listRevoked(connection, time, page),
    pruneTokens: (time, limit, record) =>
      connection.write(() => {
        const count = pruneTokens(connection, time, limit);
        if (count > 0) audit.append({ ...record, detail: { ...record.detail, count } });
        return count;
      }),

    appendAudit: (records, conditions = []) =>
      connection.write(() =>
        records.map((record, at) => {
          const { jti, key } = conditions[at] ?? {};
          if (jti !== undefined && !isLive(jti)) return 'token_revoked';
          if (key !== undefined && !hasRevision(connection, key.id, key.revision)) return 'key_changed';
          return audit.append(record);
        }),
      ),
    appendAuditOnce: (record) =>
      connection.write(() => {
        if (audit.has(record)) return false;
        audit.append(record);
        return true;
      }),
    listAudit: (query) => audit.list(query),
    listExports: (key, from, page) => audit.exportsOf(key, from, page),
    auditHead: () => audit.head(),

    counts: () => {
      const row = connection.row(
        'SELECT (SELECT count(*) FROM keys) AS keys, (SELECT count(*) FROM tokens) AS tokens',
      );
      return { keys: row?.['keys'] as number, tokens: row?.['tokens'] as number };
    },
    probe: () =>
      connection.write(() => {
        connection.run('UPDATE probe SET count = count + 1');
      }),
  };
}
