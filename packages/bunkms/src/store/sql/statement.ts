import { Untrusted } from '../trust.ts';
import type { Row } from './row-records.ts';

/** A parameter of a statement. */
export type SqlValue = string | number | boolean | null | Uint8Array;

/** A query for many tuples of parameters at once, from {@link Dialect.forEach}. */
export interface EachQuery {
  readonly sql: string;
}

/**
 * A statement of a repository. Parameters are `$1`, `$2`, …
 *
 * The answers: `rows` gets all rows, `row` the first row or undefined, `run` the number of changed rows.
 * `each` gets the rows of each tuple, in the order of the tuples. `insert` gets the returned rows of all
 * tuples.
 */
export type Statement =
  | { readonly kind: 'rows' | 'row' | 'run'; readonly sql: string; readonly values: readonly SqlValue[] }
  | {
      readonly kind: 'each' | 'insert';
      readonly query: EachQuery;
      readonly tuples: readonly (readonly SqlValue[])[];
      /** Parameters after those of a tuple, the same for all. */
      readonly more: readonly SqlValue[];
    };

/**
 * Work on the database. It yields each {@link Statement} and resumes with its answer. So the same code serves
 * both engines: SQLite runs it synchronously in its thread ({@link runSync}), PostgreSQL awaits each answer
 * ({@link runAsync}).
 */
export type Sql<T> = Generator<Statement, T, unknown>;

export function* rows(sql: string, ...values: readonly SqlValue[]): Sql<readonly Row[]> {
  return (yield { kind: 'rows', sql, values }) as readonly Row[];
}

/** The first row. */
export function* row(sql: string, ...values: readonly SqlValue[]): Sql<Row | undefined> {
  return (yield { kind: 'row', sql, values }) as Row | undefined;
}

/** @returns the number of changed rows. */
export function* run(sql: string, ...values: readonly SqlValue[]): Sql<number> {
  return (yield { kind: 'run', sql, values }) as number;
}

/** Runs a statement that changes one row. @throws Untrusted when it changes none, or several. */
export function* runOne(sql: string, ...values: readonly SqlValue[]): Sql<void> {
  requireWritten(yield* run(sql, ...values), 1, sql);
}

/** @throws Untrusted when a statement has not written all its rows: something in the schema dropped them. */
export function requireWritten(written: number, rows: number, sql: string): void {
  if (written === rows) return;
  const [, table] = /^\s*(?:INSERT INTO|UPDATE)\s+(\w+)/.exec(sql) ?? [];
  throw new Untrusted(`the database wrote ${written} of ${rows} rows into ${table}`);
}

/** @returns the rows of each tuple, in the order of the tuples. Without tuples no statement runs. */
export function* each(
  query: EachQuery,
  tuples: readonly (readonly SqlValue[])[],
  ...more: readonly SqlValue[]
): Sql<readonly (readonly Row[])[]> {
  if (tuples.length === 0) return [];
  return (yield { kind: 'each', query, tuples, more }) as readonly (readonly Row[])[];
}

/** The first row for each id, by id; ids without rows are left out. */
export function* firstOfEach(query: EachQuery, ids: Iterable<string>): Sql<Map<string, Row>> {
  const distinct = [...new Set(ids)];
  const found = yield* each(
    query,
    distinct.map((id) => [id]),
  );
  return new Map(
    distinct.flatMap((id, at) => {
      const first = found[at]?.[0];
      return first === undefined ? [] : [[id, first] as const];
    }),
  );
}

/** @returns the returned rows of all tuples. Without tuples no statement runs. */
export function* insert(query: EachQuery, tuples: readonly (readonly SqlValue[])[]): Sql<readonly Row[]> {
  if (tuples.length === 0) return [];
  return (yield { kind: 'insert', query, tuples, more: [] }) as readonly Row[];
}

/** Runs work on a synchronous database. */
export function runSync<T>(work: Sql<T>, execute: (statement: Statement) => unknown): T {
  let step = work.next();
  while (step.done !== true) step = work.next(execute(step.value));
  return step.value;
}

/** Runs work on an asynchronous database. */
export async function runAsync<T>(
  work: Sql<T>,
  execute: (statement: Statement) => Promise<unknown>,
): Promise<T> {
  let step = work.next();
  while (step.done !== true) step = work.next(await execute(step.value));
  return step.value;
}
