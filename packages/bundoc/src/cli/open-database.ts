import { CommandError } from '@bundoc/shared/cli/errors';
import { hasCode } from '@bundoc/shared/contract/app-error';
import { reasonOf } from '@bundoc/shared/logs/log-error';
import { createLogger } from '@bundoc/shared/logs/logger';
import { formatAddress } from '@bundoc/shared/postgres/address';
import { refusalIn } from '@bundoc/shared/postgres/refusal';
import { Database } from '../engine/postgres/database/database.ts';
import { prepareSchema } from '../engine/postgres/database/schema.ts';
import { IS_PROJECT } from '../engine/postgres/projects/postgres-projects.ts';
import type { PostgresConfig } from '../engine/storage-config.ts';

/**
 * Runs `action` with connections to the database, after creating the schema in an empty one, as a node would.
 * @throws CommandError when it does not answer.
 */
export async function withDatabase<T>(
  config: PostgresConfig,
  action: (database: Database) => Promise<T>,
): Promise<T> {
  const logger = createLogger({ service: 'bundoc', level: 'silent' });
  await using database = new Database({ ...config, logger });
  try {
    await prepareSchema(database);
  } catch (error) {
    if (!hasCode(error, 'storage_unavailable')) throw error;
    const silence = `PostgreSQL does not answer at ${formatAddress(config.address)}: ${reasonOf(error.cause)}`;
    throw new CommandError(refusalIn(error)?.message ?? silence, { cause: error });
  }
  return await action(database);
}

/** Ids of the projects in the database, in order, without deleted projects and those that live elsewhere. */
export async function projectsInRows(database: Database): Promise<string[]> {
  const [rows = []] = await database.run(
    `SELECT project FROM bundoc.projects WHERE ${IS_PROJECT} ORDER BY project`,
  );
  return rows.map(([project]) => String(project));
}
