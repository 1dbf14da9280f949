import { needs } from '@bundoc/shared/testing/programs';
import { describe, expect, it } from 'vitest';
import { prepareSchema, SchemaMismatch } from '../src/engine/postgres/database/schema.ts';
import { openTestDatabase } from '../src/testing/postgres-project.ts';
import { server, usePostgresEngine } from './support/postgres-engine.ts';

describe('the schema in PostgreSQL', needs('postgresql'), () => {
  usePostgresEngine();

  it('is created once by nodes that start together', async () => {
    await using fresh = openTestDatabase((await server.createDatabase('together')).url);
    await Promise.all([1, 2, 3, 4].map(() => prepareSchema(fresh)));
    expect(await server.sql('SELECT count(*) FROM bundoc.migrations', 'together')).toBe('1');
  });

  it('a schema of another version in PostgreSQL is refused with the remedy, and left unchanged', async () => {
    await using other = openTestDatabase((await server.createDatabase('other')).url);
    await other.run(
      'CREATE SCHEMA bundoc; CREATE TABLE bundoc.migrations (version integer, works_from integer)',
    );
    await other.run('INSERT INTO bundoc.migrations VALUES (10, 8), (11, 8)');
    const refused = prepareSchema(other);
    await expect(refused).rejects.toBeInstanceOf(SchemaMismatch);
    await expect(refused).rejects.toThrow(/has schema 11 of another version.*by bundoc export/);
    expect(await server.sql("SELECT count(*) FROM pg_tables WHERE schemaname = 'bundoc'", 'other')).toBe('1');
  });
});
