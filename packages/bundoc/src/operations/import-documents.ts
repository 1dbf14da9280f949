import { createHash } from 'node:crypto';
import type { Bundoc } from '@bundoc/client';
import type { BatchOperation } from '@bundoc/client/batch';
import { JsonText } from '@bundoc/client/document';
import { BundocError, hasCode } from '@bundoc/client/error';
import { type Imported, readImportLine } from './import-line.ts';
import { InvalidLine, type Line } from './ndjson.ts';

/** The service does not answer. The message names the first line that may not be written. */
export class ConnectionLost extends Error {
  override readonly name = 'ConnectionLost';
}

export interface ImportOptions {
  readonly project: string;
  /** Identifies the import: a run that resumes it has the same. */
  readonly run: string;
  /** The collection of every line; if absent, each must name its own. */
  readonly collection: string | undefined;
  /** Maximum concurrent batches. */
  readonly batchesAtOnce: number;
  readonly signal: AbortSignal;
  /** Reports progress: everything before `end` is durable. Awaited before more is sent. */
  readonly onDone: (progress: ImportProgress) => Promise<void>;
  /**
   * Makes the progress durable. Called between deletions and what follows them: repeated later, a deletion
   * would remove what a later line has written.
   */
  readonly save: (progress: ImportProgress) => Promise<void>;
}

export interface ImportProgress {
  /** Bytes and lines of the source that are done. */
  readonly end: number;
  readonly lines: number;
  readonly documents: number;
  /** The collection that these lines name; absent without {@link ImportOptions.collection}, or a name. */
  readonly from?: string | undefined;
}

/** Maximum operations of a batch, and characters of its documents: a batch ends at either. */
const OPERATIONS_MAX = 200;
const CHARS_MAX = 524_288;

/** Where a refusal names the first operation that is refused. */
const OPERATION = /body\.operations\.(\d+):? ?/;

interface Batch {
  readonly operations: BatchOperation[];
  /** The line of each operation. */
  readonly lines: number[];
  readonly ids: Set<string>;
  readonly from: number;
  chars: number;
  end: number;
}

/**
 * Imports the documents of an NDJSON source in concurrent batches. Two batches that write the same document
 * run one after the other.
 *
 * The idempotency key of a batch derives from the import, its place and its text. So a batch that a resumed
 * import sends again within a day takes effect once.
 *
 * @param lines the lines after those that are done.
 * @param done the progress of earlier runs.
 * @throws InvalidLine for an invalid or refused line, ConnectionLost; everything before the last reported
 *   place is done.
 */
export async function importDocuments(
  bundoc: Bundoc,
  lines: AsyncIterable<Line>,
  done: ImportProgress,
  options: ImportOptions,
): Promise<ImportProgress> {
  const project = bundoc.project(options.project);
  const inFlight: { readonly batch: Batch; readonly sent: Promise<void> }[] = [];
  let progress = done;
  /** Whether deletions took effect since the last save. */
  let hasDeleted = false;
  let { from } = done;

  /** Waits for the oldest batch. */
  const settle = async (): Promise<void> => {
    const oldest = inFlight[0];
    if (oldest === undefined) return;
    await oldest.sent;
    inFlight.shift();
    progress = { ...progressAfter(oldest.batch, progress), from };
    await options.onDone(progress);
  };
  const settleAll = async (): Promise<void> => {
    while (inFlight.length > 0) await settle();
  };
  const begin = async (batch: Batch): Promise<void> => {
    if (batch.operations.length === 0) return;
    while (
      inFlight.length >= options.batchesAtOnce ||
      inFlight.some(({ batch: other }) => !other.ids.isDisjointFrom(batch.ids))
    )
      await settle();
    if (hasDeleted) await options.save(progress);
    hasDeleted = false;
    const sent = send(project, batch, options);
    sent.catch(() => undefined); // `settle` reports it in order.
    inFlight.push({ batch, sent });
  };

  let batch = emptyBatch(done.end);
  try {
    for await (const line of lines) {
      const imported = readImportLine(line, options.collection);
      const { end } = line;
      if (options.collection !== undefined) from = sameSource(imported, from, line);
      if (imported.op === 'delete') {
        await begin(batch);
        await settleAll();
        await remove(project, imported, options.signal);
        hasDeleted = true;
        batch = emptyBatch(end);
        progress = { end, lines: line.number, documents: progress.documents, from };
        await options.onDone(progress);
        continue;
      }
      // A batch has at most one operation for each document; a later line starts another batch.
      if (imported.op === 'put' && batch.ids.has(toName(imported))) {
        await begin(batch);
        batch = emptyBatch(batch.end);
      }
      add(batch, imported, line.number, end);
      if (batch.operations.length < OPERATIONS_MAX && batch.chars < CHARS_MAX) continue;
      await begin(batch);
      batch = emptyBatch(end);
    }
    await begin(batch);
    await settleAll();
  } catch (error) {
    // Concurrent batches may have succeeded: the next run continues after them.
    await settleAll().catch(() => undefined);
    throw error;
  } finally {
    await Promise.allSettled(inFlight.map(({ sent }) => sent));
  }
  return progress;
}

