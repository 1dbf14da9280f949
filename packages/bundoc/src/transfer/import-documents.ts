import { createHash } from 'node:crypto';
import type { Bundoc, Project } from '@bundoc/client';
import { JsonText } from '@bundoc/client/document';
import { BundocError, hasCode } from '@bundoc/client/error';
import { type Imported, readImportLine } from './import-line.ts';
import { BadLine, type Line } from './ndjson.ts';

export interface ImportOptions {
  readonly project: string;
  /** Where documents go that do not say it; all, when given. */
  readonly collection: string | undefined;
  /** Documents under way at a time. */
  readonly atOnce: number;
  readonly signal: AbortSignal;
  /** Told how far everything is done: everything before `end` is durable. Awaited before more is sent. */
  readonly onDone: (progress: ImportProgress) => Promise<void>;
}

export interface ImportProgress {
  /** Bytes and lines of the source that are done. */
  readonly end: number;
  readonly lines: number;
  readonly documents: number;
}

/** Longest time for one document, over all tries: an outage of the service is waited for. */
const DEADLINE_MS = 300_000;

interface Sending {
  readonly line: Line;
  /** Of the document, if it has one already. */
  readonly name: string | undefined;
  readonly sent: Promise<number>;
}

/**
 * Writes the documents of an NDJSON source, many at a time; lines of the same document one after the other.
 *
 * The key of a line comes from its place and its text, so that whatever is sent again, within a day, is done once.
 *
 * @param lines behind what is done.
 * @param done what earlier runs have done.
 * @throws BadLine for a line that cannot be taken or is refused; everything before the place that was told last is done.
 */
export async function importDocuments(
  bundoc: Bundoc,
  lines: AsyncIterable<Line>,
  done: ImportProgress,
  { project: id, collection, atOnce, signal, onDone }: ImportOptions,
): Promise<ImportProgress> {
  const project = bundoc.project(id);
  const underWay: Sending[] = [];
  const names = new Set<string>();
  let progress = done;
  /** Waits for the oldest. */
  const settle = async (): Promise<void> => {
    const oldest = underWay[0];
    if (oldest === undefined) return;
    const written = await oldest.sent;
    underWay.shift();
    if (oldest.name !== undefined) names.delete(oldest.name);
    const { end, number } = oldest.line;
    progress = { end, lines: number, documents: progress.documents + written };
    await onDone(progress);
  };
  try {
    for await (const line of lines) {
      const imported = readImportLine(line, collection);
      const name = nameOf(imported);
      while (underWay.length >= atOnce || (name !== undefined && names.has(name))) await settle();
      const sent = send(project, imported, line, signal);
      sent.catch(() => undefined); // It is heard of in its turn.
      underWay.push({ line, name, sent });
      if (name !== undefined) names.add(name);
    }
    while (underWay.length > 0) await settle();
  } finally {
    await Promise.allSettled(underWay.map(({ sent }) => sent));
  }
  return progress;
}

function nameOf(imported: Imported): string | undefined {
  return imported.op === 'create' ? undefined : `${imported.collection}/${imported.id}`;
}

/** @returns how many documents were written. */
async function send(project: Project, imported: Imported, line: Line, signal: AbortSignal): Promise<number> {
  const documents = project.collection<object>(imported.collection);
  const options = { signal, deadlineMs: DEADLINE_MS, idempotencyKey: keyOf(project.id, line) };
  try {
    if (imported.op === 'create') await documents.create(new JsonText(imported.text), options);
    else if (imported.op === 'put') await documents.put(imported.id, new JsonText(imported.text), options);
    else await documents.delete(imported.id, options);
    return imported.op === 'delete' ? 0 : 1;
  } catch (error) {
    // What is gone already is as it was to be.
    if (imported.op === 'delete' && hasCode(error, 'document_not_found', 'project_not_found')) return 0;
    if (error instanceof BundocError)
      throw new BadLine(`line ${line.number} was refused: ${error.message}`, { cause: error });
    throw error;
  }
}

function keyOf(project: string, { end, text }: Line): string {
  return `import-${createHash('sha256').update(`${project}\0${end}\0${text}`).digest('base64url')}`;
}
