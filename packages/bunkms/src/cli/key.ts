import {
  type AddCommands,
  type Command,
  command,
  parsed,
  parserOf,
  wholeNumber,
} from '@bundoc/shared/cli/command';
import { factLines, type JsonOption, print, rowLine } from '@bundoc/shared/cli/print';
import { type Column, Table } from '@bundoc/shared/cli/table';
import { defined } from '@bundoc/shared/contract/defined';
import {
  createKeySchema,
  type DestroyReceipt,
  type KeyDetail,
  type KeyInfo,
  keyNameSchema,
  keyVersionParamSchema,
  type OutsideState,
  PENDING_DAYS,
  ROTATE_AFTER_DAYS_MAX,
  updateKeySchema,
} from '@bundoc/shared/contract/keys';
import { storageIdSchema } from '@bundoc/shared/contract/storages';
import type { Environment } from '@bundoc/shared/process/config';
import { createKey } from '../keys/create-key.ts';
import { destroyKey, destroyVersion } from '../keys/destroy-key.ts';
import { claimKey, takeOverKey } from '../keys/key-holder.ts';
import { disableKey, enableKey, restoreKey, scheduleDeletion, updateKey } from '../keys/key-lifecycle.ts';
import { listKeys, readKey } from '../keys/read-keys.ts';
import { rotateKey } from '../keys/rotate-key.ts';
import { CLI_CALLER } from '../records/caller.ts';
import { UsageError } from './errors.ts';
import { type CliDeps, pagesOf, withKeys } from './open-kms.ts';
import { addReviewCommand } from './review.ts';

const PAGE = 500;
const days = wholeNumber(1, ROTATE_AFTER_DAYS_MAX);
const daysOrNever = (text: string) => (text === 'never' ? text : days(text));
const storageId = parserOf(storageIdSchema);

/** What the commands on a key have in common. */
function keyCommands(program: Command, environment: Environment) {
  const group = program.command('key').description('data encryption keys; shows none of their material');
  return {
    group,
    onKey: (name: string, description: string) =>
      command(group, name, description).argument('<name>', 'the key', parserOf(keyNameSchema)),
    /** Changes a key, and prints it. */
    change: async (options: JsonOption, act: (deps: CliDeps) => Promise<KeyInfo>) => {
      const key = await withKeys(environment, act);
      print(options, key, () => [keyLine(key)]);
    },
    destroy: async (
      options: JsonOption & { readonly confirm: string },
      name: string,
      act: (deps: CliDeps) => Promise<DestroyReceipt>,
    ) => {
      if (options.confirm !== name) throw new UsageError('--confirm must repeat the name of the key');
      const receipt = await withKeys(environment, act);
      print(options, receipt, () => receiptLines(receipt));
    },
  };
}
type KeyCommands = ReturnType<typeof keyCommands>;

/**
 * `bunkms key …`: the life cycle of keys. No command shows key material. A running server uses a changed key
 * from its next request on, and a running Bundoc that held it drops it within a second.
 */
export const addKeyCommands: AddCommands = (program, environment) => {
  const commands = keyCommands(program, environment);
  addChanges(commands);
  addEnds(commands);
  commands.onKey('show', 'the key and its versions').action(async (name, options) => {
    const key = await withKeys(environment, (deps) => readKey(deps, name, CLI_CALLER));
    print(options, key, () => detailLines(key));
  });
  addReviewCommand(commands.group, environment);
  command(commands.group, 'list', 'all keys, by name').action(async (options) => {
    const keys: KeyInfo[] = [];
    const damaged: string[] = [];
    await withKeys(environment, async (deps) => {
      const read = (after?: string) => listKeys(deps, ['*'], { after, limit: PAGE }, CLI_CALLER);
      for await (const page of pagesOf(read)) {
        keys.push(...page.keys);
        damaged.push(...(page.damaged ?? []));
      }
    });
    print(options, { keys, ...(damaged.length === 0 ? {} : { damaged }) }, () => listLines(keys, damaged));
  });
};

function addChanges({ onKey, change }: KeyCommands): void {
  onKey('create', 'makes a key')
    .option('--no-exportable', 'never let the raw key leave the service')
    .option('--rotate-after-days <days>', 'rotate automatically', days)
    .action((name, { exportable, rotateAfterDays: rotate_after_days = null, ...options }) => {
      const wanted = parsed(createKeySchema, { name, type: 'aes-256', exportable, rotate_after_days });
      return change(options, (deps) => createKey(deps, wanted, CLI_CALLER));
    });
  onKey('rotate', 'mints the next version of a key and makes it the current one')
    .option('--accept-loss', 'give up the current version if it does not open')
    .action((name, { acceptLoss = false, ...options }) =>
      change(options, (deps) => rotateKey(deps, { name, acceptLoss }, CLI_CALLER)),
    );
  for (const [which, act, description] of [
    ['enable', enableKey, 'lets a disabled key be used again'],
    ['disable', disableKey, 'ends the use of a key until it is enabled again'],
    ['restore', restoreKey, 'takes back the deletion of a key; it is disabled then'],
  ] as const)
    onKey(which, description).action((name, options) =>
      change(options, (deps) => act(deps, { name }, CLI_CALLER)),
    );
  onKey('claim', 'makes a storage the holder of a key without a holder')
    .requiredOption('--storage <id>', 'the storage, as Bundoc shows it', storageId)
    .action((name, { storage, ...options }) =>
      change(options, (deps) => claimKey(deps, { name, storage }, true, CLI_CALLER)),
    );
  onKey('take-over', 'makes a storage the holder of a key, whatever its holder')
    .requiredOption('--storage <id>', 'the storage, as Bundoc shows it', storageId)
    .option(
      '--force',
      'do not wait for leases: only if the machine of the former holder is gone or stopped for certain',
    )
    .action((name, { storage, force = false, ...options }) =>
      change(options, (deps) => takeOverKey(deps, { name, storage, force }, CLI_CALLER)),
    );
  onKey('set', 'changes the policies of a key')
    .option('--no-exportable', 'never let the raw key leave the service again; cannot be undone')
    .option('--rotate-after-days <days>', 'rotate automatically, or "never"', daysOrNever)
    .action((name, { exportable, rotateAfterDays, ...options }) => {
      const rotate_after_days = rotateAfterDays === 'never' ? null : rotateAfterDays;
      // Without --no-exportable the option is true, which means no change.
      const asked = { exportable: exportable ? undefined : false, rotate_after_days };
      if (rotate_after_days === undefined && exportable)
        throw new UsageError('give --rotate-after-days, --no-exportable, or both');
      const update = parsed(updateKeySchema, defined(asked));
      return change(options, (deps) => updateKey(deps, { name, update }, CLI_CALLER));
    });
}

