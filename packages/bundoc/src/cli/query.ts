import type { Collection } from '@bundoc/client/collection';
import { type Document, JsonText, memberTexts, withoutMetadata } from '@bundoc/client/document';
import { type Explanation, type OrderBy, sumOfExplanations } from '@bundoc/client/query';
import { type AddCommands, collect, each, Option, parserFor, wholeNumber } from '@bundoc/shared/cli/command';
import { counted } from '@bundoc/shared/cli/counted';
import { CommandError, faultFound } from '@bundoc/shared/cli/errors';
import { readText } from '@bundoc/shared/cli/read-text';
import type { Column } from '@bundoc/shared/cli/table';
import { faultOf } from '@bundoc/shared/json/place';
import { type Listing, onOneLine, rowWriter, write } from './output.ts';
import { collectionName, onProject, openProject, stopSignal } from './service-client.ts';

const PAGE = 1_000;

const asOf = wholeNumber(0, Number.MAX_SAFE_INTEGER);

const orderBy = parserFor('a field, or field:desc', (text): OrderBy | undefined => {
  const [, field, direction] = /^([^:-][^:]*?)(?::(asc|desc))?$/.exec(text) ?? [];
  if (field === undefined) return undefined;
  return { field, ...(direction === undefined ? {} : { direction: direction as 'asc' | 'desc' }) };
});

/** `bundoc query`: prints the documents that match a condition, or their number. */
export const addQueryCommand: AddCommands = (program, environment) => {
  onProject(
    program,
    'query',
    'prints the documents that a condition holds for; all of a collection without one',
  )
    .argument('<collection>', 'its name', collectionName)
    .option('--where <json>', 'the condition (docs/query.md); - for standard input, @file for a file')
    .option('--order <field[:desc]>', 'may be repeated', each(orderBy), [])
    .option('--fields <paths>', 'the only members to print, separated by commas', collect, [])
    .option(
      '--limit <count>',
      'how many documents at most; all by default',
      wholeNumber(1, Number.MAX_SAFE_INTEGER),
    )
    .addOption(new Option('--count', 'print how many there are').conflicts(['order', 'fields', 'limit']))
    .option('--as-of <position>', 'show the state of an earlier answer, within a minute', asOf)
    .option('--explain', 'say on standard error how the answer was found')
    .allowExcessArguments()
    .action(async (project, name, options, { args }) => {
      if (args.length > 2) throw new CommandError('too many arguments: the condition goes into --where');
      const where = await readCondition(options.where);
      const collection = (await openProject(environment, options, project)).collection(name);
      const signal = stopSignal();
      const unreadable: string[] = [];
      let shown: number | undefined;
      if (options.count) {
        const count = await collection.count(where, {
          signal,
          onUnreadable: (ids) => unreadable.push(...ids),
          asOf: options.asOf,
          onAsOf: (position) => {
            shown = position;
          },
          ...(options.explain ? { onExplained: explain } : {}),
        });
        await write(options.json ? `${JSON.stringify({ count, as_of: shown })}\n` : `${count}\n`);
        if (count === 0) await warnOfNone(collection, project);
        return requireWhole(unreadable);
      }
      const query = {
        where,
        fields: orNone(options.fields),
        orderBy: orNone(options.order),
        asOf: options.asOf,
      };
      const print = rowWriter(listingOf(options.fields), options);
      let left = options.limit ?? Number.POSITIVE_INFINITY;
      let cursor: string | undefined;
      let hasPrinted = false;
      let explained: Explanation | undefined;
      do {
        const page = await collection.queryPage(
          { ...query, cursor, pageSize: Math.min(PAGE, left), explain: options.explain },
          { signal },
        );
        if (page.explain !== undefined) explained = sumOfExplanations(explained, page.explain);
        shown = page.asOf;
        await print(page.documents);
        hasPrinted ||= page.documents.length + page.unreadable.length > 0;
        unreadable.push(...page.unreadable);
        left -= page.documents.length;
        cursor = page.nextCursor;
      } while (cursor !== undefined && left > 0);
      if (explained !== undefined) explain({ ...explained, as_of: shown });
      if (!hasPrinted) await warnOfNone(collection, project);
      if (cursor !== undefined)
        console.error(
          `bundoc: there are more than ${counted(options.limit ?? 0, 'document')}: raise --limit`,
        );
      requireWhole(unreadable);
    });
};

type Row = Document<Record<string, unknown>>;
const DOCUMENTS = {
  columns: [
    { head: 'id', cell: ({ id }: Row) => id },
    { head: 'updated', cell: ({ value }: Row) => value._updated },
    { head: 'document', cell: ({ text }: Row) => onOneLine(withoutMetadata(text)) },
  ],
  json: ({ text }: Row) => onOneLine(text),
} as const;

/** A column for each of the selected fields; without any, the whole document in one. */
function listingOf(fields: readonly string[]): Listing<Row> {
  if (fields.length === 0) return DOCUMENTS;
  const [id] = DOCUMENTS.columns;
  const columns = fields.map(
    (path): Column<Row> => ({ head: path, cell: ({ text }) => textAt(text, path.split('.')) }),
  );
  return { ...DOCUMENTS, columns: [id, ...columns] };
}

/** What a JSON object has at a path: exact numbers, strings without quotes, nothing when it is absent. */
export function textAt(text: string, path: readonly string[]): string {
  let found: string | undefined = text;
  for (const name of path)
    found = found?.trimStart().startsWith('{') ? memberTexts(found).get(name) : undefined;
  if (found === undefined) return '';
  return found.startsWith('"') ? String(JSON.parse(found)) : onOneLine(found);
}

/** The name of a collection without documents may be misspelt, which is no error of a query. */
export async function warnOfNone(collection: Collection, project: string): Promise<void> {
  if ((await collection.info()) === undefined)
    console.error(
      `bundoc: there is no collection ${collection.name} in ${project}: "bundoc collections ${project}" lists those that are there`,
    );
}

export function orNone<T>(list: readonly T[]): readonly T[] | undefined {
  return list.length === 0 ? undefined : list;
}

function explain(how: object): void {
  console.error(JSON.stringify(how));
}

/** @throws CommandError when documents do not open, after naming them. */
export function requireWhole(unreadable: readonly string[]): void {
  for (const id of unreadable) console.error(`does not open: ${id}`);
  if (unreadable.length > 0) throw faultFound();
}

/**
 * @param given the condition; `-` for standard input, `@file` for a file.
 *
 * @throws CommandError when it is not JSON.
 */
export async function readCondition(
  given: string | undefined,
  option = '--where',
): Promise<JsonText | undefined> {
  if (given === undefined) return undefined;
  const text =
    given === '-' ? await readText('-') : given.startsWith('@') ? await readText(given.slice(1)) : given;
  try {
    JSON.parse(text);
  } catch {
    throw new CommandError(`${option} is not JSON, such as {"done":true}: ${faultOf(text)}`);
  }
  return new JsonText(text);
}
