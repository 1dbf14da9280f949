import { ConfigError } from '../process/config.ts';
import type { Run } from './run.ts';

const MAJOR_MIN = 15;
/** How much the clocks of a node and its database may differ without a warning, milliseconds. */
const APART_MS = 5_000;

/**
 * Checks the durability settings and the clock of the server.
 *
 * @param variable the variable that names the server, for messages.
 * @param nowMs this node's wall clock.
 * @returns warnings about settings that may lose acknowledged writes, and about clocks that differ.
 * @throws ConfigError for a server that is too old, or that would lose acknowledged writes in a crash.
 */
export async function checkServer(run: Run, variable: string, nowMs: number): Promise<string[]> {
  const settings = [
    ...['server_version_num', 'synchronous_commit', 'synchronous_standby_names', 'fsync', 'full_page_writes'],
  ];
  const [row = []] = await run(
    `SELECT ${settings.map((name) => `current_setting('${name}')`).join(', ')},
       floor(extract(epoch FROM clock_timestamp()) * 1000)::text`,
  );
  const [version, synchronousCommit = '', standbys = '', fsync, fullPageWrites, serverMs] = row.map(String);
  if (Number(version) < MAJOR_MIN * 10_000)
    throw new ConfigError([`${variable}: PostgreSQL ${MAJOR_MIN} or newer is required`]);
  if (synchronousCommit === 'off')
    throw new ConfigError([
      `${variable}: synchronous_commit is off for this role: acknowledged writes would be lost`,
    ]);
  const aheadMs = nowMs - Number(serverMs);
  const warnings: string[] = [];
  if (fsync === 'off') warnings.push('PostgreSQL runs with fsync off: a power failure may lose all data');
  if (fullPageWrites === 'off')
    warnings.push('PostgreSQL runs with full_page_writes off: a crash may corrupt pages');
  if (standbys.trim() === '' || !['on', 'remote_apply'].includes(synchronousCommit))
    warnings.push(
      'PostgreSQL acknowledges writes before a standby has them: they may be lost with the primary (synchronous_standby_names, synchronous_commit)',
    );
  if (Math.abs(aheadMs) >= APART_MS)
    warnings.push(
      `the clock of this node is ${Math.round(Math.abs(aheadMs) / 1_000)} s ${aheadMs > 0 ? 'ahead of' : 'behind'} PostgreSQL's`,
    );
  return warnings;
}
