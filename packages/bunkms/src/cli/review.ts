import { type Command, command, parserOf } from '@bundoc/shared/cli/command';
import { type JsonOption, print, rowLine } from '@bundoc/shared/cli/print';
import { keyNameSchema } from '@bundoc/shared/contract/keys';
import { formatError } from '@bundoc/shared/logs/error-line';
import type { Environment } from '@bundoc/shared/process/config';
import { enableKey } from '../keys/key-lifecycle.ts';
import { CLI_CALLER } from '../records/caller.ts';
import { listOf } from '../recovery/errors.ts';
import { type KeyToReview, keysToReview } from '../recovery/keys-to-review.ts';
import { CliFailure, EXIT, UsageError } from './errors.ts';
import { type CliDeps, withKeys } from './open-kms.ts';

interface ReviewOptions extends JsonOption {
  /** Names of keys to enable. */
  readonly enable: readonly string[];
  readonly enableAll?: true;
}

/** `bunkms key review`. */
export function addReviewCommand(group: Command, environment: Environment): void {
  const parse = parserOf(keyNameSchema);
  command(
    group,
    'review',
    'lists the keys that a restore or a recovery disabled because their later state is unknown, and enables those you choose',
  )
    .option(
      '--enable <names>',
      'enable these keys; may be repeated',
      (text, earlier: readonly string[]) => [...earlier, ...text.split(',').map(parse)],
      [],
    )
    .option('--enable-all', 'enable all of them, except those that were withdrawn before')
    .action((options) => review(environment, options));
}

/**
 * Lists the keys that a restore or a recovery has disabled because nothing shows their state since, and
 * enables the chosen ones. All of them: without those that were known to be disabled or about to be
 * deleted, and those that an end of the chain had withdrawn that a rollback has lost.
 *
 * @throws UsageError; CliFailure, with nothing enabled, for a key that does not wait for a review; CliFailure
 *   after enabling the others when a key cannot be enabled.
 */
export async function review(environment: Environment, options: ReviewOptions): Promise<void> {
  const { enable, enableAll } = options;
  if (enableAll && enable.length > 0) throw new UsageError('give --enable or --enable-all, not both');
  const { waiting, enabled, problems } = await withKeys(environment, async (deps) => {
    const keys = await keysToReview(deps);
    const names = enableAll ? keys.filter(isPlain).map(({ name }) => name) : enable;
    requireWaiting(keys, names);
    return { waiting: keys, ...(await enableKeys(deps, names)) };
  });
  const left = waiting.filter(({ name }) => !enabled.includes(name));
  print(options, { keys: left, enabled }, () => [
    ...enabled.map((name) => rowLine(name, 'enabled')),
    ...left.map(({ name, was, lost_withdrawal: lost, since, version }) =>
      rowLine(name, 'disabled', version, `was ${was}`, since, lost && `a rollback has lost its ${lost}`),
    ),
  ]);
  if (problems.length > 0) throw new CliFailure(`not enabled: ${listOf(problems)}`);
}

function isPlain({ was, lost_withdrawal: lost }: KeyToReview): boolean {
  return lost === undefined && (was === 'enabled' || was === 'unknown');
}

function requireWaiting(keys: readonly KeyToReview[], names: readonly string[]): void {
  const known = new Set(keys.map(({ name }) => name));
  const others = names.filter((name) => !known.has(name));
  if (others.length === 0) return;
  throw new CliFailure(
    `nothing was enabled, because these keys do not wait for a review: ${listOf(others)}; use "bunkms key enable" for a key that somebody has disabled`,
    EXIT.conflict,
  );
}

async function enableKeys(
  deps: CliDeps,
  names: readonly string[],
): Promise<{ enabled: string[]; problems: string[] }> {
  const enabled: string[] = [];
  const problems: string[] = [];
  for (const name of new Set(names)) {
    try {
      await enableKey(deps, { name }, CLI_CALLER);
      enabled.push(name);
    } catch (error) {
      problems.push(`${name} (${formatError(error)})`);
    }
  }
  return { enabled, problems };
}
