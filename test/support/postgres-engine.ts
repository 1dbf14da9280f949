import { PostgresServer } from '@bundoc/shared/testing/postgres-server';
import type { TestProject } from 'vitest/node';

/** Starts the PostgreSQL of a whole run, in which each installation makes a database of its own. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const server = await PostgresServer.start();
  await server.sql("CREATE ROLE tests LOGIN CREATEDB PASSWORD 'tests'");
  project.provide('postgresUrl', `postgres://tests:tests@127.0.0.1:${server.port}/postgres`);
  return () => server[Symbol.asyncDispose]();
}
