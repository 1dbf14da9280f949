import { readFileSync, writeFileSync } from 'node:fs';
import { PostgresServer } from '@bundoc/shared/testing/postgres-server';
import { needs } from '@bundoc/shared/testing/programs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Pools } from '../src/store/postgres/pools.ts';
import { openPostgresStore } from '../src/store/postgres/postgres-store.ts';
import { readSchema } from '../src/store/postgres/schema-check.ts';
import { settingsOf } from './support/postgres.ts';

/** `UPDATE_SCHEMA=1` writes it. A change of it belongs to a migration. */
const FILE = new URL('../migrations/schema.txt', import.meta.url);

describe('the schema in PostgreSQL', needs('postgresql'), () => {
  let server: PostgresServer;
  let count = 0;
  beforeAll(async () => {
    server = await PostgresServer.start();
  });
  afterAll(() => server[Symbol.asyncDispose]());

  /** What the check finds in a database of this release after some statements of a superuser. */
  async function after(...statements: string[]): Promise<readonly string[]> {
    const { name, url } = await server.createDatabase(`schema_${++count}`);
    await using store = await openPostgresStore({ settings: settingsOf(url), warn: () => undefined });
    for (const statement of statements) await server.sql(statement, name);
    return await store.foreignObjects();
  }

  it('is the one that migrations/schema.txt lists, line by line', async () => {
    const { url } = await server.createDatabase('schema');
    await using _store = await openPostgresStore({ settings: settingsOf(url), warn: () => undefined });
    const pools = new Pools(settingsOf(url));
    const lines = await pools.snapshot(readSchema()).finally(() => pools.close());
    if (process.env['UPDATE_SCHEMA'] === '1') writeFileSync(FILE, `${lines.join('\n')}\n`);
    expect(readFileSync(FILE, 'utf8').trimEnd().split('\n')).toEqual(lines);
  });

  it('is the same while indexes are rebuilt', async () => {
    const { name, url } = await server.createDatabase('rebuilt');
    await using store = await openPostgresStore({ settings: settingsOf(url), warn: () => undefined });
    let isDone = false;
    const rebuilt = (async () => {
      for (let n = 0; n < 5; n++) await server.sql('REINDEX SCHEMA CONCURRENTLY bunkms', name);
      isDone = true;
    })();
    const seen = new Set<string>();
    while (!isDone) for (const line of await store.foreignObjects()) seen.add(line);
    await rebuilt;
    expect([...seen]).toEqual([]);
  });

  it('may have statistics, grants, publications, plain indexes and an index that is being rebuilt', async () => {
    expect(
      await after(
        'CREATE STATISTICS bunkms.of_audit ON action, outcome FROM bunkms.audit; ANALYZE',
        'CREATE ROLE reader; GRANT USAGE ON SCHEMA bunkms TO reader; GRANT SELECT ON ALL TABLES IN SCHEMA bunkms TO reader',
        'CREATE PUBLICATION everything FOR ALL TABLES',
        'CREATE INDEX by_code ON bunkms.audit (code, seq DESC)',
        'CREATE UNIQUE INDEX keys_name_key_ccnew ON bunkms.keys (name)',
        'ALTER TABLE bunkms.audit ALTER COLUMN detail SET STATISTICS 500',
      ),
    ).toEqual([]);
  });

  const FUNCTION = `CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'`;
  it.each([
    [
      'a trigger',
      'trigger t on audit',
      FUNCTION,
      'CREATE TRIGGER t BEFORE INSERT ON bunkms.audit FOR EACH ROW EXECUTE FUNCTION f()',
    ],
    [
      'a deferred constraint trigger',
      'trigger t on keys',
      FUNCTION,
      'CREATE CONSTRAINT TRIGGER t AFTER UPDATE ON bunkms.keys DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION f()',
    ],
    ['a rule', 'rule r on audit', 'CREATE RULE r AS ON INSERT TO bunkms.audit DO INSTEAD NOTHING'],
    ['a policy', 'policy p on keys', 'CREATE POLICY p ON bunkms.keys USING (false)'],
    ['row security', 'table keys with row security', 'ALTER TABLE bunkms.keys ENABLE ROW LEVEL SECURITY'],
    [
      'a generated column',
      'column g on keys: integer generated default 1',
      'ALTER TABLE bunkms.keys ADD COLUMN g integer GENERATED ALWAYS AS (1) STORED',
    ],
    [
      'a default',
      'column detail on audit: text collate "C" default \'x\'::text',
      "ALTER TABLE bunkms.audit ALTER COLUMN detail SET DEFAULT 'x'",
    ],
    [
      'a check',
      "constraint c on keys: CHECK (state <> 'disabled'::text)",
      "ALTER TABLE bunkms.keys ADD CONSTRAINT c CHECK (state <> 'disabled')",
    ],
    [
      'an index of an expression',
      'index i on audit: USING btree (lower(action))',
      'CREATE INDEX i ON bunkms.audit (lower(action))',
    ],
    [
      'a foreign key with an action',
      'constraint c on tokens: FOREIGN KEY (family) REFERENCES keks(id) ON DELETE CASCADE',
      'ALTER TABLE bunkms.tokens ADD CONSTRAINT c FOREIGN KEY (family) REFERENCES bunkms.keks (id) ON DELETE CASCADE NOT VALID',
    ],
    ['inheritance', 'inheritance of audit', 'CREATE TABLE child () INHERITS (bunkms.audit)'],
    [
      'an event trigger',
      'event trigger e',
      `CREATE FUNCTION e() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'`,
      'CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION e()',
    ],
    [
      'a function that statements would use',
      'function unnest',
      `CREATE FUNCTION bunkms.unnest(bigint[]) RETURNS SETOF bigint LANGUAGE sql AS 'SELECT 1::bigint'`,
    ],
    [
      'an operator that statements would use',
      'operator =',
      `CREATE FUNCTION eq(text, bigint) RETURNS boolean LANGUAGE sql AS 'SELECT true'`,
      'CREATE OPERATOR bunkms.= (FUNCTION = eq, LEFTARG = text, RIGHTARG = bigint)',
    ],
    [
      'a view in place of a table',
      'relation of kind v claims',
      'ALTER TABLE bunkms.claims RENAME TO real',
      'CREATE VIEW bunkms.claims AS SELECT * FROM bunkms.real',
    ],
    ['a table that is not logged', 'table probe not logged', 'ALTER TABLE bunkms.probe SET UNLOGGED'],
    [
      'a missing constraint',
      'constraint audit_pkey on audit: PRIMARY KEY (seq) is missing',
      'ALTER TABLE bunkms.audit DROP CONSTRAINT audit_pkey',
    ],
    ['a disabled foreign key', 'is disabled', 'ALTER TABLE bunkms.keys DISABLE TRIGGER ALL'],
  ])('differs by %s', async (_, line, ...statements) => {
    expect(await after(...statements)).toContainEqual(expect.stringContaining(line));
  });
});
