import type { BatchOperation } from '@bundoc/client/batch';
import { newKey } from '@bundoc/client/collection';
import { JsonText, withoutMetadata } from '@bundoc/client/document';
import { BundocError } from '@bundoc/client/error';
import { bundoc } from '../shell/api.ts';
import { type ImportRecord, RECORD_CHARS_MAX, recordsOf } from './import-records.ts';

/** Maximum refused records to keep. All are counted. */
export const REFUSALS_KEPT = 1_000;

export interface Refusal {
  readonly number: number;
  readonly id: string | undefined;
  readonly reason: string;
}

/** The progress of an import. */
export interface ImportProgress {
  /** Records up to this one are done: written or finally refused. */
  readonly number: number;
  readonly bytesRead: number;
  readonly written: number;
  readonly refused: number;
  readonly refusals: readonly Refusal[];
}

export const NOTHING_DONE: ImportProgress = {
  number: 0,
  bytesRead: 0,
  written: 0,
  refused: 0,
  refusals: [],
};

/** Maximum records of a batch, and characters of its documents. */
const RECORDS_MAX = 200;
const CHARS_MAX = 524_288;
const BATCH_DEADLINE_MS = 300_000;
/** Statuses of refusals of single records. All others concern the whole import. */
const OF_RECORDS: ReadonlySet<number> = new Set([400, 409, 412, 413, 422]);
/** Codes with such a status that concern the project, its storage or its key. */
const OF_PROJECT = /^(project|storage|key|kms)_/;

function isOfRecords({ status, code }: BundocError): boolean {
  return OF_RECORDS.has(status) && !OF_PROJECT.test(code);
}

interface ImportTarget {
  readonly project: string;
  readonly collection: string;
}

interface Accepted {
  readonly record: ImportRecord;
  readonly id: string | undefined;
  readonly operation: BatchOperation;
}

/**
 * Writes the documents of a file into a collection, in the order of the file. A document with an `_id`
 * replaces an existing one. Each keeps its exact bytes, without its former metadata.
 *
 * A document without an `_id` gets one from its place and its text, so that a repeated import does not
 * duplicate it.
 *
 * @param done the end of an earlier run.
 * @param onProgress called after each batch.
 * @throws BundocError for a failure of the whole import; for a faulty file as {@link recordsOf} does.
 */
export async function importFile(
  file: Blob,
  place: ImportTarget,
  done: ImportProgress,
  signal: AbortSignal,
  onProgress: (progress: ImportProgress) => void,
): Promise<void> {
  let progress = done;
  let batch: Accepted[] = [];
  let chars = 0;
  const ids = new Set<string>();
  let refusals: Refusal[] = [];
  let last: ImportRecord | undefined;
  const flush = async () => {
    if (last === undefined) return;
    const before = refusals.length;
    await write(place, batch, signal, (refusal) => refusals.push(refusal));
    const lost = refusals.length - before;
    progress = {
      number: last.number,
      bytesRead: last.bytesRead,
      written: progress.written + batch.length - lost,
      refused: progress.refused + refusals.length,
      refusals: [...progress.refusals, ...refusals].slice(0, REFUSALS_KEPT),
    };
    batch = [];
    chars = 0;
    ids.clear();
    refusals = [];
    last = undefined;
    onProgress(progress);
  };
  for await (const record of recordsOf(file, signal)) {
    if (record.number <= progress.number) continue;
    const accepted = await accept(record, place);
    // A batch has at most one operation per document; a later record for it goes into the next batch.
    if (typeof accepted !== 'string' && accepted.id !== undefined && ids.has(accepted.id)) await flush();
    last = record;
    if (typeof accepted === 'string')
      refusals.push({ number: record.number, id: undefined, reason: accepted });
    else {
      batch.push(accepted);
      chars += record.text.length;
      if (accepted.id !== undefined) ids.add(accepted.id);
    }
    if (batch.length + refusals.length >= RECORDS_MAX || chars >= CHARS_MAX) await flush();
  }
  await flush();
  onProgress({ ...progress, bytesRead: file.size });
}

/** @returns the operation, or why the record cannot be sent. */
async function accept(record: ImportRecord, place: ImportTarget): Promise<Accepted | string> {
  const { text } = record;
  if (text.length > RECORD_CHARS_MAX) return 'longer than any document';
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return 'not JSON';
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return 'not a JSON object';
  const { _id: given, _deleted: deleted } = value as Record<string, unknown>;
  if (deleted === true) return 'a deletion: only documents can be imported';
  if (given !== undefined && typeof given !== 'string') return '_id is not a string';
  const document = new JsonText('_rev' in value || '_collection' in value ? withoutMetadata(text) : text);
  const { collection } = place;
  const id = given ?? (await idOf(place, record));
  return {
    record,
    id: given,
    operation:
      id === undefined ? { op: 'create', collection, document } : { op: 'put', collection, id, document },
  };
}

/**
 * Writes records as one batch. When it is refused, it is split in halves until the refused records are found.
 */
async function write(
  place: ImportTarget,
  batch: readonly Accepted[],
  signal: AbortSignal,
  onRefused: (refusal: Refusal) => void,
): Promise<void> {
  const [first] = batch;
  if (first === undefined) return;
  try {
    await bundoc.project(place.project).batch(
      batch.map(({ operation }) => operation),
      { idempotencyKey: newKey(), deadlineMs: BATCH_DEADLINE_MS, signal },
    );
  } catch (error) {
    if (!(error instanceof BundocError) || !isOfRecords(error)) throw error;
    if (batch.length === 1) {
      onRefused({ number: first.record.number, id: first.id, reason: reasonOf(error) });
      return;
    }
    const half = batch.length >> 1;
    await write(place, batch.slice(0, half), signal, onRefused);
    await write(place, batch.slice(half), signal, onRefused);
  }
}

function reasonOf({ code, detail, errors }: BundocError): string {
  const [first] = errors;
  const fault = first === undefined ? detail : `${first.path} ${first.message}`;
  return fault === undefined ? code : `${code}: ${fault}`;
}

/**
 * Undefined in a page over plain HTTP, which has no digest: then a repeated import duplicates the document.
 */
async function idOf(
  { project, collection }: ImportTarget,
  { number, text }: ImportRecord,
): Promise<string | undefined> {
  if (!globalThis.isSecureContext) return undefined;
  const parts = [project, collection, String(number), text];
  const digest = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(parts.join('\0')));
  const bytes = new Uint8Array(digest).subarray(0, 16);
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}
