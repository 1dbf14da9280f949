import type { ProjectSummary } from '@bundoc/client';
import type { CollectionSummary } from '@bundoc/client/definition';
import type { AddCommands } from '@bundoc/shared/cli/command';
import { counted } from '@bundoc/shared/cli/counted';
import { CommandError } from '@bundoc/shared/cli/errors';
import { type JsonOption, print } from '@bundoc/shared/cli/print';
import { createProgress } from '@bundoc/shared/cli/progress';
import { isTerminal, rowWriter, write } from './output.ts';
import {
  collectionName,
  onProject,
  openProject,
  projectId,
  serviceClient,
  serviceCommand,
  stopSignal,
} from './service-client.ts';

/** `bundoc collections|projects|drop`: lists them, prints the figures of one, or deletes a collection. */
export const addListCommands: AddCommands = (program, environment) => {
  onProject(program, 'collections', 'prints the collections of a project, or how one of them is defined')
    .argument('[collection]', 'its name', collectionName)
    .action(async (id, name, options) => {
      const project = await openProject(environment, options, id);
      const signal = stopSignal();
      if (name === undefined) return rowWriter(COLLECTIONS, options)(await project.collections({ signal }));
      const info = await project.collection(name).info({ signal });
      if (info === undefined) throw new CommandError(`there is no collection ${name} in ${id}`);
      return writeFacts(info, options);
    });
  onProject(program, 'drop', 'deletes all documents of a collection, and its definition; may be repeated')
    .argument('<collection>', 'its name', collectionName)
    .requiredOption('--confirm <collection>', 'its name once more')
    .action(async (id, name, { confirm, ...options }) => {
      if (confirm !== name) throw new CommandError(`--confirm must repeat the name ${name}`);
      const collection = (await openProject(environment, options, id)).collection(name);
      const signal = stopSignal();
      const info = await collection.info({ signal });
      if (info === undefined) throw new CommandError(`there is no collection ${name} in ${id}`);
      using bar = createProgress('{bar} {value}/{total} documents, {eta_formatted} left');
      bar.start(Math.max(1, info.documents));
      const deleted = await collection.drop({ signal, onDeleted: (count) => bar.update(count) });
      bar[Symbol.dispose]();
      print(options, { project: id, collection: name, deleted }, () => [
        `${name} is gone: deleted ${counted(deleted, 'document')}`,
      ]);
    });
  serviceCommand(program, 'projects', 'prints the projects that the token is for, or what one of them holds')
    .argument('[project]', 'its id', projectId)
    .action(async (id, options) => {
      const bundoc = await serviceClient(environment, options);
      const signal = stopSignal();
      if (id !== undefined) {
        const info = await bundoc.project(id).info({ signal });
        if (info === undefined) throw new CommandError(`there is no project ${id}`);
        return writeFacts(info, options);
      }
      const isTable = options.json !== true && isTerminal();
      const printRows = rowWriter(PROJECTS, options);
      let cursor: string | undefined;
      do {
        const { projects, summaries, nextCursor } = await bundoc.projectsPage({
          cursor,
          signal,
          // A reader of names alone needs no figures.
          summary: isTable || options.json === true,
        });
        if (isTable || options.json) await printRows(projects.map((id) => ({ id, ...summaries.get(id) })));
        else await write(projects.map((id) => `${id}\n`).join(''));
        cursor = nextCursor;
      } while (cursor !== undefined);
    });
};

interface ListedProject extends Partial<ProjectSummary> {
  readonly id: string;
}
const figure = (value: number | undefined) => (value === undefined ? '-' : String(value));
/** As in the console. Figures are unknown before the first checkpoint of a project that is not open. */
const PROJECTS = {
  columns: [
    { head: 'project', cell: ({ id }: ListedProject) => id },
    { head: 'documents', cell: ({ documents }: ListedProject) => figure(documents), align: 'right' },
    { head: 'bytes', cell: ({ bytes }: ListedProject) => figure(bytes), align: 'right' },
    { head: 'key', cell: ({ key_version: version }: ListedProject) => figure(version), align: 'right' },
    { head: 'open', cell: ({ open }: ListedProject) => (open === true ? 'yes' : 'no') },
  ],
  json: ({ id, ...summary }: ListedProject) => JSON.stringify({ project: id, ...summary }),
} as const;
const COLLECTIONS = {
  columns: [
    { head: 'collection', cell: ({ name }: CollectionSummary) => name },
    { head: 'documents', cell: ({ documents }: CollectionSummary) => String(documents), align: 'right' },
    { head: 'bytes', cell: ({ bytes }: CollectionSummary) => String(bytes), align: 'right' },
    { head: 'defined', cell: ({ defined }: CollectionSummary) => (defined ? 'yes' : 'no') },
  ],
  json: (row: CollectionSummary) => JSON.stringify(row),
} as const;
const FACTS = {
  columns: [
    { head: 'what', cell: ([name]: readonly [string, unknown]) => name },
    {
      head: 'value',
      cell: ([, value]: readonly [string, unknown]) =>
        typeof value === 'string' ? value : JSON.stringify(value),
    },
  ],
  json: () => '',
};

/** Prints one object: a line for each fact on a terminal, otherwise JSON. */
async function writeFacts(facts: object, options: JsonOption): Promise<void> {
  if (options.json || !isTerminal()) await write(`${JSON.stringify(facts)}\n`);
  else await rowWriter(FACTS, {})(Object.entries(facts).filter(([, value]) => value !== undefined));
}
