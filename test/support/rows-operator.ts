import pg from 'pg';
import { forgedDeletion, forgedMove, forgedStorage, type HostileStorage } from './storage-operator.ts';

interface Column {
  readonly name: string;
  readonly type: string;
}

/**
 * An attacker who may do anything in the schema of a database while no node runs, and knows its tables, but
 * has no key.
 */
export class RowsOperator implements HostileStorage {
  readonly #client: pg.Client;
  readonly #projects: readonly string[];
  #tables: ReadonlyMap<string, readonly Column[]> = new Map();
  /** The tables whose rows belong to projects. */
  #projectTables: readonly string[] = [];
  #copies = 0;
  #identity = '';
  #marks: readonly string[] = [];

  /** @param projects existing projects, and some that never existed. */
  constructor(url: string, projects: readonly string[]) {
    this.#client = new pg.Client(url);
    this.#projects = projects;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#client.end();
  }

  async keepCopy(): Promise<void> {
    if (this.#copies === 0) await this.#begin();
    for (const table of this.#tables.keys())
      await this.#client.query(`CREATE TABLE copies.${table}_${this.#copies} AS TABLE bundoc.${table}`);
    this.#copies++;
  }

  async keepIdentity(): Promise<void> {
    const { rows } = await this.#client.query<{ file: string }>('SELECT file FROM bundoc.storage');
    this.#identity = rows[0]?.file ?? '';
  }

  keepMarks(marks: readonly string[]): void {
    this.#marks = marks;
  }

  async reset(): Promise<void> {
    const tables = [...this.#tables.keys()];
    const latest = this.#copies - 1;
    await this.#client.query(
      ['BEGIN', `TRUNCATE ${tables.map((table) => `bundoc.${table}`).join(', ')}`]
        .concat(
          tables.map((table) => `INSERT INTO bundoc.${table} TABLE copies.${table}_${latest}`),
          `UPDATE bundoc.storage SET file = '${this.#identity}', changed_at = now()`,
          'COMMIT',
        )
        .join('; '),
    );
  }

  async act(random: () => number): Promise<string> {
    const oneOf = <T>(all: readonly T[]): T => all[Math.floor(random() * all.length)] as T;
    const table = oneOf([...this.#tables.keys()]);
    const column = oneOf(this.#tables.get(table) ?? []);
    const older = `copies.${table}_${Math.floor(random() * this.#copies)}`;
    const row = await this.#rowOf(`bundoc.${table}`, random);
    const other = await this.#rowOf(oneOf([`bundoc.${table}`, older]), random);
    const project = oneOf(this.#projects);
    const mark = oneOf([forgedDeletion(project, random), forgedMove(project, random), oneOf(this.#marks)]);
    const storage = forgedStorage(this.#identity, random);
    const at = `bundoc.${table} SET ${column.name}`;
    const from = other === undefined ? '' : `${other.table} WHERE ctid = '${other.at}'`;
    const acts: Readonly<Record<string, string>> = {
      'another value': `UPDATE ${at} = (SELECT ${column.name} FROM ${from}) WHERE ctid = '${row?.at}'`,
      'a made value': `UPDATE ${at} = ${madeValue(column, random)} WHERE ctid = '${row?.at}'`,
      'no value': `UPDATE ${at} = NULL WHERE ctid = '${row?.at}'`,
      'one value everywhere': `UPDATE ${at} = ${madeValue(column, random)}`,
      'of another project': `UPDATE bundoc.${table} SET project = '${project}' WHERE ctid = '${row?.at}'`,
      'a row less': `DELETE FROM bundoc.${table} WHERE ctid = '${row?.at}'`,
      'a table less': `DELETE FROM bundoc.${table}`,
      'a project’s rows less': `DELETE FROM bundoc.${table} WHERE project = '${project}'`,
      'an older row': `INSERT INTO bundoc.${table} SELECT * FROM ${from} ON CONFLICT DO NOTHING`,
      'an older table': `DELETE FROM bundoc.${table}; INSERT INTO bundoc.${table} TABLE ${older}`,
      'an older project': this.#projectTables
        .map(
          (name) =>
            `DELETE FROM bundoc.${name} WHERE project = '${project}'; INSERT INTO bundoc.${name} SELECT * FROM copies.${older.replace(/.*_/, `${name}_`)} WHERE project = '${project}'`,
        )
        .join('; '),
      'a mark for a file': planted(project, mark),
      'a mark': `INSERT INTO bundoc.projects (project, marker) VALUES ('${project}', '${mark}') ON CONFLICT (project) DO UPDATE SET marker = excluded.marker`,
      'a mark for content': `DELETE FROM bundoc.heads WHERE project = '${project}'; UPDATE bundoc.projects SET file = NULL, marker = '${mark}' WHERE project = '${project}'`,
      'the mark of the deleted one': `UPDATE bundoc.projects SET marker = (SELECT replace(one.marker, one.project, '${project}') FROM bundoc.projects AS one WHERE one.file IS NULL LIMIT 1) WHERE project = '${project}'`,
      'a fence': `INSERT INTO bundoc.fenced_heads SELECT * FROM bundoc.heads WHERE project = '${project}'; DELETE FROM bundoc.heads WHERE project = '${project}' AND ${random() < 0.5}; UPDATE bundoc.projects SET marker = '${mark}' WHERE project = '${project}' AND ${random() < 0.7}`,
      'another storage': `UPDATE bundoc.storage SET file = '${storage}'`,
      'an older storage': `UPDATE bundoc.storage SET file = (SELECT file FROM copies.storage_${Math.floor(random() * this.#copies)})`,
      'no storage': 'DELETE FROM bundoc.storage',
      'another’s file': `UPDATE bundoc.projects SET file = (SELECT replace(file, '${project}', projects.project) FROM bundoc.projects AS one WHERE project = '${project}')`,
    };
    const kind = oneOf(Object.keys(acts));
    const done = await this.#try(acts[kind] as string);
    return `${kind} ${table}.${column.name} ${project}${done}`;
  }

  /** Runs a statement. One that the schema refuses has no effect. */
  async #try(text: string): Promise<string> {
    try {
      await this.#client.query(text);
      return '';
    } catch (error) {
      return ` (${(error as Error).message})`;
    }
  }

  async #rowOf(table: string, random: () => number): Promise<{ table: string; at: string } | undefined> {
    const { rows } = await this.#client.query<{ at: string }>(
      `SELECT ctid::text AS at FROM ${table} ORDER BY ctid`,
    );
    const row = rows[Math.floor(random() * rows.length)];
    return row && { table, at: row.at };
  }

  /** Removes the constraints of the schema, as its owner may. */
  async #begin(): Promise<void> {
    const client = this.#client;
    await client.connect();
    await client.query('CREATE SCHEMA copies');
    const { rows } = await client.query<{ table: string; name: string; type: string }>(
      `SELECT table_name AS table, column_name AS name, data_type AS type FROM information_schema.columns
       WHERE table_schema = 'bundoc' ORDER BY table_name, ordinal_position`,
    );
    this.#tables = Map.groupBy(rows, ({ table }) => table);
    this.#projectTables = [...new Set(rows.filter(({ name }) => name === 'project').map((row) => row.table))];
    const checks = await client.query<{ text: string }>(
      `SELECT format('ALTER TABLE %s DROP CONSTRAINT %I', conrelid::regclass, conname) AS text FROM pg_constraint
       WHERE connamespace = 'bundoc'::regnamespace AND contype IN ('c', 'f')`,
    );
    for (const { text } of checks.rows) await client.query(text);
    for (const { table, name } of rows)
      await this.#try(`ALTER TABLE bundoc.${table} ALTER COLUMN ${name} DROP NOT NULL`);
  }
}

function planted(project: string, text: string): string {
  return `INSERT INTO bundoc.projects VALUES ('${project}', '${text}') ON CONFLICT (project) DO UPDATE SET file = excluded.file`;
}

/** As SQL. */
function madeValue({ type }: Column, random: () => number): string {
  const of = (all: readonly string[]): string => all[Math.floor(random() * all.length)] as string;
  const bytes = Array.from({ length: Math.floor(random() * 80) }, () => Math.floor(random() * 256));
  switch (type) {
    case 'bytea':
      return `'\\x${Buffer.from(bytes).toString('hex')}'::bytea`;
    case 'boolean':
      return of(['true', 'false']);
    case 'uuid':
      return 'gen_random_uuid()';
    case 'text':
      return of(["''", "'a'", "'{}'", "'null'", "repeat('[', 100000)", "repeat('x', 20000000)"]);
    case 'timestamp with time zone':
      return of(["'infinity'", "'-infinity'", "'2200-01-01'", 'now()']);
    case 'integer':
      return of(['0', '-1', '1', '2', '2147483647']);
    case 'bigint':
      return of(['0', '-1', '1', '3', '2147483648', '9007199254740991', '9223372036854775807']);
    default:
      return 'NULL';
  }
}
