import { systemClock } from '@bundoc/shared/runtime/clock';
import { runs } from '@bundoc/shared/testing/long';
import type { PostgresServer } from '@bundoc/shared/testing/postgres-server';
import { expect } from 'vitest';
import { type DefinedStore, openDefinedStore } from '../../src/collections/defined-store.ts';
import type { Database } from '../../src/engine/postgres/database/database.ts';
import { SNAPSHOT_TRANSACTION, verifyRows } from '../../src/engine/postgres/verify/verify-rows.ts';
import type { PostgresProject } from '../../src/testing/postgres-project.ts';
import { type UsedDatabase, useDatabase } from './use-database.ts';

export const NONE = { kind: 'none' } as const;
/** Tails and runs of few entries, so that short histories have many. */
export const SMALL = {
  buildDocuments: 2,
  segmentEntries: 3,
  segmentUnits: 1_000,
  tailChanges: 2,
  tailBytes: 1_000,
  tailChangesMax: 5,
  commitsUnseenMax: 10,
};
export const RUNS = Number(process.env['QUERY_RUNS'] ?? runs(10, 100));

/** A node whose attempts end soon when the server is gone. */
export const hasty = () => {
  let ms = 0;
  return { ...systemClock, monotonic: () => (ms += 5_000) };
};

export let server: PostgresServer;
export let database: Database;
export let newProject: UsedDatabase['newProject'];

export const openOn = async (project: PostgresProject, on = database) =>
  openDefinedStore(await project.open(on), project.clock);

export const sql = (text: string) => server.sql(text, 'bundoc');
export const plain = (...fields: string[]) => ({ fields, unique: false });
export const unique = (...fields: string[]) => ({ fields, unique: true });

/** The findings of `bundoc verify`, which also compares the entries with all values. */
export const findings = async (project: PostgresProject) => {
  const verified = await database.transaction(SNAPSHOT_TRANSACTION, (transaction) =>
    verifyRows(transaction, project.project, project.cipher, () => undefined),
  );
  return verified?.findings;
};

export const close = async (...stores: DefinedStore[]) => {
  for (const store of stores) await store[Symbol.asyncDispose]();
};

/** Waits until no node has any work left on indexes. */
export const settled = (store: DefinedStore, timeout?: number) =>
  expect
    .poll(
      async () => {
        await store.load();
        await store.indexes?.built();
        return new Set(store.indexes?.status('notes').map(({ state }) => state));
      },
      timeout === undefined ? {} : { timeout },
    )
    .not.toContain('building');

/** Call it in a `describe`. Its tests have a server with a database that has the schema. */
export function usePostgresIndexes(): void {
  useDatabase((used) => {
    ({ server, database, newProject } = used);
  });
}
