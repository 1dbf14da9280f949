import { AppError } from '@bundoc/shared/contract/app-error';
import { SEAL_OVERHEAD_BYTES } from '@bundoc/shared/crypto/aead';
import { smallRandom } from '@bundoc/shared/crypto/random';
import type { Clock } from '@bundoc/shared/runtime/clock';
import { composeStoredText, type DocumentRef } from '../../crypto/stored-text.ts';
import {
  COMMIT_BYTES_MAX,
  COMMITS_WAITING_MAX,
  IDEMPOTENCY_TTL_MS,
  type Idempotency,
  type Position,
  type WaitingCommit,
  type Write,
  type WriteResult,
} from '../port/port.ts';
import { preconditionHolds, preconditionsFailed } from '../port/precondition.ts';
import { type DocumentState, type IdempotencyRecord, REV_BYTES } from '../port/state.ts';
import { GroupQuota, NOTHING, type Quota, sumOf, type Usage, usageDelta } from './quota.ts';

// Both engines plan their commits here, in groups: each commit sees the effects of all before it.

/**
 * Maximum bytes that a write adds to its document: names, numbers, times, and an id of 512 bytes. The id
 * appears in the record and, escaped, in the text and in the answer of an idempotency key. With it, the
 * counted bytes are an upper bound of the written ones.
 */
export const WRITE_OVERHEAD_BYTES = 4_096;

/**
 * The bytes that a commit counts for, if the queue may take it.
 *
 * @throws AppError `payload_too_large`, `overloaded`.
 */
export function admit(
  writes: readonly Write[],
  waiting: { readonly commits: number; readonly bytes: number },
): number {
  let bytes = 0;
  for (const write of writes)
    bytes += WRITE_OVERHEAD_BYTES + (write.kind === 'put' ? write.content.bytes.length : 0);
  if (bytes > COMMIT_BYTES_MAX) throw new AppError('payload_too_large');
  if (waiting.commits >= COMMITS_WAITING_MAX || waiting.bytes > 2 * COMMIT_BYTES_MAX)
    throw new AppError('overloaded');
  return bytes;
}

/** The time and the revisions of a commit, drawn once because it may be planned again. */
export interface CommitDraft {
  readonly nowMs: number;
  /** One for each write. */
  readonly revs: readonly Buffer[];
}

export function draftsOf(group: readonly Pick<WaitingCommit, 'writes'>[], clock: Clock): CommitDraft[] {
  return group.map(({ writes }) => ({ nowMs: clock.now(), revs: writes.map(() => smallRandom(REV_BYTES)) }));
}

/** A document after one write of a commit. */
export interface PlannedWrite<E> {
  /** Its place in the commit. */
  readonly at: number;
  /** The key that {@link PlanContext.keyOf} returns. */
  readonly key: string;
  /** Hex of the state's file name. */
  readonly fileName: string;
  readonly state: DocumentState;
  /** The text to seal; undefined for a delete. */
  readonly text: Buffer | undefined;
  /** All of its entries in the indexes of its collection; undefined without indexes. */
  readonly entries: E | undefined;
}

/** A repetition under an idempotency key writes nothing. */
export type CommitOutcome<E> =
  | {
      readonly kind: 'accepted';
      readonly results: readonly WriteResult[];
      readonly writes: readonly PlannedWrite<E>[];
      readonly idempotencyRecord: IdempotencyRecord | undefined;
    }
  | { readonly kind: 'refused'; readonly error: unknown };

export interface CommitPlan<E> {
  /** One for each commit, in order; the commits after the last outcome belong to another group. */
  readonly outcomes: readonly CommitOutcome<E>[];
  /** The position of the last accepted commit. */
  readonly seq: Position;
}

