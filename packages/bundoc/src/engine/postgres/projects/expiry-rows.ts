import type { Clock } from '@bundoc/shared/runtime/clock';
import { type DueProject, type ExpiryMarks, SWEEP_INTERVAL_MS } from '../../projects/expiry-marks.ts';
import type { Database, Statement } from '../database/database.ts';
import { retryUnavailable } from '../database/retry-unavailable.ts';

const MARK: Statement = {
  name: 'bundoc-mark-expiry-1',
  text: `INSERT INTO bundoc.expiry (project, due_ms) VALUES ($1, $2)
         ON CONFLICT (project) DO UPDATE SET due_ms = greatest(expiry.due_ms + 1, excluded.due_ms)`,
};
const ENSURE_MARKED: Statement = {
  name: 'bundoc-ensure-expiry-1',
  text: 'INSERT INTO bundoc.expiry (project, due_ms) VALUES ($1, $2) ON CONFLICT (project) DO NOTHING',
};
/** Only one of several nodes gets a project. */
const TAKE: Statement = {
  name: 'bundoc-take-expiry-1',
  text: `UPDATE bundoc.expiry SET due_ms = $2 WHERE project = (
           SELECT project FROM bundoc.expiry WHERE due_ms <= $1 ORDER BY due_ms LIMIT 1 FOR UPDATE SKIP LOCKED
         ) RETURNING project, due_ms`,
};
const POSTPONE: Statement = {
  name: 'bundoc-postpone-expiry-1',
  text: 'UPDATE bundoc.expiry SET due_ms = $3 WHERE project = $1 AND due_ms = $2',
};
const UNMARK: Statement = {
  name: 'bundoc-unmark-expiry-1',
  text: 'DELETE FROM bundoc.expiry WHERE project = $1 AND due_ms = $2',
};

/** Marks as rows, shared by all nodes. */
export class ExpiryMarksInRows implements ExpiryMarks {
  readonly #database: Database;
  readonly #clock: Clock;

  constructor({ database, clock }: { readonly database: Database; readonly clock: Clock }) {
    this.#database = database;
    this.#clock = clock;
  }

  async mark(project: string): Promise<void> {
    await this.#query(MARK, [project, this.#in(SWEEP_INTERVAL_MS)]);
  }

  async ensureMarked(project: string): Promise<void> {
    await this.#query(ENSURE_MARKED, [project, this.#in(SWEEP_INTERVAL_MS)]);
  }

  async take(): Promise<DueProject | undefined> {
    const [row] = await this.#query(TAKE, [this.#in(0), this.#in(SWEEP_INTERVAL_MS)]);
    if (row === undefined) return undefined;
    const [project, turn] = row as unknown as [string, number];
    return { project, turn };
  }

  async reschedule({ project, turn }: DueProject, afterMs: number): Promise<void> {
    await this.#query(POSTPONE, [project, turn, this.#in(afterMs)]);
  }

  async unmark({ project, turn }: DueProject): Promise<void> {
    await this.#query(UNMARK, [project, turn]);
  }

  #in(afterMs: number): number {
    return this.#clock.now() + afterMs;
  }

  #query(statement: Statement, values: readonly unknown[]) {
    return retryUnavailable(this.#clock, () => this.#database.query(statement, values));
  }
}
