import type { KeyObject } from 'node:crypto';
import { createReadStream, statSync } from 'node:fs';
import { type AuditRecord, auditRecordSchema } from '@bundoc/shared/contract/audit';
import { parseJson } from '@bundoc/shared/json/parse-json';
import { z } from 'zod';
import type { ChainHead } from '../records/chain.ts';
import { isGenuine } from '../records/chain-walk.ts';
import { USE_ACTIONS } from '../store/audit.ts';
import { DamagedFile, EvidenceTooOld } from './errors.ts';

/** The records of a copy of the audit chain (`BUNKMS_AUDIT_SHIP`) after a known record. */
export interface AuditCopy {
  /** The place of its last record. */
  readonly head: ChainHead;
  /** Those records after the known one that are not mere uses of keys, in order. */
  readonly notable: readonly AuditRecord[];
  /**
   * Such records of other ends of the chain, which the store has lost since. `lostFrom` is the number of the
   * first lost record.
   */
  readonly lost: readonly { readonly record: AuditRecord; readonly lostFrom: number }[];
  /** The hash of a record after the known one; undefined for others. */
  hashAt(seq: number): string | undefined;
  /**
   * All records after the known one; reads the files again. @throws DamagedFile when they have changed in the
   * meantime.
   */
  records(): AsyncGenerator<AuditRecord>;
}

const NEWLINE = 0x0a;
const LINE_BYTES_MAX = 1_048_576;
const lineSchema = z.strictObject({ format: z.literal('bunkms/audit/v1'), ...auditRecordSchema.shape });

/**
 * Reads a copy of the audit chain, and proves that it continues from `base` without gaps or changed records.
 * It cannot prove that its end was not cut off.
 *
 * A copy may contain duplicate records, torn lines and lines of a log (docs/formats/shipped-audit.md). If the
 * store was rolled back at some time, the copy contains the chain again with another end. The last end
 * counts.
 *
 * @param paths its files in the order of writing.
 * @param base the last record of the chain that the copy must extend.
 * @throws DamagedFile, also when the copy does not continue from `base`; EvidenceTooOld when it
 *   ends before.
 */
export async function readAuditCopy(
  paths: readonly string[],
  chainKey: KeyObject,
  base: ChainHead,
): Promise<AuditCopy> {
  const hashes: string[] = [];
  const notable: AuditRecord[] = [];
  const lost: { record: AuditRecord; lostFrom: number }[] = [];
  let place: ChainHead | undefined;
  let isOfBase = false;
  for await (const { record, where } of recordsOf(paths)) {
    if (!isGenuine(chainKey, record)) throw new DamagedFile(`${where} of the audit copy was changed`);
    requireSuccessor(place, record, base, where);
    const behind = record.seq - base.seq;
    isOfBase = isOnTheWay(record, behind, base, hashes, isOfBase);
    if (behind > 0 && isOfBase && hashes[behind - 1] !== record.hash) {
      // This is another end of the chain.
      hashes.length = behind - 1;
      const kept = notable.findLastIndex(({ seq }) => seq < record.seq) + 1;
      for (const former of notable.splice(kept)) lost.push({ record: former, lostFrom: record.seq });
      hashes.push(record.hash);
      if (!USE_ACTIONS.includes(record.action)) notable.push(record);
    }
    place = { seq: record.seq, hash: record.hash };
  }
  if (place === undefined) throw new DamagedFile('the audit copy contains no record');
  if (!isOfBase && place.seq < base.seq)
    throw new EvidenceTooOld(
      `the audit copy ends with record ${place.seq} and is older than record ${base.seq}: it says nothing of the time after`,
    );
  if (!isOfBase)
    throw new DamagedFile(
      `the audit copy does not continue from record ${base.seq}: it belongs to another history`,
    );
  const head = { seq: base.seq + hashes.length, hash: hashes.at(-1) ?? base.hash };
  const hashAt = (seq: number) => hashes[seq - base.seq - 1];
  return { head, notable, lost, hashAt, records: () => selected(paths, chainKey, base, hashes) };
}

