import type { ClientBase } from 'pg';
import type { Row } from '../row-records.ts';

/** Runs statements, one after another, on one connection. */
export interface Session {
  rows(sql: string, ...values: readonly unknown[]): Promise<Row[]>;
  row(sql: string, ...values: readonly unknown[]): Promise<Row | undefined>;
  /** @returns the number of rows that were changed. */
  run(sql: string, ...values: readonly unknown[]): Promise<number>;
}

/**
 * Names of prepared statements by their text. There are a bounded number of texts: none is made of what
 * callers say.
 */
const names = new Map<string, string>();

/** A statement with parameters is parsed and planned once for each connection. */
export function sessionOf(client: ClientBase): Session {
  const query = (sql: string, values: readonly unknown[]) =>
    client.query<Row>({ name: nameOf(sql), text: sql, values: [...values] });
  return {
    rows: async (sql, ...values) => (await query(sql, values)).rows,
    row: async (sql, ...values) => (await query(sql, values)).rows[0],
    run: async (sql, ...values) => (await query(sql, values)).rowCount ?? 0,
  };
}

function nameOf(sql: string): string {
  const known = names.get(sql);
  if (known !== undefined) return known;
  const name = `bunkms_${names.size}`;
  names.set(sql, name);
  return name;
}
