import { systemClock } from '@bundoc/shared/runtime/clock';
import type { PostgresServer } from '@bundoc/shared/testing/postgres-server';
import { afterEach } from 'vitest';
import type { WriteResult } from '../../src/engine/port/port.ts';
import { GroupCommitter } from '../../src/engine/postgres/commit/group-commit.ts';
import type { Database } from '../../src/engine/postgres/database/database.ts';
import type { PostgresStore } from '../../src/engine/postgres/postgres-store.ts';
import { removeRows } from '../../src/engine/postgres/rows/fence.ts';
import { lockOf } from '../../src/engine/postgres/rows/project-rows.ts';
import { NO_NEWS, type PostgresProject } from '../../src/testing/postgres-project.ts';
import { commitOne, put } from '../../src/testing/writes.ts';
import { type UsedDatabase, useDatabase } from './use-database.ts';

export const ABSENT = { kind: 'absent' } as const;
export const PRESENT = { kind: 'present' } as const;
const MARK = '{"deleted":true}';
export let server: PostgresServer;
export let database: Database;
export let newProject: UsedDatabase['newProject'];
export const opened: PostgresStore[] = [];

export const closeAll = async () => {
  for (const store of opened.splice(0)) await store[Symbol.asyncDispose]();
};

export const sql = (text: string) => server.sql(text, 'bundoc');
export const transactions = async () => Number(await sql('SELECT count(*) FROM bundoc.group_commits'));

type ProjectOptions = ConstructorParameters<typeof PostgresProject>[1];

/** Projects that one node has open. */
export const nodeOf = async (
  count: number,
  options: { on?: Database; project?: ProjectOptions; committer?: GroupCommitter } = {},
) => {
  const on = options.on ?? database;
  const committer = options.committer ?? new GroupCommitter({ database: on, clock: systemClock });
  const projects = await Promise.all(Array.from({ length: count }, () => newProject(options.project)));
  const stores = await Promise.all(projects.map((project) => project.open(on, NO_NEWS, { committer })));
  opened.push(...stores);
  return { projects, stores, names: projects.map(({ project }) => project), committer };
};

export const nth = <T>(list: readonly T[], at: number) => list[at] as T;

/** Commits one write to each project in the same turn of the event loop. */
export const writeEach = (stores: readonly PostgresStore[], id: string, json = '{}') =>
  Promise.allSettled(stores.map((store) => commitOne(store, put(id, json, ABSENT))));

export const codesOf = (outcomes: readonly PromiseSettledResult<WriteResult>[]) =>
  outcomes.map((outcome) =>
    outcome.status === 'fulfilled' ? 'ok' : String((outcome.reason as { code?: string }).code),
  );

/** A long run holds them for longer than a transaction may be idle. */
const NO_IDLE_TIMEOUT = 'SET LOCAL idle_in_transaction_session_timeout = 0';

/** Locks the heads of projects, as another node does, until `action` has ended. */
export const whileLocked = (names: readonly string[], action: () => Promise<void>) =>
  names.length === 0
    ? action()
    : database.transaction([NO_IDLE_TIMEOUT, ...names.map(lockOf)].join(';'), async () => {
        await action();
        return true;
      });

export const deleteProject = (name: string) =>
  removeRows((action) => database.transaction('', action), name, MARK);

/** Makes statements fail for one project only. */
export const withTrigger = async (project: string, body: string, action: () => Promise<void>) => {
  await sql(
    `CREATE FUNCTION planted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN ${body}; RETURN NEW; END $$;
     CREATE TRIGGER planted BEFORE INSERT OR UPDATE ON bundoc.documents FOR EACH ROW
     WHEN (NEW.project = '${project}') EXECUTE FUNCTION planted()`,
  );
  try {
    await action();
  } finally {
    await sql('DROP FUNCTION planted CASCADE');
  }
};

/** Call it in a `describe`. Its tests have a server, and nodes with projects whose commits they group. */
export function useProjectGroups(): void {
  useDatabase(
    (used) => {
      ({ server, database, newProject } = used);
    },
    { connectionsMax: 16 },
  );
  afterEach(closeAll);
}
