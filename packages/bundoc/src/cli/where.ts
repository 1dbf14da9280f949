import { type Collection, newKey } from '@bundoc/client/collection';
import { JsonText } from '@bundoc/client/document';
import { hasCode } from '@bundoc/client/error';
import type { WhereOptions, WrittenWhere } from '@bundoc/client/where';
import { type AddCommands, type Command, wholeNumber } from '@bundoc/shared/cli/command';
import { counted } from '@bundoc/shared/cli/counted';
import { CommandError } from '@bundoc/shared/cli/errors';
import { type JsonOption, print } from '@bundoc/shared/cli/print';
import { createProgress } from '@bundoc/shared/cli/progress';
import { readText } from '@bundoc/shared/cli/read-text';
import { defined } from '@bundoc/shared/contract/defined';
import { readCondition, requireWhole, warnOfNone } from './query.ts';
import { collectionName, onProject, openProject, stopSignal } from './service-client.ts';

/** `bundoc update-where|delete-where`: changes or deletes the documents that a condition holds for. */
export const addWhereCommands: AddCommands = (program, environment) => {
  onWhere(program, 'update-where', 'changes the documents that a condition holds for, by operators')
    .argument('[file]', 'the update; - for standard input', '-')
    .action(async (project, name, file, options) => {
      const where = await conditionOf(name, options);
      if (file === '-' && options.where === '-')
        throw new CommandError('standard input is the update: give the condition as text, or by @file');
      const update = new JsonText(await readText(file));
      const collection = (await openProject(environment, options, project)).collection(name);
      await run(collection, project, where, options, (write) => collection.updateWhere(where, update, write));
    });
  onWhere(program, 'delete-where', 'deletes the documents that a condition holds for').action(
    async (project, name, options) => {
      const where = await conditionOf(name, options);
      const collection = (await openProject(environment, options, project)).collection(name);
      await run(collection, project, where, options, (write) => collection.deleteWhere(where, write));
    },
  );
};

interface Options extends JsonOption {
  readonly where?: string | undefined;
  readonly confirm?: string | undefined;
  readonly dryRun?: true | undefined;
  readonly limit?: number | undefined;
  readonly key?: string | undefined;
}

function onWhere(program: Command, name: string, description: string) {
  return onProject(program, name, description)
    .argument('<collection>', 'its name', collectionName)
    .requiredOption(
      '--where <json>',
      'the condition (docs/query.md); {} means every document; - for standard input, @file for a file',
    )
    .option('--confirm <collection>', 'its name once more; needed unless --dry-run')
    .option('--dry-run', 'only say how many there are, and the first')
    .option('--limit <count>', 'documents of one atomic batch; 500 by default', wholeNumber(1, 500))
    .option('--key <key>', 'that of an interrupted run, to continue it within a day');
}

/** @throws CommandError without a confirmation. */
async function conditionOf(collection: string, options: Options): Promise<JsonText> {
  if (options.dryRun === undefined && options.confirm !== collection)
    throw new CommandError(
      `--confirm must repeat the name ${collection}; or see what it would do by --dry-run`,
    );
  return (await readCondition(options.where)) as JsonText;
}

async function run(
  collection: Collection,
  project: string,
  where: JsonText,
  options: Options,
  write: (options: WhereOptions) => Promise<WrittenWhere>,
): Promise<void> {
  const signal = stopSignal();
  const idempotencyKey = options.key ?? newKey();
  const isDryRun = options.dryRun === true;
  const total = await countOf(collection, where, signal);
  let result: WrittenWhere;
  {
    using bar = createProgress(
      total === undefined ? '{value} documents' : '{bar} {value}/{total} documents, {eta_formatted} left',
    );
    bar.start(Math.max(1, total ?? 1));
    try {
      result = await write({
        dryRun: isDryRun,
        signal,
        idempotencyKey,
        onWritten: (count) => bar.update(count),
        ...defined({ pageSize: options.limit }),
      });
    } catch (error) {
      bar[Symbol.dispose]();
      // Without the key, documents that are changed already would be changed once more.
      if (!isDryRun) console.error(`bundoc: to continue, run it again with --key ${idempotencyKey}`);
      throw error;
    }
  }
  const { matched, written, ids, unreadable } = result;
  print(
    options,
    {
      project,
      collection: collection.name,
      matched,
      written,
      dry_run: isDryRun,
      ...(isDryRun ? { ids } : {}),
    },
    () => [
      `${isDryRun ? 'would write' : 'wrote'} ${counted(written, 'document')} of ${matched} that matched`,
      ...ids,
    ],
  );
  if (matched === 0) await warnOfNone(collection, project);
  requireWhole(unreadable);
}

/** The length of the bar; undefined when counting would read too much. */
async function countOf(
  collection: Collection,
  where: JsonText,
  signal: AbortSignal,
): Promise<number | undefined> {
  try {
    return await collection.count(where, { signal, onUnreadable: () => undefined });
  } catch (error) {
    if (hasCode(error, 'query_too_expensive')) return undefined;
    throw error;
  }
}
