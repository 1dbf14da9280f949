import { type RunnerTestFile, TestRunner } from 'vitest';

/** The tag of tests that know nothing of PostgreSQL and run on it. Without PostgreSQL they are skipped. */
export const ON_POSTGRES = 'on-postgresql';

/** Gives that tag to every test of a project. */
export default class PostgresRunner extends TestRunner {
  override onCollectStart(file: RunnerTestFile): void {
    super.onCollectStart(file);
    file.tags = [ON_POSTGRES];
  }
}
