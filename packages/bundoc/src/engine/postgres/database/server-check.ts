import { ConfigError } from '@bundoc/shared/runtime/config';
import type { Database } from './database.ts';

const MAJOR_MIN = 15;

/**
 * Looks at how the server keeps what it acknowledges.
 *
 * @returns what is worth a warning.
 * @throws ConfigError for a server that is too old, or acknowledges what a crash would take back.
 */
export async function checkServer(database: Database): Promise<readonly string[]> {
  const names = [
    'server_version_num',
    'synchronous_commit',
    'synchronous_standby_names',
    'fsync',
    'full_page_writes',
  ];
  const [rows] = await database.run(`SELECT ${names.map((name) => `current_setting('${name}')`).join(', ')}`);
  const [version, synchronousCommit, standbys, fsync, fullPages] = (rows?.[0] ?? []) as unknown as [
    string,
    string,
    string,
    string,
    string,
  ];
  if (Number(version) < MAJOR_MIN * 10_000)
    throw new ConfigError([`BUNDOC_STORAGE: PostgreSQL ${MAJOR_MIN} or newer is required`]);
  if (synchronousCommit === 'off')
    throw new ConfigError([
      'BUNDOC_STORAGE: synchronous_commit is off for this role: acknowledged writes would be lost',
    ]);
  const warnings: string[] = [];
  if (fsync === 'off' || fullPages === 'off')
    warnings.push('PostgreSQL runs with fsync or full_page_writes off: a power cut may take everything');
  if (standbys === '' || !['on', 'remote_apply'].includes(synchronousCommit))
    warnings.push(
      'PostgreSQL acknowledges before a durable replica has the write: with the primary, acknowledged writes may be lost (synchronous_standby_names, synchronous_commit)',
    );
  return warnings;
}

/** Whether the server takes writes: it is reached, it is the primary. */
export async function takesWrites(database: Database): Promise<boolean> {
  try {
    const [rows] = await database.run("SELECT current_setting('transaction_read_only') = 'off'");
    return rows?.[0]?.[0] === true;
  } catch {
    return false;
  }
}
