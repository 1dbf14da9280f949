import {
  keyNameSchema,
  keyVersionParamSchema,
  PENDING_DAYS,
  ROTATE_AFTER_DAYS_MAX,
} from '@bundoc/shared/contract/keys';
import { storageIdSchema } from '@bundoc/shared/contract/storages';
import type { Environment } from '@bundoc/shared/runtime/config';
import type { Command } from 'commander';
import {
  type ChangeOptions,
  change,
  claim,
  create,
  destroy,
  type JsonOption,
  list,
  type PlainChange,
  scheduleDeletion,
  set,
  show,
  takeOver,
} from './key.ts';
import { parserOf, wholeNumber } from './option-parsers.ts';
import { type ReviewOptions, review } from './review.ts';

const PLAIN: Record<PlainChange, string> = {
  rotate: 'mints the next version of a key and makes it the current one',
  enable: 'lets a disabled key be used again',
  disable: 'ends the use of a key until it is enabled again',
  restore: 'takes back the deletion of a key; it is disabled then',
};

/** `bunkms key …`: the life cycle of keys. No command shows key material. */
export function registerKeyCommands(program: Command, environment: Environment): void {
  const key = program.command('key').description('data encryption keys; shows none of their material');
  const command = (name: string, description: string) =>
    key
      .command(name)
      .description(description)
      .argument('<name>', 'the key', parserOf(keyNameSchema))
      .option('--json', 'print JSON');

  command('create', 'makes a key')
    .option('--no-exportable', 'never let the raw key leave the service')
    .option('--rotate-after-days <days>', 'rotate automatically', wholeNumber(1, ROTATE_AFTER_DAYS_MAX))
    .action((name: string, options: Parameters<typeof create>[2]) => create(environment, name, options));
  for (const [which, description] of Object.entries(PLAIN) as [PlainChange, string][]) {
    const plain = command(which, description).action((name: string, options: ChangeOptions) =>
      change(environment, which, name, options),
    );
    if (which === 'rotate') plain.option('--accept-loss', 'give up the current version if it does not open');
  }
  command('claim', 'makes a storage the holder of a key without a holder')
    .requiredOption('--storage <id>', 'the storage, as Bundoc shows it', parserOf(storageIdSchema))
    .action((name: string, options: Parameters<typeof claim>[2]) => claim(environment, name, options));
  command('take-over', 'makes a storage the holder of a key, whatever its holder')
    .requiredOption('--storage <id>', 'the storage, as Bundoc shows it', parserOf(storageIdSchema))
    .option('--force', 'do not wait for the leases of the former holder')
    .action((name: string, options: Parameters<typeof takeOver>[2]) => takeOver(environment, name, options));
  command('set', 'changes the policies of a key')
    .option('--no-exportable', 'never let the raw key leave the service again; cannot be undone')
    .option('--rotate-after-days <days>', 'rotate automatically, or "never"', daysOrNever)
    .action((name: string, options: Parameters<typeof set>[2]) => set(environment, name, options));
  command('delete', 'schedules the destruction of a key')
    .option(
      '--pending-days <days>',
      'how long it can be restored',
      wholeNumber(PENDING_DAYS.min, PENDING_DAYS.max),
      PENDING_DAYS.default,
    )
    .action((name: string, options: JsonOption & { pendingDays: number }) =>
      scheduleDeletion(environment, name, options),
    );
  command('destroy', 'destroys a key at once and permanently; its name is never used again')
    .requiredOption('--confirm <name>', 'the name again')
    .action((name: string, options: JsonOption & { confirm: string }) => destroy(environment, name, options));
  key
    .command('destroy-version')
    .description('permanently destroys one older version of a key')
    .argument('<name>', 'the key', parserOf(keyNameSchema))
    .argument('<version>', 'its number', parserOf(keyVersionParamSchema))
    .requiredOption('--confirm <name>', 'the name again')
    .option('--json', 'print JSON')
    .action((name: string, version: number, options: JsonOption & { confirm: string }) =>
      destroy(environment, name, { ...options, version }),
    );
  command('show', 'the key and its versions').action((name: string, options: JsonOption) =>
    show(environment, name, options),
  );
  key
    .command('review')
    .description(
      'lists the keys that a restore or a recovery disabled because their later state is unknown, and enables those you choose',
    )
    .option('--enable <names>', 'enable these keys; may be repeated', collectKeys, [])
    .option('--enable-all', 'enable all of them, except those that were disabled or about to be deleted')
    .option('--json', 'print JSON')
    .action((options: ReviewOptions) => review(environment, options));
  key
    .command('list')
    .description('all keys, by name')
    .option('--json', 'print JSON')
    .action((options: JsonOption) => list(environment, options));
}

function collectKeys(text: string, earlier: readonly string[]): string[] {
  return [...earlier, ...text.split(',').map(parserOf(keyNameSchema))];
}

function daysOrNever(text: string): number | 'never' {
  return text === 'never' ? text : wholeNumber(1, ROTATE_AFTER_DAYS_MAX)(text);
}
