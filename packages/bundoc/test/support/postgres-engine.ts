import type { PostgresServer } from '@bundoc/shared/testing/postgres-server';
import type { ProjectStore } from '../../src/engine/port/port.ts';
import type { Database } from '../../src/engine/postgres/database/database.ts';
import { ref } from '../../src/testing/writes.ts';
import { type UsedDatabase, useDatabase } from './use-database.ts';

export let server: PostgresServer;
export let database: Database;
export let newProject: UsedDatabase['newProject'];
export const sql = (text: string) => server.sql(text, 'bundoc');
export const textOf = async (store: ProjectStore, id: string) => (await store.get(ref(id)))?.text.toString();

/** Every overwrite of a document of the project meets a full disk, while `action` runs. */
export const refuseWrites = async (project: string, action: () => Promise<void>) => {
  await sql(
    `CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
     $$ BEGIN RAISE EXCEPTION 'No space left on device' USING ERRCODE = 'disk_full'; END $$;
     CREATE TRIGGER full_disk BEFORE UPDATE ON bundoc.documents FOR EACH ROW
     WHEN (NEW.project = '${project}') EXECUTE FUNCTION full_disk()`,
  );
  try {
    await action();
  } finally {
    await sql('DROP FUNCTION full_disk CASCADE');
  }
};

/** Call it in a `describe`. Its tests have a server with a database that has the schema. */
export function usePostgresEngine(): void {
  useDatabase((used) => {
    ({ server, database, newProject } = used);
  });
}
