import type { EachQuery, Sql, SqlValue } from './statement.ts';

/** Column types for lists of parameters. */
export type SqlType = 'text' | 'integer' | 'bigint' | 'bytea';

/**
 * The differences between SQLite and PostgreSQL in the queries of the repository. Expressions match those of
 * the indexes exactly: otherwise the engine does not use them.
 */
export interface Dialect {
  /** The table of the audit chain, for reads that must not depend on settings of the session. */
  readonly auditTable: string;
  /** A clause after the name of a table that makes SQLite use an index. PostgreSQL needs none. */
  indexedBy(index: string): string;
  /** An expression for a column that prevents the use of an index. */
  unindexed(column: string): string;
  /** A condition that a text column contains a text; both are SQL. */
  contains(column: string, text: string): string;
  /** An expression for the text of a member of `detail`. */
  detailMember(name: string, table: string): string;
  /** The member `storage` of `detail`. */
  readonly storageOfDetail: string;
  /** A condition for a record with the action `$1` and the detail `$2` and without a key. */
  readonly isSameRecord: string;
  /** Conditions and orders of the indexes for descending reads. PostgreSQL's are on `-seq`. */
  newerThan(seq: string, than: string): string;
  olderThan(seq: string, than: string): string;
  newestFirst(seq: string): string;
  oldestFirst(seq: string): string;
  /**
   * Joins the first row of a query, given its columns, as `a`. The query reads `audit` and has the column
   * `seq`.
   */
  leftJoinAudit(select: (columns: string) => string): string;
  /** @param select the query for the parameters of one tuple. Further parameters are numbered after those. */
  forEach(types: readonly SqlType[], select: (...parameters: string[]) => string): EachQuery;
  /** @param rest the SQL after the values. */
  insertEach(
    table: string,
    columns: readonly (readonly [name: string, type: SqlType])[],
    rest: string,
  ): EachQuery;
  /**
   * Makes an upsert return for each row whether it `replaced` another one, if {@link noteRemoval} needs that.
   */
  readonly returningReplaced: string;
  /** Records, in the same write, that wrapped keys were removed. */
  readonly noteRemoval: string | undefined;
  /** The column of expiry in the tables of claims and presences. */
  readonly untilColumn: string;
  /** Translates times of callers for storage there: PostgreSQL uses its own clock for all nodes. */
  clockTranslation(now: string): Sql<(time: string) => SqlValue>;
}
