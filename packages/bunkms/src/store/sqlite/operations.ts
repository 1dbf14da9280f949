import assert from 'node:assert/strict';
import type { KeyObject } from 'node:crypto';
import type { ChainHead } from '../../records/chain.ts';
import { REVOCATION } from '../../records/token-record.ts';
import type { StoreOperations } from '../port.ts';
import { laterHead, requireStored } from '../sql/audit-table.ts';
import { bindBodies } from '../sql/bodies.ts';
import { operationsOf } from '../sql/operations.ts';
import { createRepository } from '../sql/repository.ts';
import { runSync, type Sql } from '../sql/statement.ts';
import { ActiveFamilies } from './active-families.ts';
import { SqliteChain } from './chain.ts';
import type { Connection } from './connection.ts';
import { SQLITE } from './dialect.ts';

/**
 * The synchronous operations of the store on one connection, which run in the worker. Each write is one
 * transaction.
 */
export function sqliteOperations(connection: Connection): StoreOperations {
  let unlockedKey: KeyObject | undefined;
  let known: ChainHead | undefined;
  const chainKey = () => {
    assert(unlockedKey !== undefined, 'the audit chain is locked');
    return unlockedKey;
  };
  const repository = createRepository(SQLITE, chainKey);
  const families = new ActiveFamilies(connection, repository.activeFamilies);
  const cached = { ...repository, activeFamilies: (jtis: readonly string[]) => families.of(jtis) };
  const { reads, snapshots, writes, unauditedWrites } = operationsOf(cached);

  const run = <T>(work: Sql<T>): T => runSync(work, (statement) => connection.execute(statement));
  const write = <T>(change: (chain: SqliteChain) => Sql<T>): T => {
    const onInsert = (action: string) => {
      // An issue needs no `forget`, because inactive tokens are not cached.
      if (action === REVOCATION) families.forget();
    };
    const chain = new SqliteChain(connection, unlockedKey, onInsert, known);
    try {
      const result = connection.write(() => run(change(chain)));
      // In a statement of its own: a commit that reports success may have lost them.
      if (chain.first !== undefined && chain.head !== undefined)
        run(requireStored(chain.chainKey, chain.first, chain.head));
      // Nothing may require a record that was lost before it was answered.
      known = chain.head ?? known;
      return result;
    } catch (error) {
      // Cached results may depend on the write that was rolled back.
      families.forget();
      throw error;
    }
  };
  return {
    ...(bindBodies(reads, (body, args) => run(body(...args))) as Pick<StoreOperations, keyof typeof reads>),
    ...(bindBodies(snapshots, (body, args) => connection.read(() => run(body(...args)))) as Pick<
      StoreOperations,
      keyof typeof snapshots
    >),
    ...(bindBodies({ ...writes, ...unauditedWrites }, (body, args) =>
      write((chain) => body(chain, ...args)),
    ) as Pick<StoreOperations, keyof typeof writes | keyof typeof unauditedWrites>),
    initialise: (installation, key, record) => {
      const isMade = write((chain) => unauditedWrites.initialise(chain, installation, key, record));
      if (isMade) unlockedKey = key;
      return isMade;
    },
    unlock: (key) => {
      families.forget();
      unlockedKey = key;
    },
    pruneTokens: (...args) => {
      families.forget();
      return write((chain) => writes.pruneTokens(chain, ...args));
    },
    scrub: () => connection.truncateLog(),
    foreignObjects: () => connection.foreignObjects(),
    expectHead: (head) => {
      known = laterHead(known, head);
    },
  };
}
