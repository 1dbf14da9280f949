import { counted } from '@bundoc/shared/cli/counted';
import { type JsonOption, print } from '@bundoc/shared/cli/print';
import { createProgress } from '@bundoc/shared/cli/progress';
import type { Environment } from '@bundoc/shared/process/config';
import {
  type Holdings,
  holdingsOf,
  type KeySample,
  type StorageHandover,
  takeOverKeys,
} from '../keys/take-over-keys.ts';
import { CLI_CALLER } from '../records/caller.ts';
import { listOf } from '../recovery/errors.ts';
import { CliFailure, FORCE_WHEN, UsageError } from './errors.ts';
import { withKeys } from './open-kms.ts';

interface TakeOverAll extends StorageHandover {
  /** False: only show what would happen. */
  readonly confirm: boolean;
  readonly force: boolean;
}

/**
 * `bunkms storage take-over <id> --of <id>`: gives all keys of a storage to another one. It may be
 * interrupted and run again: it continues with the keys that are left.
 *
 * @throws UsageError; AppError `lease_live`, with nothing changed, while leases are live; CliFailure when
 *   keys are left, after giving all others.
 */
export async function takeOverAll(
  environment: Environment,
  { confirm, ...wanted }: TakeOverAll,
  options: JsonOption,
): Promise<void> {
  const { storage, of } = wanted;
  if (storage === of) throw new UsageError('--of must be another storage');
  const { taken, left } = await withKeys(environment, async (deps) => {
    const holdings = await holdingsOf(deps, wanted);
    if (!confirm) return { taken: 0, left: holdings };
    using progress = createProgress('{bar} {value}/{total} keys, {eta_formatted} left');
    progress.start(holdings.keys.count);
    return takeOverKeys(deps, wanted, holdings, CLI_CALLER, (done) => progress.update(done));
  });
  print(options, { storage, of, taken, ...left }, () =>
    confirm && taken + left.keys.count > 0
      ? [`${storage} has taken over ${counted(taken, 'key')} of ${of}`]
      : planLines(wanted, left),
  );
  if (confirm) requireNothing(left);
}

function planLines({ storage, of }: StorageHandover, left: Holdings): string[] {
  const { keys, leases_until: until } = left;
  if (keys.count === 0)
    return [
      `${of} has no key for ${storage}; "bunkms storage list --json" has the number of keys of each storage`,
      ...staying(left),
    ];
  return [
    `${storage} would take over ${sampleOf(keys)} of ${of}`,
    ...(until === undefined ? [] : [`${of} may use keys until ${until}; ${FORCE_WHEN}`]),
    ...staying(left),
    'nothing was changed: add --confirm to do it',
  ];
}

/** Keys that no take-over changes. */
function staying({ deletion_intended: intended, damaged }: Holdings): string[] {
  return [
    ...(intended.count === 0
      ? []
      : [`their deletion has begun, so restore or destroy them first: ${sampleOf(intended)}`]),
    ...(damaged.count === 0
      ? []
      : [`their holder is unknown, because they are damaged; run "bunkms recover": ${sampleOf(damaged)}`]),
  ];
}

/** @throws CliFailure. */
function requireNothing(left: Holdings): void {
  const faults = [
    ...(left.keys.count === 0
      ? []
      : [
          `these were created or used in the meantime, so stop what still uses them, and run the command again, with --force if its machine is gone or stopped for certain: ${sampleOf(left.keys)}`,
        ]),
    ...staying(left),
  ];
  if (faults.length > 0) throw new CliFailure(`keys are left; ${faults.join('; ')}`);
}

function sampleOf({ count, first }: KeySample): string {
  return `${counted(count, 'key')} (${listOf(first, count)})`;
}
