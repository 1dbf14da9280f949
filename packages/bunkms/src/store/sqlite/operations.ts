import type { StoreOperations } from '../port.ts';
import { AuditTable } from './audit-table.ts';
import type { Connection } from './connection.ts';
import { hasKek, insertInstallation, insertKek, readInstallation } from './installation-table.ts';
import { addKeyVersion, describeKey, findKey, insertKey, listKeys } from './key-table.ts';
import { findToken, insertToken, listRevoked, listTokens, pruneTokens, revokeFamily } from './token-table.ts';

/** The store's operations over one connection, synchronous: they run in the worker. Each write is one transaction. */
export function sqliteOperations(connection: Connection): StoreOperations {
  const audit = new AuditTable(connection);
  const isLive = (jti: string): boolean => {
    const token = findToken(connection, jti);
    return token !== undefined && token.revoked_at === undefined;
  };
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

    insertKey: (key, record) =>
      connection.write(() => {
        insertKey(connection, key);
        audit.append(record);
      }),
    findKey: (name, version) => findKey(connection, name, version),
    describeKey: (name) => describeKey(connection, name),
    addKeyVersion: (version, record) =>
      connection.write(() => {
        if (!addKeyVersion(connection, version)) return false;
        audit.append(record);
        return true;
      }),
    listKeys: (globs, page) => listKeys(connection, globs, page),

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

    appendAudit: (records, tokens = []) =>
      connection.write(() =>
        records.map((record, at) => {
          const jti = tokens[at];
          return jti === undefined || isLive(jti) ? audit.append(record) : undefined;
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
