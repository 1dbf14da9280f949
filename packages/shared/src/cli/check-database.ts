import pg from 'pg';
import { reasonOf } from '../logs/log-error.ts';
import { formatAddress } from '../postgres/address.ts';
import { type ConnectionSettings, clientConfig } from '../postgres/connection.ts';
import { refusalOf } from '../postgres/refusal.ts';
import { runOn } from '../postgres/run.ts';
import { checkServer } from '../postgres/server-check.ts';
import type { Checkup } from './checkup.ts';

/** How much longer than the server the client waits for a statement, milliseconds. */
const ANSWER_SLACK_MS = 500;

/**
 * Checks that PostgreSQL answers and lets the role in, and the settings on which durability depends.
 *
 * @returns whether the rest can be checked.
 */
export async function checkDatabase(
  checkup: Checkup,
  settings: Omit<ConnectionSettings, 'answerSlackMs' | 'applicationName'>,
): Promise<boolean> {
  const { address, variable } = settings;
  const place = formatAddress(address);
  const isOpen = await checkup.try('database', `correct ${variable}`, async () => {
    const config = { ...settings, answerSlackMs: ANSWER_SLACK_MS, applicationName: 'doctor' };
    const client = new pg.Client(clientConfig(config));
    // A broken connection also fails the running statement.
    client.on('error', () => undefined);
    try {
      const failure = await client.connect().then(
        () => undefined,
        (error: unknown) => error ?? new Error('no connection'),
      );
      if (failure !== undefined) {
        const refusal = refusalOf(failure, settings);
        const silence = `PostgreSQL does not answer at ${place}: ${reasonOf(failure)}`;
        checkup.fail(
          'database',
          refusal?.found ?? silence,
          refusal?.remedy ?? `start it, or correct ${variable}`,
        );
        return false;
      }
      const run = runOn(client);
      const [[version] = []] = await run('SHOW server_version');
      const warnings = await checkServer(run, variable, Date.now());
      checkup.ok('database', `PostgreSQL ${String(version)} answers at ${place}`);
      for (const warning of warnings) checkup.warn('database', warning, 'correct the setting of the server');
      return true;
    } finally {
      await client.end().catch(() => undefined);
    }
  });
  return isOpen === true;
}
