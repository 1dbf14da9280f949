import type { AuditRecord } from '@bundoc/shared/contract/audit';
import type { AuditReceipt } from '@bundoc/shared/contract/keys';
import type { StoredKey } from '../../records/key-record.ts';
import type { VersionChoice } from '../keys.ts';
import type { KmsStore, OperationName } from '../port.ts';
import { bindBodies } from '../sql/bodies.ts';
import { type KeyQuery, type KeyTable, NOTHING } from '../sql/key-table.ts';
import { operationsOf } from '../sql/operations.ts';
import type { Repository } from '../sql/repository.ts';
import type { Sql } from '../sql/statement.ts';
import { BatchedRead } from './batched-read.ts';
import type { Pools } from './pools.ts';
import { foreignObjects } from './schema-check.ts';
import { scrub } from './scrub.ts';
import type { Writer } from './writer.ts';

export type PostgresOperations = Pick<KmsStore, OperationName>;

/**
 * The operations of the store. Each write is part of one transaction, which excludes those of all other
 * nodes.
 */
export function postgresOperations(repository: Repository, pools: Pools, writer: Writer): PostgresOperations {
  const { reads, snapshots, writes, unauditedWrites } = operationsOf(repository);
  const { audit, keys, activeFamilies } = repository;
  const families = new BatchedRead<string | undefined>(pools, activeFamilies, undefined);
  const storedKeys = new BatchedRead<StoredKey>(pools, (questions) => answer(keys, questions), NOTHING);
  const storages = new BatchedRead<AuditRecord | undefined>(
    pools,
    (ids) => audit.storageRecords(ids),
    undefined,
  );
  const places = new BatchedRead<AuditReceipt | undefined>(
    pools,
    (names) => audit.placesOfLastChanges(names),
    undefined,
  );
  return {
    ...(bindBodies(reads, (body, args) => pools.read(body(...args))) as Pick<KmsStore, keyof typeof reads>),
    ...(bindBodies(snapshots, (body, args) => pools.snapshot(body(...args))) as Pick<
      KmsStore,
      keyof typeof snapshots
    >),
    ...(bindBodies(writes, (body, args) => writer.write((chain) => body(chain, ...args))) as Pick<
      KmsStore,
      keyof typeof writes
    >),
    ...(bindBodies(unauditedWrites, (body, args) =>
      writer.writeUnaudited((chain) => body(chain, ...args)),
    ) as Pick<KmsStore, keyof typeof unauditedWrites>),
    initialise: async (installation, chainKey, record) => {
      const isMade = await writer.writeUnaudited((chain) =>
        unauditedWrites.initialise(chain, installation, chainKey, record),
      );
      if (isMade) writer.unlock(chainKey);
      return isMade;
    },
    unlock: async (chainKey) => writer.unlock(chainKey),
    scrub: () => scrub(pools),
    foreignObjects: () => pools.catalog(foreignObjects),
    expectHead: async (head) => writer.expectHead(head),
    // Concurrent calls share one statement.
    findKey: async (name, choice) => {
      if (choice === 'all') return await pools.snapshot(snapshots.findKey(name, choice));
      const stored = await storedKeys.ask(questionOf(name, choice));
      return stored.record === undefined && stored.lastChange === undefined ? undefined : stored;
    },
    lastChange: (name) => places.ask(name),
    findActiveTokenFamily: (jti) => families.ask(jti),
    storageRecord: (id) => storages.ask(id),
  };
}

/** The id of a batched query: the name, after the version unless that is the current one. */
function questionOf(name: string, choice: Exclude<VersionChoice, 'all'>): string {
  return `${choice === 'current' ? '' : choice} ${name}`;
}

function* answer(keys: KeyTable, questions: readonly string[]): Sql<Map<string, StoredKey>> {
  const stored = yield* keys.findStored(
    questions.map((question): KeyQuery => {
      const at = question.indexOf(' ');
      return [question.slice(at + 1), at === 0 ? null : Number(question.slice(0, at))];
    }),
  );
  return new Map(questions.map((question, at) => [question, stored[at] ?? NOTHING]));
}
