import { randomUUID } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import type { AddCommands } from '@bundoc/shared/cli/command';
import { counted } from '@bundoc/shared/cli/counted';
import { CommandError } from '@bundoc/shared/cli/errors';
import { type JsonOption, print } from '@bundoc/shared/cli/print';
import { collectionNameSchema, projectIdSchema } from '@bundoc/shared/contract/documents';
import type { Environment } from '@bundoc/shared/process/config';
import { z } from 'zod';
import { ConnectionLost, type ImportProgress, importDocuments } from '../operations/import-documents.ts';
import { InvalidLine, linesOf } from '../operations/ndjson.ts';
import { ResumeFile } from '../operations/resume-file.ts';
import {
  collectionName,
  onProject,
  type ServiceOptions,
  serviceClient,
  stopSignal,
} from './service-client.ts';
import { createTransferBar } from './transfer-bar.ts';

const BATCHES_AT_ONCE = 4;
const SAVE_EVERY_MS = 1_000;

const stateSchema = z.strictObject({
  format: z.literal(1),
  project: projectIdSchema,
  collection: collectionNameSchema.nullable(),
  run: z.uuid(),
  end: z.int().nonnegative(),
  lines: z.int().nonnegative(),
  documents: z.int().nonnegative(),
  from: collectionNameSchema.optional(),
});

/**
 * `bundoc import`: imports NDJSON documents from a file, or from standard input for `-`, into a project of a
 * running service.
 */
export const addImportCommand: AddCommands = (program, environment) => {
  onProject(
    program,
    'import',
    'writes the documents of an NDJSON file into a project; an interrupted run continues',
  )
    .argument('<file>', '- for standard input')
    .option(
      '--collection <name>',
      'write every line into it; by default each goes into its _collection',
      collectionName,
    )
    .option(
      '--state <file>',
      'where to keep how far it is; <file>.import-state by default, none for standard input',
    )
    .action((project, file, options) => importFile(environment, project, file, options));
};

async function importFile(
  environment: Environment,
  project: string,
  path: string,
  options: ServiceOptions & JsonOption & { readonly collection?: string; readonly state?: string },
): Promise<void> {
  const { collection } = options;
  const bundoc = await serviceClient(environment, options);
  const signal = stopSignal();
  const isFile = path !== '-';
  // Runs before the stream opens: an error of a stream without a reader would end the process.
  const bytes = isFile ? await fileSize(path) : undefined;
  const statePath = options.state ?? (isFile ? `${path}.import-state` : undefined);
  const resume = statePath === undefined ? undefined : new ResumeFile(statePath, stateSchema);
  const earlier = await resume?.read();
  if (earlier !== undefined && (earlier.project !== project || earlier.collection !== (collection ?? null)))
    throw new CommandError(
      `${statePath} is of another import, ${describeImport(earlier)}: finish that one, or remove the file to start over`,
    );
  const run = earlier?.run ?? randomUUID();
  const done: ImportProgress = earlier ?? { end: 0, lines: 0, documents: 0 };
  const source = isFile ? createReadStream(path, { start: done.end }) : skipBytes(process.stdin, done.end);

  using bar = createTransferBar(bytes);
  let savedMs = performance.now();
  const save = async (progress: ImportProgress) =>
    resume?.write({ format: 1, project, collection: collection ?? null, run, ...progress });
  let latest = done;
  // Before anything is sent: a run that resumes this one must have its id.
  await save(done);
  try {
    latest = await importDocuments(bundoc, linesOf(source, { number: done.lines, end: done.end }), done, {
      project,
      run,
      collection,
      batchesAtOnce: BATCHES_AT_ONCE,
      signal,
      save,
      onDone: async (progress) => {
        latest = progress;
        bar.update(progress.end, progress.documents);
        // A lost save is harmless: the batches are sent again under the same idempotency keys.
        if (performance.now() - savedMs < SAVE_EVERY_MS) return;
        savedMs = performance.now();
        await save(progress);
      },
    });
  } catch (error) {
    // There is nothing to resume before the first batch.
    if (latest.end > 0) await save(latest);
    else await resume?.remove();
    throw withProgress(error, latest, resume !== undefined);
  }
  await resume?.remove();
  bar[Symbol.dispose]();
  const { documents, lines } = latest;
  print(options, { project, documents, lines }, () => [
    `${counted(documents, 'document')} written to ${project}`,
  ]);
}

/** Adds to an error with a line how much is written, and what to do. */
export function withProgress(error: unknown, { documents }: ImportProgress, isResumable: boolean): unknown {
  const isLost = error instanceof ConnectionLost;
  if (!isLost && !(error instanceof InvalidLine)) return error;
  const written = `${counted(documents, 'document')} before it ${documents === 1 ? 'is' : 'are'} written`;
  const remedy = isLost && isResumable ? '; run it again' : '';
  return new CommandError(`${error.message}; ${written}${remedy}`, { cause: error.cause });
}

/** Describes an import by its state: the target and the progress. */
function describeImport({ project, collection, lines }: z.infer<typeof stateSchema>): string {
  const into = collection === null ? project : `collection ${collection} of ${project}`;
  return `into ${into}, with ${counted(lines, 'line')} done`;
}

/** @throws CommandError unless there is a file. */
async function fileSize(path: string): Promise<number> {
  const stats = await stat(path).catch(() => undefined);
  if (stats === undefined) throw new CommandError(`there is no file at ${path}`);
  if (stats.isDirectory()) throw new CommandError(`${path} is a folder`);
  return stats.size;
}

/** Yields a source without its first bytes. */
async function* skipBytes(source: AsyncIterable<Buffer>, bytes: number): AsyncGenerator<Buffer, void, void> {
  let left = bytes;
  for await (const chunk of source) {
    if (chunk.length > left) yield chunk.subarray(left);
    left = Math.max(0, left - chunk.length);
  }
}
