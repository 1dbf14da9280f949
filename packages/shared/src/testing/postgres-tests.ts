import { describe } from 'vitest';
import { postgresPrograms } from './postgres-server.ts';

const isInstalled = postgresPrograms() !== undefined;
if (!isInstalled && process.env['REQUIRE_POSTGRES'] === '1')
  throw new Error('REQUIRE_POSTGRES=1, and no PostgreSQL of 15 or newer is installed');

/**
 * A `describe` that is skipped, and named accordingly, when PostgreSQL is not installed. `REQUIRE_POSTGRES=1`
 * makes that a failure.
 */
export function describeWithPostgres(name: string, tests: () => void): void {
  if (isInstalled) describe(name, tests);
  else describe.skip(`${name} [skipped: PostgreSQL is not installed]`, tests);
}