function progressAfter({ end, lines, operations }: Batch, before: ImportProgress): ImportProgress {
  return {
    end,
    lines: lines.at(-1) ?? before.lines,
    documents: before.documents + operations.length,
  };
}

/**
 * Lines of two collections would replace each other in one, where their ids are equal.
 *
 * @throws InvalidLine for a line of another collection than those before it.
 */
function sameSource({ from }: Imported, before: string | undefined, { number }: Line): string | undefined {
  if (from !== undefined && before !== undefined && from !== before)
    throw new InvalidLine(
      `line ${number} is of the collection ${from}, and earlier lines are of ${before}: --collection writes all lines into one, where equal ids replace each other; leave it out, or export one collection (bundoc export --collection)`,
    );
  return before ?? from;
}

/** @throws InvalidLine when the batch is refused; ConnectionLost. */
async function send(
  project: ReturnType<Bundoc['project']>,
  batch: Batch,
  options: ImportOptions,
): Promise<void> {
  try {
    await project.batch(batch.operations, {
      idempotencyKey: keyOf(options, batch),
      signal: options.signal,
      deadlineMs: 300_000,
    });
  } catch (cause) {
    throw refused(cause, batch);
  }
}

function emptyBatch(from: number): Batch {
  return { operations: [], lines: [], ids: new Set(), from, chars: 0, end: from };
}

function add(batch: Batch, imported: Exclude<Imported, { op: 'delete' }>, line: number, end: number): void {
  const { collection } = imported;
  const document = new JsonText(imported.text);
  if (imported.op === 'create') batch.operations.push({ op: 'create', collection, document });
  else {
    batch.operations.push({ op: 'put', collection, id: imported.id, document });
    batch.ids.add(toName(imported));
  }
  batch.lines.push(line);
  batch.chars += imported.text.length;
  batch.end = end;
}

function toName({ collection, id }: { readonly collection: string; readonly id: string }): string {
  return `${collection}/${id}`;
}

async function remove(
  project: ReturnType<Bundoc['project']>,
  { collection, id }: Extract<Imported, { op: 'delete' }>,
  signal: AbortSignal,
): Promise<void> {
  try {
    await project.collection(collection).delete(id, { signal });
  } catch (error) {
    if (!hasCode(error, 'document_not_found', 'project_not_found')) throw error;
  }
}

function keyOf({ project, run }: ImportOptions, { from, operations }: Batch): string {
  const hash = createHash('sha256').update(`${project}\0${run}\0${from}\0`);
  for (const operation of operations) {
    const id = 'id' in operation ? operation.id : '';
    const text =
      'document' in operation && operation.document instanceof JsonText ? operation.document.text : '';
    hash.update(`${operation.op}\0${operation.collection}\0${id}\0${text}\0`);
  }
  return `import-${hash.digest('base64url')}`;
}

function refused(cause: unknown, { lines, operations }: Batch): unknown {
  if (!(cause instanceof BundocError)) return cause;
  const { message } = cause;
  // Nobody refused the lines. They may even have been written.
  if (hasCode(cause, 'network_error', 'deadline_exceeded'))
    return new ConnectionLost(`connection lost at line ${lines[0]}`, { cause });
  const at = OPERATION.exec(message)?.[1];
  const index = at === undefined && lines.length > 1 ? -1 : Number(at ?? 0);
  const line = lines[index];
  const operation = operations[index];
  const id = operation !== undefined && 'id' in operation ? ` (${JSON.stringify(operation.id)})` : '';
  return new InvalidLine(
    line === undefined
      ? `lines ${lines[0]} to ${lines.at(-1)} were refused: ${message}`
      : `line ${line}${id} was refused: ${message.replace(OPERATION, '')}`,
    { cause },
  );
}