/** The state of a project; the caller is the only writer. */
export interface PlanContext<C, E> {
  /** The position of the last commit. */
  readonly seq: Position;
  /** The version of the key that seals. */
  readonly keyVersion: number;
  /** The number of documents that the key may still seal. */
  readonly sealsLeft: number;
  readonly quota: Quota | undefined;
  /** The project's usage, for the quota; undefined for no quota. */
  readonly usage: Usage | undefined;
  /** Identifies the document of one write within the project. */
  keyOf(commit: C, at: number): string;
  /** Includes tombstones. */
  stateOf(ref: DocumentRef, key: string): DocumentState | undefined;
  /** Hex of the file name for a document without a state. */
  fileNameOf(ref: DocumentRef, key: string): string;
  /** The record of an idempotency key. */
  idempotencyRecordOf(key: string): IdempotencyRecord | undefined;
  readonly indexing: PlanIndexing<E>;
}

/** The indexes of a project while a group is planned. */
export interface PlanIndexing<E> {
  /** Begins a commit. The previous commit counts only if it was accepted. Undefined ends the group. */
  commit(): { write(write: PlannedWrite<E>, entries: E): void; check(): void; accept(): void } | undefined;
  /**
   * All entries of a document in the indexes of its collection; undefined without indexes.
   *
   * @param document its `text` is undefined for a deleted one.
   */
  entriesOf(write: Write, document: Omit<PlannedWrite<E>, 'entries'>): E | undefined;
}

/**
 * Plans the commits of one project in order. It is pure: it seals nothing, sends no answer and changes
 * nothing.
 */
export function planCommits<C extends Pick<WaitingCommit, 'writes' | 'options'>, E>(
  group: readonly C[],
  drafts: readonly CommitDraft[],
  context: PlanContext<C, E>,
): CommitPlan<E> {
  const planner = new Planner(context);
  const outcomes: CommitOutcome<E>[] = [];
  for (const [place, commit] of group.entries()) {
    const outcome = planner.plan(commit, drafts[place] as CommitDraft);
    if (outcome === undefined) break;
    outcomes.push(outcome);
  }
  return { outcomes, seq: planner.seq };
}

class Planner<C extends Pick<WaitingCommit, 'writes' | 'options'>, E> {
  readonly #context: PlanContext<C, E>;
  readonly #quota: GroupQuota | undefined;
  readonly #states = new Map<string, DocumentState>();
  readonly #idempotencyRecords = new Map<string, IdempotencyRecord>();
  #sealsLeft: number;
  seq: Position;

  constructor(context: PlanContext<C, E>) {
    const { quota, usage, seq, sealsLeft } = context;
    this.#context = context;
    this.#quota = quota && usage && new GroupQuota(quota, usage);
    this.#sealsLeft = sealsLeft;
    this.seq = seq;
  }

  plan(commit: C, draft: CommitDraft): CommitOutcome<E> | undefined {
    const indexed = this.#context.indexing.commit();
    if (indexed === undefined) return undefined;
    try {
      const results = this.#repeated(commit, draft.nowMs);
      if (results !== undefined)
        return { kind: 'accepted', results, writes: [], idempotencyRecord: undefined };
      return this.#decide(commit, draft, indexed);
    } catch (error) {
      return { kind: 'refused', error };
    }
  }

