import { execFileSync } from 'node:child_process';
import { hash } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import { PostgresServer } from '@bundoc/shared/testing/postgres-server';
import { needs } from '@bundoc/shared/testing/programs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { openPostgresStore } from '../src/store/postgres/postgres-store.ts';
import { bunkms } from './support/command.ts';
import { newDataDir, startKms, type TestKms } from './support/kms.ts';
import { KeyCalls } from './support/lifecycle.ts';
import { TestPki } from './support/pki.ts';
import { type PostgresDatabases, settingsOf } from './support/postgres.ts';
import { usePostgresStorage } from './support/use-postgres-storage.ts';

/** The abilities of an attacker with the database but without the KEK. */
describe('an attacker with the database of BunKMS', needs('postgresql'), () => {
  let databases: PostgresDatabases;
  let dataDir: string;
  let kms: TestKms;
  let keys: KeyCalls;
  const edit = (sql: string) => databases.edit(dataDir, sql);
  const of = (name: string) => `(SELECT id FROM keys WHERE name = '${name}')`;

  usePostgresStorage((started) => {
    databases = started;
  });
  beforeEach(async () => {
    dataDir = newDataDir();
    // A table that an attacker leaves for a moment would seal the service, depending on chance.
    kms = await startKms({ dataDir, watchEveryMs: 3_600_000 });
    keys = await KeyCalls.of(kms);
    for (const name of ['a-dek', 'b-dek']) await keys.make(name, 'enabled');
  });
  afterEach(async () => {
    await kms[Symbol.asyncDispose]();
    await databases.forget(dataDir);
    rmSync(dataDir, { recursive: true });
  });

  it('finds no key, no secret, no token and no idempotency key in it', async () => {
    const { token } = await kms.issue({ scope: ['kms:create_key', 'kms:export_key'], keys: ['*'] });
    const headers = { 'idempotency-key': 'a-telling-idempotency-key' };
    await kms.api('/v1/keys', { token, headers, body: { name: 'c-dek', type: 'aes-256' } });
    const deks = await Promise.all(
      ['a-dek', 'b-dek', 'c-dek'].map(async (name) =>
        Buffer.from((await keys.export(name)).json().key_material_b64, 'base64'),
      ),
    );
    const secrets = await kms.secrets();
    const sought = [...deks, Buffer.from(kms.kek, 'base64'), secrets.chainKey.export()];
    const dump = await databases.server.dump(new URL(await databases.url(dataDir)).pathname.slice(1));
    // Otherwise the search shows nothing.
    expect(dump).toContain('a-dek');
    const texts = [
      ...sought.flatMap((bytes) => [bytes.toString('hex'), bytes.toString('base64')]),
      ...[token, String(token.split('.')[2]), 'a-telling-idempotency-key'],
      hash('sha256', 'a-telling-idempotency-key', 'hex'),
    ];
    for (const text of texts) expect(dump.includes(text)).toBe(false);
  });

  it.each([
    [
      'changes its bytes',
      `UPDATE key_versions SET wrapped = set_byte(wrapped, 40, 255 - get_byte(wrapped, 40))`,
    ],
    [
      'gives it those of another',
      `UPDATE key_versions SET wrapped = (SELECT wrapped FROM key_versions AS o WHERE o.key_id = ${'$B'} AND o.version = key_versions.version)`,
    ],
    ['takes them away', 'DELETE FROM key_versions'],
    ['changes a policy', 'UPDATE keys SET exportable = false', 'id'],
    ['makes it an older one', 'UPDATE keys SET version = 1', 'id'],
    ['changes a check value', `UPDATE key_versions SET kcv = repeat('0', 32)`],
  ])('an attacker who %s damages only that key', async (_what, sql, column = 'key_id') => {
    await edit(`${sql.replace('$B', of('b-dek'))} WHERE ${column} = ${of('a-dek')}`);
    expect((await keys.export('a-dek')).json()).toMatchObject({ status: 503, code: 'key_damaged' });
    expect((await keys.create('a-dek')).json()).toMatchObject({ code: 'key_exists' });
    expect((await keys.export('b-dek')).status).toBe(200);
    expect(await kms.verify()).toMatchObject({ intact: true });
  });

  it('cannot enable a disabled key or restore a destroyed one by restoring its rows', async () => {
    await edit(
      'CREATE TABLE kept AS SELECT * FROM keys; CREATE TABLE kept_versions AS SELECT * FROM key_versions',
    );
    await keys.post('a-dek', 'disable');
    await keys.shred('b-dek');
    await edit(
      `DELETE FROM key_versions; DELETE FROM keys; INSERT INTO keys SELECT * FROM kept;
       INSERT INTO key_versions SELECT * FROM kept_versions; DROP TABLE kept, kept_versions`,
    );
    for (const name of ['a-dek', 'b-dek'])
      expect((await keys.export(name)).json()).toMatchObject({ status: 503, code: 'key_damaged' });
  });

  it.each([
    ['edits a record', `UPDATE audit SET actor = 'somebody' WHERE seq = 4`],
    ['takes out a record', 'DELETE FROM audit WHERE seq = 4'],
    [
      'exchanges two records',
      'UPDATE audit SET seq = -4 WHERE seq = 4; UPDATE audit SET seq = 4 WHERE seq = 5; UPDATE audit SET seq = 5 WHERE seq = -4',
    ],
    [
      'makes a record',
      `INSERT INTO audit SELECT (SELECT max(seq) + 1 FROM audit), time, severity, action, outcome, actor, jti, key, version, source, request_id, code, detail, prev_hash, hash, write_id FROM audit WHERE seq = 4`,
    ],
  ])('an attacker who %s of the chain is detected', async (_what, sql) => {
    expect(await kms.verify()).toMatchObject({ intact: true });
    await edit(sql);
    expect(await kms.verify()).toMatchObject({ intact: false });
  });

  it('finds no destroyed key in the table, however often it was wrapped', async () => {
    const bytes = Buffer.from((await keys.export('a-dek')).json().wrapped_b64, 'base64');
    expect(await databases.holds(dataDir, bytes)).toBe(true);
    await keys.shred('a-dek');
    expect(await databases.holds(dataDir, bytes)).toBe(false);
    expect(await kms.store.scrub()).toBe(true);
    const database = new URL(await databases.url(dataDir)).pathname.slice(1);
    // From the pages themselves: the server's statistics are updated late.
    await databases.server.sql('CREATE EXTENSION IF NOT EXISTS pgstattuple', database);
    const dead = await databases.server.sql(
      `SELECT dead_tuple_count FROM pgstattuple('bunkms.key_versions')`,
      database,
    );
    expect(dead).toBe('0');
  });
});

