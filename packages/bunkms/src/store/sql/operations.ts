import { Untrusted } from '../trust.ts';
import { auditReads, auditWrites } from './audit-operations.ts';
import type { ReadBodies, WriteBodies } from './bodies.ts';
import { isEmpty } from './entries.ts';
import { insertInstallation, readInstallation } from './installation-table.ts';
import { kekReads, kekSnapshots, kekWrites } from './kek-operations.ts';
import { keyReads, keySnapshots, keyWrites } from './key-operations.ts';
import type { Repository } from './repository.ts';
import { row, run } from './statement.ts';
import { tokenReads, tokenSnapshots, tokenWrites } from './token-operations.ts';

/** A write without visible effect. */
export const COUNT_PROBE = 'UPDATE probe SET count = count + 1';

/**
 * The operations of the port as work on the database, grouped by their isolation. The engines implement the
 * others.
 */
export function operationsOf(repository: Repository) {
  return {
    /** Reads that need no snapshot. */
    reads: {
      ...keyReads(repository),
      ...tokenReads(repository),
      ...auditReads(repository),
      ...kekReads(repository),
      *counts() {
        const found = yield* row(
          'SELECT (SELECT count(*) FROM keys) AS keys, (SELECT count(*) FROM tokens) AS tokens',
        );
        return { keys: found?.['keys'] as number, tokens: found?.['tokens'] as number };
      },
    } satisfies Partial<ReadBodies<'counts'>>,
    /** Reads whose statements need one snapshot. */
    snapshots: { ...keySnapshots(repository), ...tokenSnapshots(repository), ...kekSnapshots(repository) },
    /** Writes with an audit record. */
    writes: {
      ...keyWrites(repository),
      ...tokenWrites(repository),
      ...auditWrites(repository),
      ...kekWrites(repository),
    },
    unauditedWrites: unauditedWrites(repository),
  };
}

/** Writes without a record, or that begin the chain: they need no chain key. */
function unauditedWrites(repository: Repository) {
  const { cluster } = repository;
  return {
    *initialise(chain, installation, chainKey, record) {
      if ((yield* readInstallation()) !== undefined) return false;
      if (!(yield* isEmpty(repository)))
        throw new Untrusted('the database has keys, tokens or audit records, but no installation');
      chain.unlock(chainKey);
      yield* insertInstallation(installation);
      chain.append(record);
      return true;
    },
    claim: (_chain, claim) => cluster.claim(claim),
    release: (_chain, claim) => cluster.release(claim),
    announce: (_chain, presence) => cluster.announce(presence),
    withdraw: (_chain, service) => cluster.withdraw(service),
    *probe() {
      yield* run(COUNT_PROBE);
    },
  } satisfies WriteBodies<'initialise' | 'claim' | 'release' | 'announce' | 'withdraw' | 'probe'>;
}
