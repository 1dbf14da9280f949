import { type Document, JsonText, withoutMetadata } from '@bundoc/client/document';
import type { OrderBy } from '@bundoc/client/query';
import { counted } from '@bundoc/shared/cli/counted';
import type { Environment } from '@bundoc/shared/runtime/config';
import type { DataOptions, DocumentPlace } from './documents.ts';
import { CommandError } from './errors.ts';
import { parseCollectionName, parseProjectId } from './names.ts';
import { onOneLine, rowWriter, write } from './output.ts';
import { readText } from './read-text.ts';
import { serviceClient, stopSignal } from './service-client.ts';

export interface QueryCommandOptions extends DataOptions {
  readonly where?: string;
  readonly order: readonly OrderBy[];
  readonly fields: readonly string[];
  readonly limit?: number;
  readonly count?: true;
  readonly explain?: true;
}

const PAGE = 1_000;

/**
 * Prints the documents that match a condition, or their number.
 *
 * @returns true when every document was readable.
 */
export async function queryCommand(
  environment: Environment,
  place: Pick<DocumentPlace, 'project' | 'collection'>,
  options: QueryCommandOptions,
): Promise<boolean> {
  const where = await readCondition(options.where);
  const bundoc = await serviceClient(environment, options);
  const collection = bundoc
    .project(parseProjectId(place.project))
    .collection(parseCollectionName(place.collection));
  const signal = stopSignal();
  const unreadable: string[] = [];
  if (options.count) {
    const count = await collection.count(where, {
      signal,
      onUnreadable: (ids) => unreadable.push(...ids),
      ...(options.explain ? { onExplained: explain } : {}),
    });
    await write(options.json ? `${JSON.stringify({ count })}\n` : `${count}\n`);
    return isWhole(unreadable);
  }
  const fields = options.fields.length === 0 ? undefined : options.fields;
  const orderBy = options.order.length === 0 ? undefined : options.order;
  const print = rowWriter<Document<Record<string, unknown>>>(
    {
      columns: [
        { head: 'id', cell: ({ id }) => id },
        { head: 'updated', cell: ({ value }) => value._updated },
        { head: 'document', cell: ({ text }) => onOneLine(withoutMetadata(text)) },
      ],
      json: ({ text }) => onOneLine(text),
    },
    options,
  );
  let left = options.limit ?? Number.POSITIVE_INFINITY;
  let cursor: string | undefined;
  let asksWhy = options.explain === true;
  do {
    const page = await collection.queryPage(
      { where, fields, orderBy, cursor, limit: Math.min(PAGE, left), explain: asksWhy || undefined },
      { signal },
    );
    if (page.explain !== undefined) explain(page.explain);
    asksWhy = false;
    await print(page.documents);
    unreadable.push(...page.unreadable);
    left -= page.documents.length;
    cursor = page.nextCursor;
  } while (cursor !== undefined && left > 0);
  if (cursor !== undefined)
    console.error(`bundoc: there are more than ${counted(options.limit ?? 0, 'document')}: raise --limit`);
  return isWhole(unreadable);
}

function explain(how: object): void {
  console.error(JSON.stringify(how));
}

function isWhole(unreadable: readonly string[]): boolean {
  for (const id of unreadable) console.error(`does not open: ${id}`);
  return unreadable.length === 0;
}

/**
 * @param given the condition; `-` for standard input, `@file` for a file.
 *
 * @throws CommandError when it is not JSON.
 */
async function readCondition(given: string | undefined): Promise<JsonText | undefined> {
  if (given === undefined) return undefined;
  const text =
    given === '-' ? await readText('-') : given.startsWith('@') ? await readText(given.slice(1)) : given;
  try {
    JSON.parse(text);
  } catch (error) {
    throw new CommandError(`--where is not JSON: ${(error as Error).message}`, { cause: error });
  }
  return new JsonText(text);
}
