import assert from 'node:assert/strict';
import type { KeyObject } from 'node:crypto';
import { GENESIS } from '../../records/chain.ts';
import type { LoadEntry, StoreEntry } from '../port.ts';
import { AuditTable } from './audit-table.ts';
import type { Connection } from './connection.ts';
import { insertInstallation, readInstallation } from './installation-table.ts';
import { allKeys, putKey, putVersion, readVersions } from './key-table.ts';
import { allTokens, insertToken } from './token-table.ts';

/** Reading and filling a whole store, step by step, so that no call takes long. Each transfer has a connection of its own. */
export interface TransferOperations {
  /** @returns the number that the other calls take. */
  beginReadAll(): number;
  /** The next batch; an empty one at the end. */
  readMore(transfer: number): readonly StoreEntry[];
  /** @returns undefined when there is something in the store. */
  beginLoad(chainKey: KeyObject): number | undefined;
  loadMore(transfer: number, entries: readonly LoadEntry[]): void;
  /** Makes what was loaded durable, all of it. */
  commitLoad(transfer: number): void;
  /** Ends a transfer of either kind; takes back a load that was not committed. */
  endTransfer(transfer: number): void;
}

const BATCH = 500;

/** @param connect opens a further connection to the database. */
export function transferOperations(connect: () => Connection): TransferOperations {
  const readings = new Map<number, { connection: Connection; entries: Iterator<StoreEntry> }>();
  const loads = new Map<number, { connection: Connection; audit: AuditTable }>();
  let last = 0;
  return {
    beginReadAll: () => {
      const connection = connect();
      connection.beginRead();
      readings.set(++last, { connection, entries: allEntries(connection) });
      return last;
    },
    readMore: (transfer) => {
      const reading = readings.get(transfer);
      assert(reading !== undefined, 'there is no such transfer');
      const batch: StoreEntry[] = [];
      while (batch.length < BATCH) {
        const next = reading.entries.next();
        if (next.done === true) break;
        batch.push(next.value);
      }
      return batch;
    },
    beginLoad: (chainKey) => {
      const connection = connect();
      let begun: number | undefined;
      try {
        const audit = new AuditTable(connection);
        connection.beginWrite();
        if (!isEmpty(connection, audit)) return undefined;
        audit.unlock(chainKey);
        begun = ++last;
        loads.set(begun, { connection, audit });
        return begun;
      } finally {
        if (begun === undefined) connection.close();
      }
    },
    loadMore: (transfer, entries) => {
      const load = loads.get(transfer);
      assert(load !== undefined, 'there is no such transfer');
      for (const entry of entries) put(load.connection, load.audit, entry);
    },
    commitLoad: (transfer) => {
      const load = loads.get(transfer);
      assert(load !== undefined, 'there is no such transfer');
      assert(readInstallation(load.connection) !== undefined, 'what is loaded has an installation');
      load.connection.commit();
    },
    endTransfer: (transfer) => {
      (readings.get(transfer) ?? loads.get(transfer))?.connection.close();
      readings.delete(transfer);
      loads.delete(transfer);
    },
  };
}

function* allEntries(connection: Connection): Generator<StoreEntry, void, undefined> {
  const installation = readInstallation(connection);
  if (installation !== undefined) yield { kind: 'installation', installation };
  for (const record of new AuditTable(connection).all()) yield { kind: 'record', record };
  for (const key of allKeys(connection)) {
    yield { kind: 'key', key };
    for (const version of readVersions(connection, key, 'all')) yield { kind: 'version', version };
  }
  for (const token of allTokens(connection)) yield { kind: 'token', token };
}

function isEmpty(connection: Connection, audit: AuditTable): boolean {
  return (
    readInstallation(connection) === undefined &&
    audit.head().seq === GENESIS.seq &&
    connection.row('SELECT 1 FROM keys LIMIT 1') === undefined &&
    connection.row('SELECT 1 FROM tokens LIMIT 1') === undefined
  );
}

function put(connection: Connection, audit: AuditTable, entry: LoadEntry): void {
  switch (entry.kind) {
    case 'installation':
      insertInstallation(connection, entry.installation);
      break;
    case 'record':
      audit.insert(entry.record);
      break;
    case 'new-record':
      audit.append(entry.draft);
      break;
    case 'key':
      putKey(connection, entry.key);
      break;
    case 'version':
      putVersion(connection, entry.version);
      break;
    case 'token':
      insertToken(connection, entry.token);
  }
}
