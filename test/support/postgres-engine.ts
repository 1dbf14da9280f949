// Imported by path, because Vitest resolves imports of a setup file in the build output, which lacks test
// helpers.

import type { TestProject } from 'vitest/node';
import { PostgresServer } from '../../packages/shared/src/testing/postgres-server.ts';
import { pathOf } from '../../packages/shared/src/testing/programs.ts';

/** Starts one PostgreSQL for a whole run, in which each installation creates its own database. */
export default async function setup(project: TestProject): Promise<(() => Promise<void>) | undefined> {
  if (pathOf('postgresql') === undefined) return undefined;
  const server = await PostgresServer.start();
  await server.sql("CREATE ROLE tests LOGIN CREATEDB PASSWORD 'tests'");
  project.provide('postgresUrl', `postgres://tests:tests@127.0.0.1:${server.port}/postgres`);
  return () => server[Symbol.asyncDispose]();
}
