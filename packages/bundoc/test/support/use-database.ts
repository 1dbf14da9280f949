import { PostgresServer } from '@bundoc/shared/testing/postgres-server';
import { afterAll, beforeAll } from 'vitest';
import type { Database, DatabaseOptions } from '../../src/engine/postgres/database/database.ts';
import { prepareSchema } from '../../src/engine/postgres/database/schema.ts';
import { openTestDatabase, PostgresProject } from '../../src/testing/postgres-project.ts';

/** A server for the tests of a `describe`, and its database `bundoc`, which has the schema. */
export interface UsedDatabase {
  readonly server: PostgresServer;
  readonly database: Database;
  /** Creates a project that no other test has. */
  newProject(options?: ConstructorParameters<typeof PostgresProject>[1]): Promise<PostgresProject>;
}

/** Call it in a `describe`. The returned server starts before the first test, and ends after the last. */
export function useDatabase(
  onStarted: (used: UsedDatabase) => void,
  options: Partial<DatabaseOptions> = {},
): void {
  const stack = new AsyncDisposableStack();
  let projects = 0;
  beforeAll(async () => {
    const server = stack.use(await PostgresServer.start());
    const database = stack.use(openTestDatabase((await server.createDatabase('bundoc')).url, options));
    await prepareSchema(database);
    onStarted({
      server,
      database,
      newProject: async (options) => {
        const project = new PostgresProject(`p${++projects}`, options);
        await project.create(database);
        return project;
      },
    });
  });
  afterAll(() => stack.disposeAsync());
}
