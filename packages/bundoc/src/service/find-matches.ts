import { hasCode } from '@bundoc/shared/contract/app-error';
import type { Position } from '../engine/port/port.ts';
import { ofOneState } from '../engine/port/snapshot-port.ts';
import type { HeldLease } from '../projects/held-lease.ts';
import type { InstanceLease } from '../projects/project-instance.ts';
import type { QueryExecution } from '../queries/execution.ts';
import type { Candidate } from '../queries/scan.ts';
import type { ScanBudget, ScanLimits } from '../queries/scan-budget.ts';
import { encodePosition } from '../values/key.ts';
import type { Work } from '../work/work.ts';
import { beginQuery } from './begin-query.ts';
import { HeldSnapshot } from './held-snapshot.ts';
import { MatchedWrites } from './matched-writes.ts';
import type { QueryWriteRequest } from './query-writes.ts';

export interface QueryWriteLimits {
  readonly documentBytesMax: number;
  /** A request beyond them is refused. */
  readonly scan: ScanLimits;
  /** What ends an answer, which then has fewer documents, or none. */
  readonly enough: Pick<ScanLimits, 'documentsMax' | 'bytesMax' | 'workMax'>;
}

/** What one answer reads before it ends, in a second or two. */
export const ENOUGH: QueryWriteLimits['enough'] = {
  documentsMax: 20_000,
  bytesMax: 67_108_864,
  workMax: 100_000_000,
};
/** Undecryptable documents that end an answer. */
const UNREADABLE_MAX = 100;
/** Bytes of documents to change that end an answer. */
const FOUND_BYTES_MAX = 8_388_608;
/** What an answer reads by an index that has another order, before it reads the collection instead. */
const BY_INDEX = { documentsMax: 2_000, bytesMax: 16_777_216 };

/** A part of the collection, in the order of creation. */
export interface Part {
  /** Its documents were created later. */
  readonly after: Position;
  /** They were not created later; undefined before the first answer. */
  readonly until: Position | undefined;
}

export interface FoundMatches {
  readonly writes: MatchedWrites;
  readonly until: Position;
  /** Tests a document again. */
  readonly run: QueryExecution;
}

export type WritesLease = Pick<InstanceLease, 'store' | 'cursors' | 'isUsable'> & Disposable;

/**
 * The first documents of a part that match, as of one state.
 *
 * @throws AppError `query_too_expensive`, `snapshot_too_old`, `project_not_found`, and those of the store.
 */
export async function findMatches(
  lease: HeldLease<WritesLease>,
  request: QueryWriteRequest,
  part: Part,
  limits: QueryWriteLimits,
  work: Work,
): Promise<FoundMatches> {
  using state = new HeldSnapshot(lease, request.collection, {});
  const finder = new Finder(state, request, part, limits, work);
  return await ofOneState(async () => {
    const { writes, run } = (await finder.byIndex()) ?? (await finder.inOrder());
    return { writes, run, until: part.until ?? state.asOf };
  });
}

class Finder {
  readonly #state: HeldSnapshot;
  readonly #request: QueryWriteRequest;
  readonly #part: Part;
  readonly #limits: QueryWriteLimits;
  readonly #work: Work;

  constructor(
    state: HeldSnapshot,
    request: QueryWriteRequest,
    part: Part,
    limits: QueryWriteLimits,
    work: Work,
  ) {
    this.#state = state;
    this.#request = request;
    this.#part = part;
    this.#limits = limits;
    this.#work = work;
  }

  /** By all entries of an index in another order, if they are few. Undefined if not, and without an index. */
  async byIndex(): Promise<Omit<FoundMatches, 'until'> | undefined> {
    const { after, until = Number.POSITIVE_INFINITY } = this.#part;
    const { documentWorkMax, workMax } = this.#limits.scan;
    const run = await beginQuery(this.#queryWithin({ ...BY_INDEX, documentWorkMax, workMax }));
    if (run.isInOrder) return undefined;
    const found: Candidate[] = [];
    let bytes = 0;
    try {
      await run.each('', (candidate) => {
        if (candidate.position <= after || candidate.position > until) return false;
        found.push(candidate);
        bytes += candidate.keep().text.length;
        run.keeps(bytes);
        return false;
      });
    } catch (error) {
      if (hasCode(error, 'query_too_expensive')) return undefined;
      throw error;
    }
    const writes = this.#noWrites();
    for (const candidate of found.toSorted((a, b) => a.position - b.position))
      if (this.#add(writes, candidate)) break;
    return { writes, run };
  }

  /** In the order of creation: by an index that has it, or by reading the collection. */
  async inOrder(): Promise<Omit<FoundMatches, 'until'>> {
    const { after, until } = this.#part;
    const writes = this.#noWrites();
    const endsAt = (budget: ScanBudget) => (position: Position) => {
      if (until !== undefined && position >= until) return true;
      if (!this.#isEnough(budget) && run.stats.unreadable.length < UNREADABLE_MAX) return false;
      writes.end = position;
      return true;
    };
    const run: QueryExecution = await beginQuery({ ...this.#queryWithin(this.#limits.scan), endsAt });
    await run.each(after === 0 ? '' : encodePosition(after), (candidate) => {
      if (until !== undefined && candidate.position > until) return true;
      if (this.#request.patch !== undefined) candidate.keep();
      const isLast = this.#add(writes, candidate);
      run.keeps(writes.bytes);
      return isLast;
    });
    return { writes, run };
  }

  #queryWithin(limits: ScanLimits) {
    const { where, whereText, limit: wanted } = this.#request;
    return { state: this.#state, work: this.#work, where, whereText, limits, orderBy: [], wanted };
  }

  #noWrites(): MatchedWrites {
    const { documentBytesMax } = this.#limits;
    return new MatchedWrites({ patch: this.#request.patch, documentBytesMax, work: this.#work });
  }

  /** @returns whether the answer ends with this match. */
  #add(writes: MatchedWrites, { document, position }: Candidate): boolean {
    writes.add(document, position);
    if (writes.matched < this.#request.limit && writes.bytes < FOUND_BYTES_MAX) return false;
    writes.end = position;
    return true;
  }

  #isEnough({ documents, bytes, work }: ScanBudget): boolean {
    const { documentsMax, bytesMax, workMax } = this.#limits.enough;
    return documents >= documentsMax || bytes >= bytesMax || work >= workMax;
  }
}
