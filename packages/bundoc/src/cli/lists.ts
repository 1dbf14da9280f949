import type { CollectionSummary } from '@bundoc/client/definition';
import type { Environment } from '@bundoc/shared/runtime/config';
import type { DataOptions } from './documents.ts';
import { CommandError } from './errors.ts';
import { parseCollectionName, parseProjectId } from './names.ts';
import { rowWriter, write } from './output.ts';
import { serviceClient, stopSignal } from './service-client.ts';

/** Prints the projects that the token may access, or the totals of one of them. */
export async function projectsCommand(
  environment: Environment,
  named: string | undefined,
  options: DataOptions,
): Promise<void> {
  const bundoc = await serviceClient(environment, options);
  const signal = stopSignal();
  if (named !== undefined) {
    const id = parseProjectId(named);
    const info = await bundoc.project(id).info({ signal });
    if (info === undefined) throw new CommandError(`there is no project ${id}`);
    return writeFacts(info, options);
  }
  const print = rowWriter<string>(
    { columns: [{ head: 'project', cell: (id) => id }], json: (project) => JSON.stringify({ project }) },
    options,
  );
  let cursor: string | undefined;
  do {
    const page = await bundoc.projectsPage({ cursor, signal });
    await print(page.projects);
    cursor = page.nextCursor;
  } while (cursor !== undefined);
}

/** Prints the collections of a project, or the definition of one of them. */
export async function collectionsCommand(
  environment: Environment,
  place: { readonly project: string; readonly collection: string | undefined },
  options: DataOptions,
): Promise<void> {
  const project = (await serviceClient(environment, options)).project(parseProjectId(place.project));
  const signal = stopSignal();
  if (place.collection !== undefined) {
    const name = parseCollectionName(place.collection);
    const info = await project.collection(name).info({ signal });
    if (info === undefined) throw new CommandError(`there is no collection ${name} in ${project.id}`);
    return writeFacts(info, options);
  }
  const print = rowWriter<CollectionSummary>(
    {
      columns: [
        { head: 'collection', cell: ({ name }) => name },
        { head: 'documents', cell: ({ documents }) => String(documents), align: 'right' },
        { head: 'bytes', cell: ({ bytes }) => String(bytes), align: 'right' },
        { head: 'defined', cell: ({ defined }) => (defined ? 'yes' : 'no') },
      ],
      json: (row) => JSON.stringify(row),
    },
    options,
  );
  await print(await project.collections({ signal }));
}

/** Prints one object: a line for each fact on a terminal, otherwise JSON. */
async function writeFacts(facts: object, options: DataOptions): Promise<void> {
  const print = rowWriter<readonly [string, unknown]>(
    {
      columns: [
        { head: 'what', cell: ([name]) => name },
        { head: 'value', cell: ([, value]) => (typeof value === 'string' ? value : JSON.stringify(value)) },
      ],
      json: () => '',
    },
    {},
  );
  if (options.json || process.stdout.isTTY !== true) await write(`${JSON.stringify(facts)}\n`);
  else await print(Object.entries(facts).filter(([, value]) => value !== undefined));
}
