import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import type { Patch } from '../documents/patch/read-patch.ts';
import type { Position, ProjectStore, WriteResult } from '../engine/port/port.ts';
import { PreconditionsFailed } from '../engine/port/precondition.ts';
import { RefusedWrite } from '../engine/port/refused-write.ts';
import { shortHash } from '../engine/port/short-hash.ts';
import { HeldLease } from '../projects/held-lease.ts';
import type { QueryExecution } from '../queries/execution.ts';
import type { WorkOptions } from './documents.ts';
import {
  type FoundMatches,
  findMatches,
  type Part,
  type QueryWriteLimits,
  type WritesLease,
} from './find-matches.ts';
import type { MatchedWrites } from './matched-writes.ts';
import { openPageCursor } from './page-cursor.ts';
import { answeredBefore, earlierResults, PATCH_TRIES_MAX } from './patching.ts';
import type { Selection } from './queries.ts';

export interface QueryWriteRequest extends Omit<Selection, 'asOf' | 'work'> {
  /** The update; undefined to delete. */
  readonly patch: Patch | undefined;
  /** The text of the update, which cursors are bound to; empty to delete. */
  readonly patchText: Buffer | string;
  /** Documents of one answer. */
  readonly limit: number;
  readonly cursor: string | undefined;
  /** Whether nothing is written. */
  readonly isDryRun: boolean;
}

export interface QueryWriteAnswer {
  /** Documents that the condition held for when they were found. */
  readonly matched: number;
  /** Those of them that were changed or deleted. */
  readonly written: number;
  /** Ids of undecryptable documents, which are left alone. */
  readonly unreadable: readonly string[];
  /** The cursor for the next answer; undefined at the end. */
  readonly next?: string | undefined;
  /** The first documents of a dry run. */
  readonly ids?: readonly string[] | undefined;
}

/** Ids that a dry run names. */
const NAMED_MAX = 20;
/** Attempts with all documents of an answer. Each further one has half as many, and so takes less time. */
const WHOLE_TRIES_MAX = 4;

/** The part of the InstanceManager that writes by query need. */
interface WritableInstances {
  acquire(project: string, mode: 'existing'): Promise<WritesLease | undefined>;
}

/**
 * Changes or deletes the documents that a condition holds for, some in each answer. Arguments are validated
 * at the edge.
 *
 * All answers together visit each document once that exists when the first begins, in the order of creation.
 * Neither changes of a document nor new ones let it be visited twice.
 */
export class QueryWrites {
  readonly #instances: WritableInstances;
  readonly #limits: QueryWriteLimits;

  constructor(instances: WritableInstances, limits: QueryWriteLimits) {
    this.#instances = instances;
    this.#limits = limits;
  }

