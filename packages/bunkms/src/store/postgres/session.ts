import type { ClientBase, QueryResult } from 'pg';
import type { Row } from '../sql/row-records.ts';
import { requireWritten, runAsync, type Sql, type SqlValue, type Statement } from '../sql/statement.ts';

/** Runs statements of a repository, one after another, on one connection. */
export interface Session {
  execute(statement: Statement): Promise<unknown>;
}

/**
 * Names of prepared statements by their text. The number of texts is bounded: none contains values of
 * callers.
 */
const names = new Map<string, string>();

/** Runs work of a repository on one connection. */
export function runOn<T>(session: Session, work: Sql<T>): Promise<T> {
  return runAsync(work, (statement) => session.execute(statement));
}

/** A session in which each statement with parameters is parsed and planned once per connection. */
export function sessionOf(client: ClientBase): Session {
  return {
    execute: async (statement) => {
      const result = await query(client, ...textOf(statement));
      if (statement.kind === 'insert')
        requireWritten(result.rowCount ?? 0, statement.tuples.length, statement.query.sql);
      return answerOf(statement, result);
    },
  };
}

function query(client: ClientBase, text: string, values: readonly unknown[]): Promise<QueryResult<Row>> {
  return client.query<Row>({ name: getStatementName(text), text, values: [...values] });
}

function textOf(statement: Statement): [text: string, values: readonly unknown[]] {
  switch (statement.kind) {
    case 'each':
    case 'insert':
      return [statement.query.sql, [...columnsOf(statement.tuples), ...statement.more]];
    default:
      return [statement.sql, statement.values];
  }
}

function answerOf(statement: Statement, { rows, rowCount }: QueryResult<Row>): unknown {
  switch (statement.kind) {
    case 'row':
      return rows[0];
    case 'run':
      return rowCount ?? 0;
    case 'each': {
      const found: Row[][] = statement.tuples.map(() => []);
      for (const row of rows) found[(row['place'] as number) - 1]?.push(row);
      return found;
    }
    default:
      return rows;
  }
}

/** The values of the tuples by column. In arrays, the driver supports bytes only as buffers. */
function columnsOf(tuples: readonly (readonly SqlValue[])[]): SqlValue[][] {
  const width = tuples[0]?.length ?? 0;
  return Array.from({ length: width }, (_, at) =>
    tuples.map((tuple) => {
      const value = tuple[at] ?? null;
      return value instanceof Uint8Array ? Buffer.from(value) : value;
    }),
  );
}

function getStatementName(sql: string): string {
  const known = names.get(sql);
  if (known !== undefined) return known;
  const name = `bunkms_${names.size}`;
  names.set(sql, name);
  return name;
}