  /** The answer of the same commit when it was first made. @throws AppError `idempotency_mismatch`. */
  #repeated({ options: { idempotency } }: C, nowMs: number): readonly WriteResult[] | undefined {
    if (idempotency === undefined) return undefined;
    const used =
      this.#idempotencyRecords.get(idempotency.key) ?? this.#context.idempotencyRecordOf(idempotency.key);
    if (used === undefined || used.atMs + IDEMPOTENCY_TTL_MS <= nowMs) return undefined;
    if (used.request !== idempotency.request) throw new AppError('idempotency_mismatch');
    return JSON.parse(used.answer) as WriteResult[];
  }

  /** Changes no state of the planner before the commit is accepted. */
  #decide(
    commit: C,
    { nowMs, revs }: CommitDraft,
    indexed: NonNullable<ReturnType<PlanIndexing<E>['commit']>>,
  ): CommitOutcome<E> {
    const context = this.#context;
    const own = new Map<string, DocumentState>();
    const stateOf = ({ ref }: Write, key: string) =>
      own.get(key) ?? this.#states.get(key) ?? context.stateOf(ref, key);
    const planned: PlannedWrite<E>[] = [];
    const results: WriteResult[] = [];
    let [added, seals] = [NOTHING, 0];
    for (const [at, write] of commit.writes.entries()) {
      const key = context.keyOf(commit, at);
      const before = stateOf(write, key);
      if (!preconditionHolds(write.precondition, revOf(before)))
        throw preconditionsFailed(commit.writes, at, (other) =>
          revOf(stateOf(commit.writes[other] as Write, context.keyOf(commit, other))),
        );
      const fileName = before?.fileName.toString('hex') ?? context.fileNameOf(write.ref, key);
      const seq = this.seq + at + 1;
      const fresh = { seq, nowMs, fileName, rev: revs[at] as Buffer, keyVersion: context.keyVersion };
      const { state, text, result } = stateAfter(write, before, fresh);
      const entries = context.indexing.entriesOf(write, { at, key, fileName, state, text });
      const after = { at, key, fileName, state, text, entries };
      own.set(key, state);
      if (entries !== undefined) indexed.write(after, entries);
      if (this.#quota !== undefined) added = sumOf(added, usageDelta(before, state));
      if (text !== undefined) seals++;
      planned.push(after);
      results.push(result);
    }
    if (seals > this.#sealsLeft) throw new AppError('key_exhausted');
    // A refused commit counts for no quota.
    indexed.check();
    this.#quota?.admit(added);
    indexed.accept();
    this.#sealsLeft -= seals;
    this.seq += planned.length;
    for (const [key, state] of own) this.#states.set(key, state);
    const { idempotency } = commit.options;
    const idempotencyRecord = idempotency && recordOf(idempotency, results, nowMs);
    if (idempotencyRecord !== undefined)
      this.#idempotencyRecords.set(idempotencyRecord.key, idempotencyRecord);
    return { kind: 'accepted', results, writes: planned, idempotencyRecord };
  }
}

function recordOf(
  { key, request, note }: Idempotency,
  results: readonly WriteResult[],
  atMs: number,
): IdempotencyRecord {
  const kept = note === undefined ? results : [{ created: false, note }];
  return { key, request, atMs, answer: JSON.stringify(kept) };
}

/** The new parts of a document's state. */
interface Fresh {
  readonly seq: Position;
  readonly nowMs: number;
  readonly fileName: string;
  readonly rev: Buffer;
  readonly keyVersion: number;
}

function stateAfter(
  write: Write,
  before: DocumentState | undefined,
  { seq, nowMs, fileName, rev, keyVersion }: Fresh,
): { state: DocumentState; text: Buffer | undefined; result: WriteResult } {
  const living = before?.deletedMs === 0 ? before : undefined;
  const { collection, id } = write.ref;
  const common = {
    collection,
    id,
    fileName: Buffer.from(fileName, 'hex'),
    seq,
    createdSeq: living?.createdSeq ?? seq,
    createdMs: living?.createdMs ?? nowMs,
    rev,
    keyVersion,
  };
  if (write.kind === 'delete') {
    if (living === undefined) throw new AppError('document_not_found');
    const state = { ...common, size: 0, deletedMs: Math.max(1, nowMs) };
    return { state, text: undefined, result: { created: false, metadata: undefined } };
  }
  const metadata = {
    _id: id,
    _collection: collection,
    _rev: rev.toString('hex'),
    _created: timeOf(common.createdMs),
    _updated: timeOf(nowMs),
  };
  const text = composeStoredText(metadata, write.content);
  const state = { ...common, size: text.length + SEAL_OVERHEAD_BYTES, deletedMs: 0 };
  return { state, text, result: { created: living === undefined, metadata } };
}

function revOf(state: DocumentState | undefined): string | undefined {
  return state?.deletedMs === 0 ? state.rev.toString('hex') : undefined;
}

let latest = { ms: Number.NaN, text: '' };

/** Formats a time. It caches the last one, because most calls repeat it. */
function timeOf(ms: number): string {
  if (ms !== latest.ms) latest = { ms, text: new Date(ms).toISOString() };
  return latest.text;
}
