// By its path: Vitest looks for what a set-up imports in what was built, where no test helpers are.

import type { TestProject } from 'vitest/node';
import { PostgresServer } from '../../packages/shared/src/testing/postgres-server.ts';

/** Starts the PostgreSQL of a whole run, in which each installation makes a database of its own. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const server = await PostgresServer.start();
  await server.sql("CREATE ROLE tests LOGIN CREATEDB PASSWORD 'tests'");
  project.provide('postgresUrl', `postgres://tests:tests@127.0.0.1:${server.port}/postgres`);
  return () => server[Symbol.asyncDispose]();
}
