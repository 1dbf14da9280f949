import { type Command, command, parserOf, wholeNumber } from '@bundoc/shared/cli/command';
import { counted } from '@bundoc/shared/cli/counted';
import { type JsonOption, print, rowLine } from '@bundoc/shared/cli/print';
import { createProgress } from '@bundoc/shared/cli/progress';
import { type AppError, hasCode } from '@bundoc/shared/contract/app-error';
import { defined } from '@bundoc/shared/contract/defined';
import {
  type AttachedKey,
  keyNameSchema,
  LEASE_TTL_S_MAX,
  LEASE_TTL_S_MIN,
  OUTSIDE_FAULTS,
  type OutsideState,
  outsideNameSchema,
} from '@bundoc/shared/contract/keys';
import { suggestFor } from '@bundoc/shared/logs/unknown-names';
import type { Environment } from '@bundoc/shared/process/config';
import { readConfig } from '../config.ts';
import { attachKey, detachKey, rewrapVersions } from '../keys/attach-key.ts';
import { outsideNames, outsideStateOf, protectionOf } from '../keys/outside-state.ts';
import { allKeys } from '../keys/read-keys.ts';
import { readStoredKey } from '../keys/stored-key.ts';
import { readEntries } from '../outside/entries.ts';
import { CLI_CALLER } from '../records/caller.ts';
import { CliFailure, EXIT, UsageError } from './errors.ts';
import { type CliDeps, withKeys } from './open-kms.ts';

const keyName = parserOf(keyNameSchema);
const outsideName = parserOf(outsideNameSchema);

/** `bunkms outside attach|detach|rewrap|status`: keys that open only with an outside key as well. */
export function addCustomerKeyCommands(group: Command, environment: Environment): void {
  const change = async (options: JsonOption, act: (deps: CliDeps) => Promise<AttachedKey>) => {
    const key = await withKeys(environment, act);
    print(options, key, () => linesOf(key));
  };
  command(group, 'attach', 'lets new versions of a key open only with an outside key as well')
    .argument('<key>', 'the key', keyName)
    .argument('<name>', 'the entry of the file', outsideName)
    .option(
      '--lease <seconds>',
      'how long a released key may be kept',
      wholeNumber(LEASE_TTL_S_MIN, LEASE_TTL_S_MAX),
      LEASE_TTL_S_MAX,
    )
    .action((name, key, { lease, ...options }) =>
      change(options, async (deps) => {
        try {
          return await attachKey(deps, { name, key, lease_ttl_s: lease }, CLI_CALLER);
        } catch (error) {
          if (!hasCode(error, 'outside_key_unknown')) throw error;
          throw new CliFailure(whyUnknown(environment, key, name), EXIT.conflict);
        }
      }),
    );
  command(group, 'detach', 'lets new versions of a key open without its outside key, which is not asked')
    .argument('<key>', 'the key', keyName)
    .action((name, options) => change(options, (deps) => detachKey(deps, { name }, CLI_CALLER)));
  command(group, 'rewrap', 'protects the older versions of keys as their new ones are')
    .argument('[key]', 'one key', keyName)
    .option('--all <name>', 'all keys that are attached to this entry', outsideName)
    .action((name, { all, ...options }) => rewrap(environment, { name, all }, options));
  command(group, 'status', 'the keys that are attached, and their versions that are not protected yet')
    .argument('[key]', 'one key', keyName)
    .action(async (name, options) => {
      const keys = await withKeys(environment, async (deps) => {
        const shown: ShownKey[] = [];
        for (const key of await statusOf(deps, name))
          shown.push({ ...key, ...(await lastUsesOf(deps, key)) });
        return shown;
      });
      print(options, { keys }, () => (keys.length === 0 ? ['no key is attached'] : keys.flatMap(linesOf)));
    });
}

/** Which of the causes of `outside_key_unknown` it is. The API does not tell: only an operator may know. */
function whyUnknown(environment: Environment, entry: string, keyName: string): string {
  const { outsideKeysFile: file } = readConfig(environment);
  if (file === undefined) return 'BUNKMS_OUTSIDE_KEYS_FILE is not set: there are no outside keys';
  const names = [...readEntries(file).keys()];
  if (!names.includes(entry))
    return `no entry of BUNKMS_OUTSIDE_KEYS_FILE has the name ${suggestFor(entry, names)}`;
  return `the entry ${entry} does not allow the key ${keyName}: add a glob for it to "keys" of the entry`;
}

