import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Connection } from './connection.ts';

let folder: string;
let connection: Connection;
let attacker: DatabaseSync;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'bunkms-schema-'));
  const path = join(folder, 'bunkms.sqlite');
  connection = new Connection(path, 1_000);
  attacker = new DatabaseSync(path);
});
afterEach(() => {
  connection.close();
  attacker.close();
  rmSync(folder, { recursive: true });
});

describe('the schema in SQLite', () => {
  it('is the one of this release after it was made', () => {
    expect(connection.foreignObjects()).toEqual([]);
  });

  it('may have statistics, plain indexes and further tables', () => {
    attacker.exec(
      'CREATE INDEX by_code ON audit (code, seq DESC); CREATE TABLE notes (id PRIMARY KEY, text UNIQUE)',
    );
    attacker.exec('CREATE INDEX by_upper ON notes (upper(text)); ANALYZE');
    expect(connection.foreignObjects()).toEqual([]);
  });

  it.each([
    [
      'a trigger',
      'trigger t on audit',
      'CREATE TRIGGER t BEFORE INSERT ON audit BEGIN SELECT RAISE(IGNORE); END',
    ],
    ['a view', 'view v on v', 'CREATE VIEW v AS SELECT * FROM keys'],
    ['a virtual table', 'table v', 'CREATE VIRTUAL TABLE v USING fts5(text)'],
    ['an index of an expression', 'index i on audit', 'CREATE INDEX i ON audit (upper(action))'],
    ['a unique index', 'index i on audit', 'CREATE UNIQUE INDEX i ON audit (action)'],
    ['a partial index', 'index i on audit', "CREATE INDEX i ON audit (seq) WHERE action = 'x'"],
    ['a generated column', 'table keys', 'ALTER TABLE keys ADD COLUMN g INTEGER AS (1)'],
    ['a table without its constraints', 'table probe', 'DROP TABLE probe; CREATE TABLE probe (id, count)'],
    ['a missing index', 'index audit_keks on audit is missing', 'DROP INDEX audit_keks'],
  ])('differs by %s, until that is gone', (_, line, sql) => {
    attacker.exec('BEGIN');
    attacker.exec(sql);
    attacker.exec('COMMIT');
    expect(connection.foreignObjects()).toContain(line);
  });

  it('is whole again once the object is gone', () => {
    attacker.exec('CREATE VIEW v AS SELECT 1');
    expect(connection.foreignObjects()).toEqual(['view v on v']);
    attacker.exec('DROP VIEW v');
    expect(connection.foreignObjects()).toEqual([]);
  });

  it('lets no trigger run, not even within a statement that was prepared before', () => {
    const insert = () =>
      connection.run(
        "INSERT INTO claims (task, holder, until) VALUES ($1, 'h', 'u') ON CONFLICT DO NOTHING",
        'task',
      );
    insert();
    attacker.exec('CREATE TRIGGER t AFTER INSERT ON claims BEGIN DELETE FROM claims; END');
    expect(insert).toThrow(/not authorized|prohibited/);
    attacker.exec('DROP TRIGGER t');
    // The check reads the schema again, which a refused statement does not.
    expect(connection.foreignObjects()).toEqual([]);
    expect(insert()).toBe(0);
  });
});
