import assert from 'node:assert/strict';
import type { KeyObject } from 'node:crypto';
import { EntryReader, isEmpty, putEntries } from '../sql/entries.ts';
import { readInstallation } from '../sql/installation-table.ts';
import { createRepository } from '../sql/repository.ts';
import { runSync, type Sql } from '../sql/statement.ts';
import type { LoadEntry, StoreEntry } from '../transfer.ts';
import { SqliteChain } from './chain.ts';
import type { Connection } from './connection.ts';
import { SQLITE } from './dialect.ts';

/**
 * Reads or fills a whole store in steps, so that no call takes long. Each transfer has a separate connection.
 */
export interface TransferOperations {
  /** @returns the number of the transfer for the other calls. */
  beginReadAll(): number;
  /** The next batch; an empty one at the end. */
  readMore(transfer: number): readonly StoreEntry[];
  /** @returns undefined when the store is not empty. */
  beginLoad(chainKey: KeyObject): number | undefined;
  loadMore(transfer: number, entries: readonly LoadEntry[]): void;
  /** Makes the complete load durable. */
  commitLoad(transfer: number): void;
  /** Ends a transfer of either kind; rolls back a load that was not committed. */
  endTransfer(transfer: number): void;
}

/** @param connect opens a further connection to the database. */
export function transferOperations(connect: () => Connection): TransferOperations {
  const repository = createRepository(SQLITE, () => assert.fail('a transfer reads no active tokens'));
  const readings = new Map<number, { connection: Connection; reader: EntryReader }>();
  const loads = new Map<number, { connection: Connection; chain: SqliteChain }>();
  let last = 0;
  return {
    beginReadAll: () => {
      const connection = connect();
      connection.beginRead();
      readings.set(++last, { connection, reader: new EntryReader(repository) });
      return last;
    },
    readMore: (transfer) => {
      const reading = readings.get(transfer);
      assert(reading !== undefined, 'there is no such transfer');
      return runOn(reading.connection, reading.reader.next());
    },
    beginLoad: (chainKey) => {
      const connection = connect();
      let begun: number | undefined;
      try {
        connection.beginWrite();
        if (!runOn(connection, isEmpty(repository))) return undefined;
        begun = ++last;
        loads.set(begun, { connection, chain: new SqliteChain(connection, chainKey, () => undefined) });
        return begun;
      } finally {
        if (begun === undefined) connection.close();
      }
    },
    loadMore: (transfer, entries) => {
      const load = loads.get(transfer);
      assert(load !== undefined, 'there is no such transfer');
      runOn(load.connection, putEntries(repository, load.chain, entries));
    },
    commitLoad: (transfer) => {
      const load = loads.get(transfer);
      assert(load !== undefined, 'there is no such transfer');
      assert(
        runOn(load.connection, readInstallation()) !== undefined,
        'loaded entries include an installation',
      );
      load.connection.commit();
    },
    endTransfer: (transfer) => {
      (readings.get(transfer) ?? loads.get(transfer))?.connection.close();
      readings.delete(transfer);
      loads.delete(transfer);
    },
  };
}

function runOn<T>(connection: Connection, work: Sql<T>): T {
  return runSync(work, (statement) => connection.execute(statement));
}