type LastUses = Pick<OutsideState, 'last_success_at' | 'last_error'>;
type ShownKey = AttachedKey & LastUses;

/** When the key last needed its outside key and had it, and when and why it was last refused. */
async function lastUsesOf(deps: CliDeps, { name }: AttachedKey): Promise<LastUses> {
  const key = await readStoredKey(deps, name, 'all');
  const state = await outsideStateOf(deps, key, outsideNames(deps, key));
  return defined({ last_success_at: state?.last_success_at, last_error: state?.last_error });
}

/** A key that stays as it is, and why. */
interface FailedKey {
  readonly name: string;
  readonly code: string;
  readonly detail?: string;
}

/** @throws CliFailure when keys have failed, after all others. The fault of a single one, if it is named. */
async function rewrap(
  environment: Environment,
  { name, all }: { readonly name: string | undefined; readonly all: string | undefined },
  options: JsonOption,
): Promise<void> {
  if ((name === undefined) === (all === undefined))
    throw new UsageError('name one key, or an outside key by --all');
  const failed: FailedKey[] = [];
  const keys = await withKeys(environment, async (deps) => {
    const chosen = (await statusOf(deps, name)).filter(
      ({ outside }) => all === undefined || outside?.key === all,
    );
    using progress = createProgress('{bar} {value}/{total} versions, {eta_formatted} left');
    progress.start(chosen.reduce((sum, { other_versions: others }) => sum + others.length, 0));
    let versions = 0;
    const onDone = (count: number) => {
      versions += count;
      progress.update(versions);
    };
    const done: AttachedKey[] = [];
    for (const key of chosen) {
      try {
        done.push(await rewrapAll(deps, key, onDone));
      } catch (error) {
        if (all === undefined || !isOfKey(error)) throw error;
        failed.push({ name: key.name, code: error.code, ...defined({ detail: error.detail }) });
      }
    }
    return done;
  });
  print(options, all === undefined ? { keys } : { keys, failed }, () => keys.flatMap(linesOf));
  if (failed.length > 0) throw new CliFailure(failureOf(failed));
}

/** Whether another key may work. */
function isOfKey(error: unknown): error is AppError {
  return hasCode(error, ...OUTSIDE_FAULTS, 'key_damaged', 'key_destroyed', 'key_not_found');
}

function failureOf(failed: readonly FailedKey[]): string {
  const reasons = failed.map(
    ({ name, code, detail }) => `${name} (${detail === undefined ? code : `${code}: ${detail}`})`,
  );
  return `${counted(failed.length, 'key')} failed: ${reasons.join(', ')}; run the command again`;
}

/** Its versions in groups: each is a change by itself, after which the command may be interrupted. */
async function rewrapAll(
  deps: CliDeps,
  key: AttachedKey,
  onDone: (versions: number) => void,
): Promise<AttachedKey> {
  let present = key;
  while (present.other_versions.length > 0) {
    const next = await rewrapVersions(deps, { name: key.name }, CLI_CALLER);
    onDone(present.other_versions.length - next.other_versions.length);
    present = next;
  }
  return present;
}

/** Keys that are attached, or have a version that still needs an outside key. */
async function statusOf(deps: CliDeps, only: string | undefined): Promise<AttachedKey[]> {
  if (only !== undefined) return [await protectionOf(deps, only)];
  const keys: AttachedKey[] = [];
  for await (const { name, record } of allKeys(deps)) {
    if (record === undefined || record.state === 'destroyed') continue;
    const key = await protectionOf(deps, name);
    if (key.outside !== undefined || key.other_versions.length > 0) keys.push(key);
  }
  return keys;
}

function linesOf(key: ShownKey): string[] {
  const { name, version, outside, other_versions: others, kek_ids: kekIds } = key;
  const { last_success_at: success = 'never', last_error: error } = key;
  const state =
    outside === undefined ? 'not attached' : `attached to ${outside.key}, leases of ${outside.lease_ttl_s} s`;
  const lines = [rowLine(name, `version ${version}`, state)];
  if (error !== undefined) lines.push(`  last error: ${error.code} at ${error.at}; last success: ${success}`);
  if (others.length > 0)
    lines.push(
      `  ${counted(others.length, 'version')} protected otherwise: ${others.join(', ')}; run "bunkms outside rewrap ${name}"`,
    );
  if (outside !== undefined)
    lines.push(
      `  copies from before open with the KEKs ${kekIds.join(', ')}: rotate the KEK and retire them`,
    );
  return lines;
}
