import { systemClock } from '@bundoc/shared/runtime/clock';
import type { Environment } from '@bundoc/shared/runtime/config';
import { withFolder } from './open-data.ts';

export interface SettleOptions {
  readonly all?: true;
  readonly acceptLoss?: true;
  readonly json?: true;
}

/**
 * Makes the folder of every project durable. With `all`, it also writes everything that only the log has.
 * Needs no key.
 *
 * @returns true when all writes reached every project's folder.
 */
export async function settle(environment: Environment, options: SettleOptions): Promise<boolean> {
  const stuck = await withFolder(environment, async ({ engine, identity }) => {
    if (options.acceptLoss) {
      // First: afterwards, projects open, and must not repeat the positions of lost commits.
      await identity.change((file) => ({ ...file, lossAcceptedMs: systemClock.now() }));
      await engine.acceptLoss();
    }
    if (options.all) return await engine.carryAll();
    await engine.markSettled();
    return [];
  });
  if (options.json) console.log(JSON.stringify({ stuck }));
  else print(options.all === true, stuck);
  return stuck.length === 0;
}

function print(all: boolean, stuck: readonly string[]): void {
  for (const one of stuck)
    console.log(`${one}  its folder cannot be written: its parts of the log stay in log/stuck`);
  const what = all ? 'holds all of its project' : 'is durable';
  console.error(
    `bundoc: settled: every folder of a project${stuck.length === 0 ? '' : ' but those above'} ${what}`,
  );
}
