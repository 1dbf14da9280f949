import { needs } from '@bundoc/shared/testing/programs';
import { describe, expect, it } from 'vitest';
import type { Database } from '../src/engine/postgres/database/database.ts';
import { migrate, readMigrations, SchemaMismatch } from '../src/engine/postgres/database/migrate.ts';
import { openTestDatabase } from '../src/testing/postgres-project.ts';
import { server, usePostgresEngine } from './support/postgres-engine.ts';

describe('PostgreSQL', needs('postgresql'), () => {
  usePostgresEngine();

  describe('the schema', () => {
    const withDatabase = async (name: string, action: (fresh: Database) => Promise<void>) => {
      await using fresh = openTestDatabase((await server.createDatabase(name)).url);
      await action(fresh);
    };

    it('is migrated once by nodes that start together', async () => {
      await withDatabase('together', async (fresh) => {
        await Promise.all([1, 2, 3, 4].map(() => migrate(fresh)));
        expect(await server.sql('SELECT count(*) FROM bundoc.migrations', 'together')).toBe(
          String(readMigrations().length),
        );
      });
    });

    it('from before storages is migrated without projects, and left unchanged with one', async () => {
      const known = readMigrations();
      const former = known.filter(({ version }) => version < 4);
      await withDatabase('former', async (fresh) => {
        await migrate(fresh, former);
        await fresh.run("INSERT INTO bundoc.projects (project, file) VALUES ('p', '{}')");
        await expect(migrate(fresh)).rejects.toThrow(/export them with that build/);
        await migrate(fresh, former);
        await fresh.run('DELETE FROM bundoc.projects');
        await migrate(fresh);
      });
    });

    it('works with the previous build, and is refused by one that is too old for it', async () => {
      await withDatabase('newer', async (fresh) => {
        const known = readMigrations();
        const { version = 0 } = known.at(-1) ?? {};
        const next = { version: version + 1, text: 'SELECT 1', worksFrom: version };
        await migrate(fresh, [...known, next]);
        await migrate(fresh, known);
        await migrate(fresh, [
          ...known,
          next,
          { version: version + 2, text: 'SELECT 1', worksFrom: version + 1 },
        ]);
        await expect(migrate(fresh, known)).rejects.toThrow(SchemaMismatch);
      });
    });
  });
});
