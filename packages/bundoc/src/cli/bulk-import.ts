import { randomUUID } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { type AddCommands, Option } from '@bundoc/shared/cli/command';
import { counted } from '@bundoc/shared/cli/counted';
import { CommandError, faultFound } from '@bundoc/shared/cli/errors';
import { type JsonOption, print } from '@bundoc/shared/cli/print';
import { collectionNameSchema, projectIdSchema } from '@bundoc/shared/contract/documents';
import type { Environment } from '@bundoc/shared/process/config';
import { z } from 'zod';
import { couchdb } from '../imports/couchdb.ts';
import { firestore } from '../imports/firestore.ts';
import { type ForeignFormat, type ForeignReport, foreignLines } from '../imports/foreign.ts';
import { mongoexport } from '../imports/mongoexport.ts';
import { textBytes } from '../imports/source-kind.ts';
import { ConnectionLost, type ImportProgress, importDocuments } from '../operations/import-documents.ts';
import { InvalidLine, type Line, linesOf } from '../operations/ndjson.ts';
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

const FORMATS = ['ndjson', 'mongoexport', 'couchdb', 'firestore'] as const;
type Format = (typeof FORMATS)[number];
const FOREIGN: Readonly<Partial<Record<Format, ForeignFormat>>> = { mongoexport, couchdb, firestore };

const stateSchema = z.strictObject({
  format: z.literal(1),
  project: projectIdSchema,
  collection: collectionNameSchema.nullable(),
  run: z.uuid(),
  end: z.int().nonnegative(),
  lines: z.int().nonnegative(),
  documents: z.int().nonnegative(),
  from: collectionNameSchema.optional(),
  as: z.enum(FORMATS).default('ndjson'),
});

/**
 * `bundoc import`: imports NDJSON documents, or those of another system, from a file, or from standard input
 * for `-`, into a project of a running service.
 */
export const addImportCommand: AddCommands = (program, environment) => {
  onProject(program, 'import', 'writes the documents of a file into a project; an interrupted run continues')
    .argument('<file>', '- for standard input')
    .addOption(
      new Option('--format <format>', 'NDJSON, or what another system exports')
        .choices(FORMATS)
        .default('ndjson' as const),
    )
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

interface ImportCommandOptions extends ServiceOptions, JsonOption {
  readonly format: Format;
  readonly collection?: string;
  readonly state?: string;
}

async function importFile(
  environment: Environment,
  project: string,
  path: string,
  options: ImportCommandOptions,
): Promise<void> {
  const { collection, format } = options;
  const foreign = FOREIGN[format];
  const bundoc = await serviceClient(environment, options);
  const signal = stopSignal();
  const isFile = path !== '-';
  // Runs before the stream opens: an error of a stream without a reader would end the process.
  const size = isFile ? await fileSize(path) : undefined;
  const statePath = options.state ?? (isFile ? `${path}.import-state` : undefined);
  const resume = statePath === undefined ? undefined : new ResumeFile(statePath, stateSchema);
  const earlier = await resume?.read();
  const about = { project, collection: collection ?? null, as: format };
  if (
    earlier !== undefined &&
    (earlier.project !== project || earlier.collection !== about.collection || earlier.as !== format)
  )
    throw new CommandError(
      `${statePath} is of another import, ${describeImport(earlier)}: finish that one, or remove the file to start over`,
    );
  const run = earlier?.run ?? randomUUID();
  const done: ImportProgress = earlier ?? { end: 0, lines: 0, documents: 0 };
  // Those of another system are read from their start again: they may be parts of one text.
  const start = foreign === undefined ? done.end : 0;
  const bytes = isFile ? createReadStream(path, { start }) : skipBytes(process.stdin, start);
  const source = start === 0 ? textBytes(bytes) : bytes;
  const report: ForeignReport = { refused: 0, skipped: 0 };
  const lines =
    foreign === undefined
      ? linesOf(source, { number: done.lines, end: done.end })
      : linesAfter(done.end, foreignLines(source, foreign, say, report));

  using bar = createTransferBar(size);
  let savedMs = performance.now();
  const save = async (progress: ImportProgress) => resume?.write({ format: 1, run, ...about, ...progress });
  let latest = done;
  // Before anything is sent: a run that resumes this one must have its id.
  await save(done);
  try {
    latest = await importDocuments(bundoc, lines, done, {
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
  const counts = foreign === undefined ? {} : report;
  print(options, { project, documents: latest.documents, lines: latest.lines, ...counts }, () =>
    summary(project, latest.documents, report),
  );
  if (report.refused > 0) throw faultFound();
}

function* summary(project: string, documents: number, { refused, skipped }: ForeignReport): Iterable<string> {
  yield `${counted(documents, 'document')} written to ${project}`;
  if (skipped > 0)
    yield `${counted(skipped, 'deletion or design document', 'deletions or design documents')} skipped`;
  if (refused > 0)
    yield `${counted(refused, 'document is', 'documents are')} refused, as named above, and not written`;
}

/** Names a document on standard error, where there may be a bar. */
function say(sentence: string): void {
  console.error(`${process.stderr.isTTY ? '\r\x1b[K' : ''}${sentence}`);
}

/** The lines that end behind a place. */
async function* linesAfter(end: number, lines: AsyncIterable<Line>): AsyncGenerator<Line, void, void> {
  for await (const line of lines) if (line.end > end) yield line;
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
function describeImport({ project, collection, lines, as }: z.infer<typeof stateSchema>): string {
  const into = collection === null ? project : `collection ${collection} of ${project}`;
  return `into ${into}${as === 'ndjson' ? '' : ` by --format ${as}`}, with ${counted(lines, 'line')} done`;
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