describe('a connection to PostgreSQL with TLS', needs('postgresql'), () => {
  it('is made only to a server with a certificate for its name', async () => {
    using pki = await TestPki.make();
    const folder = mkdtempSync(join(tmpdir(), 'bunkms-pg-tls-'));
    try {
      const good = pki.write('good', await pki.issue({ names: ['127.0.0.1'] }));
      const other = pki.write('other', await pki.issue(), await TestPki.newAuthority());
      execFileSync('cp', [String(good.cert?.path), String(good.key?.path), folder]);
      execFileSync('chmod', ['600', join(folder, 'key.pem')]);
      if (userInfo().uid === 0) execFileSync('chown', ['-R', 'postgres', folder]);
      await using server = await PostgresServer.start({
        settings: {
          ssl: 'on',
          ssl_cert_file: join(folder, 'cert.pem'),
          ssl_key_file: join(folder, 'key.pem'),
        },
      });
      const { url } = await server.createDatabase('kms');
      const open = (path: string | undefined, host = '127.0.0.1') => {
        const caFile = path === undefined ? undefined : { variable: 'BUNKMS_POSTGRES_CA_FILE', path };
        const settings = settingsOf(url, { sslMode: 'verify-full', caFile, host });
        return openPostgresStore({ settings, warn: () => undefined });
      };
      {
        await using store = await open(good.ca?.path);
        await store.probe();
        expect(
          await server.sql(
            'SELECT DISTINCT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = $$kms$$',
          ),
        ).toBe('t');
      }
      const refused = { name: 'ConnectionRefused', found: expect.stringContaining('certificate') };
      await expect(open(other.ca?.path)).rejects.toMatchObject(refused);
      await expect(open(undefined)).rejects.toMatchObject(refused);
      // The same server, under a name that is not in its certificate.
      await expect(open(good.ca?.path, 'localhost')).rejects.toMatchObject(refused);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

describe('the command line on PostgreSQL', needs('postgresql'), () => {
  it('creates, lists, verifies, backs up and restores a store, from one database into another', async () => {
    await using server = await PostgresServer.start();
    const folder = mkdtempSync(join(tmpdir(), 'bunkms-pg-cli-'));
    try {
      const environment = {
        BUNKMS_STORAGE: (await server.createDatabase('first')).url,
        BUNKMS_DATA_DIR: join(folder, 'data'),
        BUNKMS_KEK_FILE: join(folder, 'kek'),
      };
      const run = async (...args: string[]) => {
        const { code, stdout, stderr } = await bunkms(environment, ...args);
        expect(code, stderr).toBe(0);
        return stdout;
      };
      expect((await bunkms(environment, 'status')).stderr).toContain('"bunkms init"');
      await run('init', '--create-kek', '--service-token', join(folder, 'token'));
      await run('key', 'create', 'a-dek');
      await run('key', 'rotate', 'a-dek');
      await run('key', 'disable', 'a-dek');
      const status = JSON.parse(await run('status', '--json'));
      expect(status).toMatchObject({ status: 'unsealed', keys: 1, tokens: 1 });
      const receipt = (await run('audit', 'head')).trim();
      const backup = join(folder, 'backup');
      await run('backup', backup);
      expect((await bunkms(environment, 'restore', backup)).code).toBe(5);
      environment.BUNKMS_STORAGE = (await server.createDatabase('second')).url;
      expect((await bunkms(environment, 'status')).code).toBe(1);
      await run('restore', backup);
      expect(JSON.parse(await run('status', '--json'))).toMatchObject({ keys: 1 });
      expect(JSON.parse(await run('key', 'show', 'a-dek', '--json'))).toMatchObject({
        state: 'disabled',
        version: 2,
      });
      expect(JSON.parse(await run('audit', 'verify', '--receipt', receipt, '--json'))).toMatchObject({
        intact: true,
      });
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