  /**
   * Finds some documents, and writes all of them in one commit or none. A document that changes meanwhile is
   * tested again, and left alone if it no longer matches.
   *
   * @throws AppError `invalid_cursor`; `patch_inapplicable`, `payload_too_large`, `schema_violation` and
   *   `unique_violation`, which name the document; `query_too_expensive`; `overloaded` when the documents
   *   keep changing; `project_not_found`, `snapshot_too_old`, and those of the store.
   */
  async run(request: QueryWriteRequest, options: WorkOptions): Promise<QueryWriteAnswer> {
    const { project, collection, isDryRun } = request;
    using lease = new HeldLease(() => this.#instances.acquire(project, 'existing'));
    if (isDryRun) return await this.#answer(lease, request, { work: options.work });
    const ref = { collection, id: '-' };
    const { store } = await lease.get();
    const earlier = await earlierResults(store, ref, options);
    if (earlier !== undefined) return notedIn(earlier);
    try {
      return await this.#answer(lease, request, options);
    } catch (error) {
      if (options.idempotency === undefined) throw error;
      // The same request may run a second time, and find the documents as the first has left them.
      return notedIn(await answeredBefore((await lease.get()).store, ref, options, error));
    }
  }

  async #answer(
    lease: HeldLease<WritesLease>,
    request: QueryWriteRequest,
    options: WorkOptions,
  ): Promise<QueryWriteAnswer> {
    const { collection, whereText, patch, patchText, cursor, isDryRun } = request;
    const context = [
      patch === undefined ? 'delete' : 'update',
      collection,
      shortHash(whereText, patchText, String(isDryRun)),
    ];
    options.work.leave();
    const part =
      cursor === undefined ? START : partOf(openPageCursor((await lease.get()).cursors, context, cursor));
    const found = await findMatches(lease, request, part, this.#limits, options.work);
    const { writes, until, run } = found;
    const answerNow = async (written: number): Promise<QueryWriteAnswer> => {
      const next = writes.end === undefined ? undefined : bytesOfPart({ after: writes.end, until });
      const { unreadable } = run.stats;
      return {
        matched: writes.matched,
        written,
        unreadable,
        next: next && (await lease.get()).cursors.seal(context, next),
        ids: isDryRun ? writes.ids.slice(0, NAMED_MAX) : undefined,
      };
    };
    return await this.#commit(lease, found, answerNow, isDryRun, options);
  }

  async #commit(
    lease: HeldLease<WritesLease>,
    { writes, run }: FoundMatches,
    answerNow: (written: number) => Promise<QueryWriteAnswer>,
    isDryRun: boolean,
    options: WorkOptions,
  ): Promise<QueryWriteAnswer> {
    const { work, idempotency } = options;
    work.hold(writes.bytes);
    for (let tries = 1; tries <= PATCH_TRIES_MAX; tries++) {
      const { store } = await lease.get();
      try {
        const planned = await writes.plan();
        const answer = await answerNow(planned.length);
        if (isDryRun || (planned.length === 0 && idempotency === undefined)) return answer;
        const noted = idempotency && { ...idempotency, note: JSON.stringify(answer) };
        const results = await store.commit(
          planned,
          noted === undefined ? { work } : { work, idempotency: noted },
        );
        return results[0]?.note === undefined ? answer : notedIn(results);
      } catch (error) {
        await recover(async () => (await lease.get()).store, writes, run, error);
      }
      if (tries >= WHOLE_TRIES_MAX) writes.halve();
    }
    throw new AppError('overloaded', { detail: 'the documents change too often' });
  }
}

/** Prepares another attempt, or throws the refusal. */
async function recover(
  open: () => Promise<ProjectStore>,
  writes: MatchedWrites,
  run: QueryExecution,
  error: unknown,
): Promise<void> {
  if (error instanceof PreconditionsFailed) {
    await writes.refresh(
      open,
      run,
      error.failed.map(({ index }) => index),
    );
    return;
  }
  if (error instanceof RefusedWrite) {
    const refusal = writes.naming(error);
    // Only the present revision counts, and only if it matches.
    if (await writes.refresh(open, run, [error.index])) return;
    throw refusal;
  }
  if (!hasCode(error, 'payload_too_large') || writes.ids.length < 2) throw error;
  writes.halve();
}

const START: Part = { after: 0, until: undefined };
const POSITION_BYTES = 6;

function bytesOfPart({ after, until }: { readonly after: Position; readonly until: Position }): Buffer {
  const bytes = Buffer.alloc(2 * POSITION_BYTES);
  bytes.writeUIntBE(after, 0, POSITION_BYTES);
  bytes.writeUIntBE(until, POSITION_BYTES, POSITION_BYTES);
  return bytes;
}

function partOf(bytes: Buffer): Part {
  return {
    after: bytes.readUIntBE(0, POSITION_BYTES),
    until: bytes.readUIntBE(POSITION_BYTES, POSITION_BYTES),
  };
}

/** The answer that was kept under an idempotency key. */
function notedIn([first]: readonly WriteResult[]): QueryWriteAnswer {
  if (first?.note === undefined) throw new AppError('idempotency_mismatch');
  return JSON.parse(first.note) as QueryWriteAnswer;
}
