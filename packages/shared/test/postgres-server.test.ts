import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { PostgresServer } from '../src/testing/postgres-server.ts';
import { needs } from '../src/testing/programs.ts';

describe('the PostgreSQL of the tests', needs('postgresql'), () => {
  const servers: PostgresServer[] = [];
  let primary: PostgresServer;
  beforeAll(async () => {
    primary = await PostgresServer.start();
    servers.push(primary);
  });
  afterAll(async () => {
    for (const server of servers) await server[Symbol.asyncDispose]();
  });

  it('creates databases that belong to their role', async () => {
    const { name, url } = await primary.createDatabase('app');
    expect(url).toContain(`:${primary.port}/app`);
    expect(
      await primary.sql(
        'SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()',
        name,
      ),
    ).toBe('app');
  });

  it('has on the promoted standby all commits from before the primary was killed', async () => {
    await primary.sql('CREATE TABLE kept (n int)', 'app');
    const standby = await primary.startStandby('first');
    servers.push(standby);
    await primary.sql('INSERT INTO kept SELECT generate_series(1, 100)', 'app');
    await primary.kill();
    expect(primary.running).toBe(false);
    await standby.promote();
    await standby.sql('INSERT INTO kept VALUES (101)', 'app');
    expect(await standby.sql('SELECT count(*) FROM kept', 'app')).toBe('101');
    expect(await standby.dump('app')).toContain('CREATE TABLE public.kept');
  });
});
