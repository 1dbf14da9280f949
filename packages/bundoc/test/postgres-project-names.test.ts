import { systemClock } from '@bundoc/shared/runtime/clock';
import type { PostgresServer } from '@bundoc/shared/testing/postgres-server';
import { needs } from '@bundoc/shared/testing/programs';
import { describe, expect, it } from 'vitest';
import type { Database } from '../src/engine/postgres/database/database.ts';
import { PostgresProjects } from '../src/engine/postgres/projects/postgres-projects.ts';
import { useDatabase } from './support/use-database.ts';

describe('the projects of a database', needs('postgresql'), () => {
  let server: PostgresServer;
  let database: Database;
  useDatabase((used) => {
    ({ server, database } = used);
  });

  it('are listed in the order of their characters, page by page, and only as requested', async () => {
    // No key is requested.
    const projects = new PostgresProjects({
      database,
      clock: systemClock,
      keys: undefined as never,
      storage: undefined as never,
      settle: async () => undefined,
    });
    for (const id of ['b', 'a', 'c-1', 'c1', 'd'])
      await server.sql(`INSERT INTO bundoc.projects (project, file) VALUES ('${id}', '{}')`, 'bundoc');
    expect(await projects.names('', 10)).toEqual(['a', 'b', 'c-1', 'c1', 'd']);
    expect(await projects.names('', 2)).toEqual(['a', 'b']);
    expect(await projects.names('b', 2)).toEqual(['c-1', 'c1']);
    expect(await projects.names('', 10, ['d', 'none', 'a'])).toEqual(['a', 'd']);
    expect(await projects.names('a', 10, ['d', 'a'])).toEqual(['d']);
    expect(await projects.names('', 10, [])).toEqual([]);
  });
});
