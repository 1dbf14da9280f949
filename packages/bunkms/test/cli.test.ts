import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { exportedKeySchema } from '@bundoc/shared/contract/keys';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { databasePathOf } from '../src/store/sqlite.ts';
import { call } from './support/http.ts';
import { bunkms, type Finished, startServer } from './support/process.ts';

describe('the command line', () => {
  let folder: string;
  let environment: { BUNKMS_DATA_DIR: string; BUNKMS_KEK_FILE: string };
  let tokenFile: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'bunkms-cli-'));
    environment = { BUNKMS_DATA_DIR: join(folder, 'kms'), BUNKMS_KEK_FILE: join(folder, 'secrets', 'kek') };
    tokenFile = join(folder, 'secrets', 'token');
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  const run = (...args: string[]) => bunkms(environment, ...args);
  const init = () => run('init', '--create-kek', '--service-token', tokenFile);
  const claimsOf = (token: string) =>
    JSON.parse(Buffer.from(String(token.split('.')[1]), 'base64url').toString());
  const edit = (sql: string) => {
    const database = new DatabaseSync(databasePathOf(environment.BUNKMS_DATA_DIR));
    database.exec(sql);
    database.close();
  };
  /** One line on stderr, no stack, nothing on stdout. */
  const expectFailure = (finished: Finished, code: number, message: RegExp) => {
    expect(finished.stderr.trim()).toMatch(message);
    expect(finished.stderr.trim().split('\n')).toHaveLength(1);
    expect({ code: finished.code, stdout: finished.stdout }).toEqual({ code, stdout: '' });
  };

  test('makes an installation once, however often and however concurrently it is asked to', async () => {
    const [first] = await Promise.all([init(), init(), init()]);
    expect(first.code).toBe(0);
    const kek = readFileSync(environment.BUNKMS_KEK_FILE, 'utf8');
    expect(Buffer.from(kek.trim(), 'base64')).toHaveLength(32);
    for (const path of [environment.BUNKMS_KEK_FILE, tokenFile])
      expect(statSync(path).mode & 0o777).toBe(0o600);
    const token = readFileSync(tokenFile, 'utf8').trim();
    expect(claimsOf(token)).toMatchObject({
      aud: 'bunkms',
      sub: 'bundoc',
      typ: 'service',
      scope: 'kms:create_key kms:export_key kms:read_key',
      keys: ['*-dek'],
    });
    expect(await init()).toMatchObject({ code: 0, stdout: '', stderr: '' });
    expect(readFileSync(environment.BUNKMS_KEK_FILE, 'utf8')).toBe(kek);
    expect(readFileSync(tokenFile, 'utf8').trim()).toBe(token);
    expect((await run('audit', 'verify')).code).toBe(0);
  });

  test('replaces a service token that does not hold any more', async () => {
    await init();
    const token = readFileSync(tokenFile, 'utf8').trim();
    expect((await run('token', 'revoke', claimsOf(token).jti)).code).toBe(0);
    await init();
    const second = readFileSync(tokenFile, 'utf8').trim();
    expect(second).not.toBe(token);
    writeFileSync(tokenFile, 'garbage');
    await init();
    expect(claimsOf(readFileSync(tokenFile, 'utf8').trim())).toMatchObject({ sub: 'bundoc' });
  });

  test('never makes a new KEK for a store that has one', async () => {
    await init();
    rmSync(environment.BUNKMS_KEK_FILE);
    expectFailure(await init(), 1, /the KEK file is gone/);
    expect(existsSync(environment.BUNKMS_KEK_FILE)).toBe(false);
  });

  test('issues tokens that a running server takes, and revokes them at once', async () => {
    await init();
    await using server = await startServer(environment);
    const issued = await run(
      ...['token', 'issue', '--typ', 'service', '--sub', 'ops', '--ttl', '15m', '--json'],
      ...['--scope', 'kms:create_key kms:export_key', '--keys', 'a-*,b-*', '--keys', 'c-*'],
    );
    expect(issued).toMatchObject({ code: 0, stderr: '' });
    const { token, jti, keys } = JSON.parse(issued.stdout);
    expect(keys).toEqual(['a-*', 'b-*', 'c-*']);
    expect(claimsOf(token).exp - claimsOf(token).iat).toBe(900);
    const body = { name: 'a-dek', type: 'aes-256' };
    expect((await call(server.apiUrl, '/v1/keys', { token, body })).status).toBe(201);
    const answer = await call(server.internalUrl, '/v1/export/a-dek', { token });
    const { audit } = exportedKeySchema.parse(answer.json());

    const verified = await run('audit', 'verify', '--receipt', `${audit.seq}:${audit.hash}`, '--json');
    expect(JSON.parse(verified.stdout)).toMatchObject({ intact: true });
    expect(await run('token', 'revoke', jti)).toMatchObject({ code: 0, stdout: '', stderr: '' });
    expect((await call(server.internalUrl, '/v1/export/a-dek', { token })).status).toBe(401);
    const list = await run('token', 'list', '--json');
    expect(JSON.parse(list.stdout).tokens.at(-1)).toMatchObject({
      jti,
      sub: 'ops',
      revoked_at: expect.any(String),
    });
    expect((await run('token', 'list')).stdout).toMatch(new RegExp(`^${jti}  revoked  service  ops`, 'm'));
    expect(JSON.parse((await run('status', '--json')).stdout)).toMatchObject({
      status: 'unsealed',
      keys: 1,
      tokens: 2,
    });
  });

  test('prints a token and nothing else', async () => {
    await init();
    const { code, stdout } = await run(
      ...['token', 'issue', '--typ', 'client', '--sub', 'app', '--scope', 'docs:read docs:write'],
      ...['--project', 'Project-A', '--projects', 'b,c'],
    );
    expect(code).toBe(0);
    expect(stdout).toMatch(/^[\w-]+\.[\w-]+\.[\w-]+\n$/);
    expect(claimsOf(stdout)).toMatchObject({ aud: 'bundoc', projects: ['project-a', 'b', 'c'] });
  });

  test('names the first broken record of the chain, and misses records that a receipt proves', async () => {
    await init();
    for (const sub of ['a', 'b', 'c'])
      await run('token', 'issue', '--typ', 'service', '--sub', sub, '--scope', 'kms:read_key');
    const { head } = JSON.parse((await run('audit', 'verify', '--json')).stdout);
    edit(`DELETE FROM audit WHERE seq = ${head.seq}`);
    expect((await run('audit', 'verify')).code).toBe(0);
    expectFailure(
      await run('audit', 'verify', '--receipt', `${head.seq}:${head.hash}`),
      1,
      /record 5 is missing/,
    );
    edit(`UPDATE audit SET detail = 'no json' WHERE seq = 4`);
    expectFailure(await run('audit', 'verify'), 1, /broken: record 4 is changed/);
    edit(`UPDATE audit SET actor = 'somebody' WHERE seq = 3`);
    expectFailure(await run('audit', 'verify'), 1, /broken: record 3 is changed/);
    edit('DELETE FROM audit WHERE seq = 2');
    const found = await run('audit', 'verify', '--json');
    expect([found.code, JSON.parse(found.stdout)]).toEqual([
      1,
      { intact: false, fault: { seq: 2, reason: 'missing' } },
    ]);
  });

  test('says that it is sealed, and changes nothing then', async () => {
    await init();
    writeFileSync(environment.BUNKMS_KEK_FILE, `${'ab'.repeat(32)}\n`);
    for (const args of [
      ['token', 'issue', '--typ', 'service', '--sub', 'x', '--scope', 'kms:admin'],
      ['audit', 'verify'],
      ['init'],
    ])
      expectFailure(await run(...args), 1, /bunkms: sealed: the ring lacks the KEK/);
    const status = await run('status');
    expect(status.code).toBe(1);
    expect(status.stdout).toContain('status: sealed');
  });

  test.each<[string[], RegExp]>([
    [['token', 'issue'], /required option/],
    [['token', 'issue', '--typ', 'root', '--sub', 'x', '--scope', 'kms:admin'], /--typ/],
    [['token', 'issue', '--typ', 'client', '--sub', 'x', '--scope', 'kms:export_key'], /only service tokens/],
    [['token', 'issue', '--typ', 'client', '--sub', 'x', '--scope', 'docs:read', '--ttl', 'soon'], /ttl/],
    [['token', 'revoke'], /missing required argument/],
    [['audit', 'verify', '--receipt', 'x'], /receipt/],
    [['frobnicate'], /unknown command/],
    [['status', '--loud'], /unknown option/],
  ])('takes %j for a mistake in usage: exit code 2', async (args, message) => {
    expectFailure(await run(...args), 2, message);
  });

  test('makes no store where there is none, and lists every fault of the configuration', async () => {
    expectFailure(await run('status'), 1, /run "bunkms init"/);
    expect(existsSync(environment.BUNKMS_DATA_DIR)).toBe(false);
    expectFailure(
      await bunkms({ BUNKMS_PORT: 'x', BUNKMS_STORAGE: 'y' }, 'status'),
      2,
      /BUNKMS_PORT.*BUNKMS_STORAGE.*BUNKMS_KEK_FILE/,
    );
    expectFailure(await run('token', 'revoke', 'nobody'), 1, /run "bunkms init"/);
  });
});
