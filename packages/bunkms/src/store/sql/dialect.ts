import type { EachQuery, Sql, SqlValue } from './statement.ts';

/** Types of the columns that lists of parameters are made of. */
export type SqlType = 'text' | 'integer' | 'bigint' | 'bytea';

/**
 * Where SQLite and PostgreSQL differ in what the repository asks. Expressions are those of the engine's
 * indexes: only so it uses them.
 */
export interface Dialect {
  /** Behind the name of a table: makes SQLite use that index. PostgreSQL finds it by itself. */
  indexedBy(index: string): string;
  /** A column that no index shall be chosen for. */
  unindexed(column: string): string;
  /** Whether a column of text has that text in it; both are SQL. */
  contains(column: string, text: string): string;
  /** The text of a member of `detail`. */
  detailMember(name: string, table: string): string;
  /** The member `storage` of `detail`. */
  readonly storageOfDetail: string;
  /** What holds of a record with the action `$1` and the detail `$2`, of no key. */
  readonly isSameRecord: string;
  /**
   * Conditions and orders of the indexes that are read from the newest record back. PostgreSQL's are on
   * `-seq`.
   */
  newerThan(seq: string, than: string): string;
  olderThan(seq: string, than: string): string;
  newestFirst(seq: string): string;
  oldestFirst(seq: string): string;
  /**
   * Joins the first row of a query, by its choice of columns, as `a`. The query is of `audit` and has the
   * column `seq`.
   */
  leftJoinAudit(select: (columns: string) => string): string;
  /** @param select the query, of the parameters of one tuple; further ones are numbered behind those. */
  forEach(types: readonly SqlType[], select: (...parameters: string[]) => string): EachQuery;
  /** @param rest what follows the values. */
  insertEach(
    table: string,
    columns: readonly (readonly [name: string, type: SqlType])[],
    rest: string,
  ): EachQuery;
  /**
   * Makes an upsert say of each row whether it `replaced` another one, where {@link noteRemoval} has to know.
   */
  readonly returningReplaced: string;
  /** Notes, in the same write, that wrapped keys were taken out. */
  readonly noteRemoval: string | undefined;
  /** Column of a time in the tables of claims and presences. */
  readonly untilColumn: string;
  /** How times of callers are stored there: PostgreSQL has its own clock, by which all nodes are measured. */
  clockTranslation(now: string): Sql<(time: string) => SqlValue>;
}