function addEnds({ onKey, change, destroy }: KeyCommands): void {
  onKey('delete', 'schedules the destruction of a key')
    .option(
      '--pending-days <days>',
      'how long it can be restored',
      wholeNumber(PENDING_DAYS.min, PENDING_DAYS.max),
      PENDING_DAYS.default,
    )
    .action((name, { pendingDays, ...options }) =>
      change(options, (deps) => scheduleDeletion(deps, { name, pendingDays }, CLI_CALLER)),
    );
  onKey('destroy', 'destroys a key at once and permanently; its name is never used again')
    .requiredOption('--confirm <name>', 'the name again')
    .action((name, options) => destroy(options, name, (deps) => destroyKey(deps, { name }, CLI_CALLER)));
  onKey('destroy-version', 'permanently destroys one older version of a key')
    .argument('<version>', 'its number', parserOf(keyVersionParamSchema))
    .requiredOption('--confirm <name>', 'the name again')
    .option('--accept-loss', 'also a version that is damaged or lost')
    .action((name, version, { acceptLoss = false, ...options }) =>
      destroy(options, name, (deps) => destroyVersion(deps, { name, version, acceptLoss }, CLI_CALLER)),
    );
}

const COLUMNS: readonly Column<KeyInfo>[] = [
  { head: 'key', cell: ({ name }) => name },
  { head: 'state', cell: ({ state }) => state },
  { head: 'version', cell: ({ version }) => String(version), align: 'right' },
  { head: 'exportable', cell: ({ exportable }) => (exportable ? 'yes' : 'no') },
  { head: 'created', cell: ({ created_at: createdAt }) => createdAt },
  { head: 'storage', cell: ({ holder }) => holder ?? '-' },
];

/** A table for a person; names alone for a program, which has `--json` for the rest. */
function listLines(keys: readonly KeyInfo[], damaged: readonly string[]): string[] {
  if (process.stdout.isTTY !== true) {
    for (const name of damaged) console.error(rowLine(name, 'damaged'));
    return keys.map(({ name }) => name);
  }
  const table = new Table(COLUMNS, process.stdout.columns);
  return [...table.lines(keys), ...damaged.map((name) => rowLine(name, 'damaged'))];
}

function detailLines(key: KeyDetail): string[] {
  const { versions, damaged_versions: damaged = [], outside, outside_state: state, ...facts } = key;
  const needs = (name: string | undefined) =>
    name === undefined ? 'opens with the KEK alone' : `needs the outside key ${name} as well`;
  return [
    ...Object.entries(facts).map(([fact, value]) => `${fact}: ${value ?? 'never'}`),
    ...(outside === undefined ? [] : [`outside: ${outside.key}, leases of ${outside.lease_ttl_s} s`]),
    ...(state === undefined ? [] : outsideLines(state)),
    ...versions.map(({ version, state: versionState, kcv, created_at: made, outside: name }) => {
      const protection = state === undefined || versionState === 'destroyed' ? [] : [needs(name)];
      return rowLine('version', version, versionState, kcv, made, ...protection);
    }),
    ...damaged.map((version) => rowLine('version', version, 'damaged')),
  ];
}

function outsideLines({
  other_versions: others,
  kek_ids: kekIds,
  last_success_at: success = 'never',
  last_error: error,
}: OutsideState): string[] {
  return [
    `outside last success: ${success}`,
    `outside last error: ${error === undefined ? 'none' : `${error.code} at ${error.at}`}`,
    `outside other versions: ${others.length === 0 ? 'none' : others.join(', ')}`,
    `outside KEKs that open older copies: ${kekIds.join(', ')}`,
  ];
}

function receiptLines({ audit, kek_ids, ...facts }: DestroyReceipt): string[] {
  return factLines({ ...facts, kek_ids: kek_ids.join(' '), audit: `${audit.seq}:${audit.hash}` });
}

function keyLine({ name, state, version, kcv, created_at, holder }: KeyInfo): string {
  return rowLine(name, state, version, kcv, created_at, holder);
}
