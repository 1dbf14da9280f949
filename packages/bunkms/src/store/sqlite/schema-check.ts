import { DatabaseSync } from 'node:sqlite';
import { createSchema } from './schema.ts';

interface SchemaObject {
  readonly type: string;
  readonly name: string;
  readonly table: string;
  readonly sql: string | null;
}

/** The database's own tables of statistics (`ANALYZE`), and of sequences of `AUTOINCREMENT`. */
const INTERNAL = /^sqlite_(stat\d|sequence)/;

/**
 * Compares the schema of a database with the one that this release makes. The schema is read again only when
 * it has changed: SQLite counts its changes.
 */
export class SchemaCheck {
  readonly #database: DatabaseSync;
  readonly #expected: ReadonlyMap<string, SchemaObject>;
  #version: unknown;
  #foreign: readonly string[] = [];

  /** @param database with the schema, and without an authorizer yet. */
  constructor(database: DatabaseSync) {
    this.#database = database;
    const own = new DatabaseSync(':memory:');
    try {
      createSchema(own);
      this.#expected = new Map(objectsOf(own).map((object) => [keyOf(object), object]));
    } finally {
      own.close();
    }
  }

  /** A text for each difference, in order. */
  foreign(): readonly string[] {
    const version = this.#database.prepare('PRAGMA schema_version').get()?.['schema_version'];
    if (version === this.#version) return this.#foreign;
    const found = objectsOf(this.#database);
    const names = new Set(found.map(keyOf));
    const missing = [...this.#expected.values()].filter((object) => !names.has(keyOf(object)));
    this.#foreign = [
      ...found.filter((object) => !this.#isAllowed(object)).map(textOf),
      ...missing.map((object) => `${textOf(object)} is missing`),
    ].sort();
    this.#version = version;
    return this.#foreign;
  }

  #isAllowed(object: SchemaObject): boolean {
    const expected = this.#expected.get(keyOf(object));
    if (expected !== undefined) return expected.sql === object.sql && expected.table === object.table;
    // A table of its own does nothing to others.
    if (object.type === 'table') return !isVirtual(object);
    return object.type === 'index' && this.#isPlain(object);
  }

  /** Whether an index has only columns, of all rows, and forbids nothing. */
  #isPlain({ name, table }: SchemaObject): boolean {
    const index = this.#database
      .prepare('SELECT "unique", partial FROM pragma_index_list(?) WHERE name = ?')
      .get(table, name);
    const expressions = this.#database
      .prepare('SELECT count(*) AS count FROM pragma_index_info(?) WHERE cid = -2')
      .get(name);
    const isOfOwnTable = !this.#expected.has(`table ${table}`);
    return (
      isOfOwnTable || (index?.['unique'] === 0 && index['partial'] === 0 && expressions?.['count'] === 0)
    );
  }
}

function objectsOf(database: DatabaseSync): SchemaObject[] {
  const found = database.prepare('SELECT type, name, tbl_name AS "table", sql FROM sqlite_schema').all();
  return (found as unknown as SchemaObject[]).filter(({ name }) => !INTERNAL.test(name));
}

function isVirtual({ sql }: SchemaObject): boolean {
  return sql === null || /^\s*CREATE\s+VIRTUAL/i.test(sql);
}

function keyOf({ type, name }: SchemaObject): string {
  return `${type} ${name}`;
}

function textOf({ type, name, table }: SchemaObject): string {
  return type === 'table' ? `table ${name}` : `${type} ${name} on ${table}`;
}