/**
 * The place that the first record of a copy follows; undefined for a copy without records. Nothing is
 * verified.
 */
export async function startOfCopy(paths: readonly string[]): Promise<ChainHead | undefined> {
  for await (const { record } of recordsOf(paths)) return { seq: record.seq - 1, hash: record.prev_hash };
  return undefined;
}

/** @throws DamagedFile when records are missing between two lines. Gaps before the base are allowed. */
function requireSuccessor(
  place: ChainHead | undefined,
  { seq, prev_hash }: AuditRecord,
  base: ChainHead,
  where: string,
): void {
  if (place === undefined) {
    if (seq <= base.seq + 1) return;
    throw new DamagedFile(
      `the audit copy begins with record ${seq}, after record ${base.seq}: give its earlier files too`,
    );
  }
  const isRepeated = seq <= place.seq;
  const isNext = seq === place.seq + 1 && prev_hash === place.hash;
  const isUnneeded = seq <= base.seq || (seq === base.seq + 1 && place.seq < base.seq);
  if (!isRepeated && !isNext && !isUnneeded)
    throw new DamagedFile(`the audit copy has a gap: ${where} does not follow record ${place.seq}`);
}

/** Whether a record is the base, or follows it directly or through accepted records. */
function isOnTheWay(
  { hash, prev_hash }: AuditRecord,
  behind: number,
  base: ChainHead,
  hashes: readonly string[],
  wasBefore: boolean,
): boolean {
  if (behind < 0) return false;
  if (behind === 0) return hash === base.hash;
  if (behind === 1) return prev_hash === base.hash;
  return wasBefore && prev_hash === hashes[behind - 2];
}

async function* selected(
  paths: readonly string[],
  chainKey: KeyObject,
  base: ChainHead,
  hashes: readonly string[],
): AsyncGenerator<AuditRecord> {
  let taken = 0;
  for await (const { record } of recordsOf(paths)) {
    if (record.seq !== base.seq + taken + 1 || record.hash !== hashes[taken]) continue;
    if (!isGenuine(chainKey, record)) break;
    taken++;
    yield record;
  }
  if (taken !== hashes.length) throw new DamagedFile('the audit copy was changed while it was read');
}

interface CopiedRecord {
  readonly record: AuditRecord;
  /** File and line, for messages. */
  readonly where: string;
}

async function* recordsOf(paths: readonly string[]): AsyncGenerator<CopiedRecord> {
  for (const path of paths) {
    let number = 0;
    for await (const text of linesOf(path)) {
      const where = `line ${++number} of ${path}`;
      const value = parseJson(text);
      // A line that a crash cut short, or a line of the log.
      if (!isRecordLine(value)) continue;
      const line = lineSchema.safeParse(value);
      if (!line.success) throw new DamagedFile(`${where} is not an audit record`, { cause: line.error });
      const { format: _, ...record } = line.data;
      yield { record, where };
    }
  }
}

function isRecordLine(value: unknown): boolean {
  return (
    typeof value === 'object' && value !== null && 'format' in value && value.format === 'bunkms/audit/v1'
  );
}

/**
 * The lines without their line ends. A last line without line end counts. @throws DamagedFile for a line
 * beyond the limit.
 */
async function* linesOf(path: string): AsyncGenerator<string> {
  if (statSync(path).isDirectory()) throw new DamagedFile(`${path} is a folder: name the files in it`);
  let rest: Buffer = Buffer.alloc(0);
  for await (const chunk of createReadStream(path) as AsyncIterable<Buffer>) {
    const bytes = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    let at = 0;
    for (let end = bytes.indexOf(NEWLINE); end !== -1; end = bytes.indexOf(NEWLINE, at)) {
      yield bytes.toString('utf8', at, end);
      at = end + 1;
    }
    rest = bytes.subarray(at);
    if (rest.length > LINE_BYTES_MAX)
      throw new DamagedFile(`${path} is not an audit copy: a line is too long`);
  }
  if (rest.length > 0) yield rest.toString('utf8');
}
