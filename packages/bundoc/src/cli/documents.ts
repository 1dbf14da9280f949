import { JsonText, type Metadata, memberTexts, withoutMetadata } from '@bundoc/client/document';
import { hasCode } from '@bundoc/client/error';
import type { AddCommands, Command } from '@bundoc/shared/cli/command';
import { CommandError } from '@bundoc/shared/cli/errors';
import type { JsonOption } from '@bundoc/shared/cli/print';
import { readText } from '@bundoc/shared/cli/read-text';
import { defined } from '@bundoc/shared/contract/defined';
import { rowWriter, writeText } from './output.ts';
import { collectionName, onProject, openProject, stopSignal } from './service-client.ts';

const FILE = 'a file; - for standard input';
const IF_MATCH = 'only if this is its revision';

/** `bundoc get|put|create|patch|update|delete`: reads or writes one document. */
export const addDocumentCommands: AddCommands = (program, environment) => {
  onDocument(program, 'get', 'prints a document byte for byte; exit code 1 if it does not exist')
    .option('--content', 'without the metadata: as it was written')
    .action(async (projectId, name, id, options) => {
      const project = await openProject(environment, options, projectId);
      const signal = stopSignal();
      const document = await project.collection(name).get(id, { signal });
      if (document === undefined)
        throw (await project.info({ signal })) === undefined ? noProject(projectId) : noDocument(id, name);
      await writeText(options.content ? withoutMetadata(document.text) : document.text);
    });
  onDocument(program, 'put', 'makes or replaces a document by the text of a file, to the byte')
    .argument('[file]', FILE, '-')
    .option('--if-match <revision>', IF_MATCH)
    .option('--if-none-match', 'only if it does not exist')
    .action(async (project, name, id, file, options) => {
      const collection = (await openProject(environment, options, project)).collection(name);
      const { ifMatch, ifNoneMatch } = options;
      const conditions = { ...defined({ ifMatch }), ...(ifNoneMatch ? { ifNoneMatch: '*' as const } : {}) };
      const content = new JsonText(await readText(file));
      const write = { ...conditions, signal: stopSignal() };
      await printMetadata(await collection.put(id, content, write), options);
    });
  onProject(program, 'create', 'makes a document under its _id, or under a new one')
    .argument('<collection>', 'its name', collectionName)
    .argument('[file]', FILE, '-')
    .action(async (project, name, file, options) => {
      const collection = (await openProject(environment, options, project)).collection(name);
      const content = new JsonText(await readText(file));
      await printMetadata(await collection.create(content, { signal: stopSignal() }), options);
    });
  onChange(
    program,
    'patch',
    'changes parts of a document: an object is a merge patch, an array a JSON Patch',
  ).action(async (project, name, id, file, options) => {
    const collection = (await openProject(environment, options, project)).collection(name);
    const patch = new JsonText(await readText(file));
    const changed = await collection.patch(id, patch, changeOptions(options));
    warnOfOperators(patch.text);
    await printMetadata(changed, options);
  });
  onChange(
    program,
    'update',
    'changes parts of a document by operators: {"$inc":{"stars":1}}, with exact decimals',
  ).action(async (project, name, id, file, options) => {
    const collection = (await openProject(environment, options, project)).collection(name);
    const update = new JsonText(await readText(file));
    await printMetadata(await collection.update(id, update, changeOptions(options)), options);
  });
  onDocument(program, 'delete', 'deletes a document; exit code 1 when there is none')
    .option('--if-match <revision>', IF_MATCH)
    .action(async (project, name, id, options) => {
      const collection = (await openProject(environment, options, project)).collection(name);
      try {
        await collection.delete(id, { ...defined({ ifMatch: options.ifMatch }), signal: stopSignal() });
      } catch (error) {
        if (hasCode(error, 'project_not_found')) throw noProject(project);
        throw hasCode(error, 'document_not_found') ? noDocument(id, name) : error;
      }
    });
};

function onDocument(program: Command, name: string, description: string) {
  return onProject(program, name, description)
    .argument('<collection>', 'its name', collectionName)
    .argument('<id>', 'its id');
}

function onChange(program: Command, name: string, description: string) {
  return onDocument(program, name, description)
    .argument('[file]', FILE, '-')
    .option('--if-match <revision>', IF_MATCH);
}

function changeOptions({ ifMatch }: { readonly ifMatch?: string | undefined }) {
  return { ...defined({ ifMatch }), signal: stopSignal() };
}

/**
 * A document may have such members. In MongoDB they mean something else.
 *
 * @param patch as the service took it.
 */
function warnOfOperators(patch: string): void {
  const names = patch.trimStart().startsWith('{') ? [...memberTexts(patch).keys()] : [];
  const operator = names.find((name) => /^\$[a-z]/i.test(name));
  if (operator !== undefined)
    console.error(
      `bundoc: ${operator} is no operator here: the document now has a member of that name; bundoc update applies operators`,
    );
}

function noDocument(id: string, collection: string): CommandError {
  return new CommandError(`there is no document ${JSON.stringify(id)} in ${collection}`, { exitCode: 1 });
}

function noProject(id: string): CommandError {
  return new CommandError(`there is no project ${id} at this service`, { exitCode: 1 });
}

/** Prints the metadata that a write returned. */
async function printMetadata(metadata: Metadata, options: JsonOption): Promise<void> {
  const write = rowWriter<Metadata>(
    {
      columns: [
        { head: 'id', cell: ({ _id: id }) => id },
        { head: 'revision', cell: ({ _rev: rev }) => rev },
        { head: 'updated', cell: ({ _updated: updated }) => updated },
      ],
      json: (row) => JSON.stringify(row),
    },
    options,
  );
  await write([metadata]);
}
