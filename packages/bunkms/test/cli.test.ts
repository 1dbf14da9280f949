import { createPrivateKey, X509Certificate } from 'node:crypto';
import {
  appendFileSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { kekStatusSchema } from '@bundoc/shared/contract/kek';
import {
  destroyReceiptSchema,
  exportedKeySchema,
  keyDetailSchema,
  keyInfoSchema,
  keyPageSchema,
} from '@bundoc/shared/contract/keys';
import type { Finished } from '@bundoc/shared/testing/captured-run';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { bunkms } from './support/command.ts';
import { withDatabase } from './support/database.ts';
import { call } from './support/http.ts';
import { bunkmsProcess, healthcheck, startServer } from './support/process.ts';

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
  const edit = (sql: string) => withDatabase(environment.BUNKMS_DATA_DIR, (database) => database.exec(sql));
  /** One line on stderr, no stack, nothing on stdout. */
  const expectFailure = (finished: Finished, code: number, message: RegExp) => {
    expect(finished.stderr.trim()).toMatch(message);
    expect(finished.stderr.trim().split('\n')).toHaveLength(1);
    expect({ code: finished.code, stdout: finished.stdout }).toEqual({ code, stdout: '' });
  };

  test('creates an installation once, however often and concurrently init runs', async () => {
    const initProcess = () =>
      bunkmsProcess(environment, 'init', '--create-kek', '--service-token', tokenFile);
    for (const finished of await Promise.all([initProcess(), initProcess(), initProcess()]))
      expect(finished).toMatchObject({ code: 0, stdout: '' });
    const kek = readFileSync(environment.BUNKMS_KEK_FILE, 'utf8');
    expect(Buffer.from(kek.trim(), 'base64')).toHaveLength(32);
    for (const path of [environment.BUNKMS_KEK_FILE, tokenFile])
      expect(statSync(path).mode & 0o777).toBe(0o600);
    const token = readFileSync(tokenFile, 'utf8').trim();
    expect(claimsOf(token)).toMatchObject({
      aud: 'bunkms',
      sub: 'bundoc',
      typ: 'service',
      scope: 'kms:create_key kms:export_key kms:read_key kms:rotate_key kms:shred_key',
      keys: ['*-dek'],
    });
    expect(await init()).toMatchObject({ code: 0, stdout: '', stderr: '' });
    expect(readFileSync(environment.BUNKMS_KEK_FILE, 'utf8')).toBe(kek);
    expect(readFileSync(tokenFile, 'utf8').trim()).toBe(token);
    expect((await run('audit', 'verify')).code).toBe(0);
  });

  test('creates an authority and certificates once, even if init runs concurrently', async () => {
    const [authority, own] = [join(folder, 'authority'), join(folder, 'bunkms')];
    const withCertificates = () =>
      bunkmsProcess(
        environment,
        ...['init', '--create-kek', '--authority', authority],
        ...['--certificate', `${own}=bunkms-internal,127.0.0.1`],
      );
    for (const finished of await Promise.all([withCertificates(), withCertificates(), withCertificates()]))
      expect(finished).toMatchObject({ code: 0, stdout: '' });
    const pem = (file: string) => readFileSync(join(own, file));
    const cert = new X509Certificate(pem('cert.pem'));
    expect(cert.checkPrivateKey(createPrivateKey(pem('key.pem')))).toBe(true);
    expect(cert.verify(new X509Certificate(pem('ca.pem')).publicKey)).toBe(true);
    expect([cert.checkHost('bunkms-internal'), cert.checkIP('127.0.0.1')]).toEqual([
      'bunkms-internal',
      '127.0.0.1',
    ]);
    const before = pem('cert.pem');
    await withCertificates();
    expect(pem('cert.pem')).toEqual(before);

    expectFailure(
      await run('init', '--create-kek', '--authority', authority),
      2,
      /--authority and --certificate/,
    );
    expect((await run('init', '--authority', authority, '--certificate', own)).code).toBe(2);
  });

  test('checks the health of both listeners, also over TLS', async () => {
    const [authority, own] = [join(folder, 'authority'), join(folder, 'bunkms')];
    await run('init', '--create-kek', '--authority', authority, '--certificate', `${own}=bunkms-internal`);
    const files = (prefix: string) => ({
      [`${prefix}TLS_CERT_FILE`]: join(own, 'cert.pem'),
      [`${prefix}TLS_KEY_FILE`]: join(own, 'key.pem'),
    });
    const withTls = {
      ...environment,
      ...files('BUNKMS_'),
      ...files('BUNKMS_INTERNAL_'),
      BUNKMS_INTERNAL_CLIENT_CA_FILE: join(own, 'ca.pem'),
    };
    for (const variables of [environment, withTls]) {
      await using server = await startServer(variables);
      const ports = {
        BUNKMS_PORT: new URL(server.apiUrl).port,
        BUNKMS_INTERNAL_PORT: new URL(server.internalUrl).port,
      };
      expect(await healthcheck({ ...variables, ...ports })).toBe(0);
      expect(await healthcheck({ ...variables, ...ports, BUNKMS_INTERNAL_PORT: '1' })).toBe(1);
    }
  });

  test('replaces a service token that is no longer valid', async () => {
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

  test('replaces a service token of an earlier release, which may not shred, without revoking it', async () => {
    await init();
    const earlier = await run(
      ...['token', 'issue', '--typ', 'service', '--sub', 'bundoc', '--keys', '*-dek'],
      ...['--scope', 'kms:create_key kms:export_key kms:read_key kms:rotate_key'],
    );
    writeFileSync(tokenFile, earlier.stdout);
    expect((await init()).code).toBe(0);
    const replaced = readFileSync(tokenFile, 'utf8').trim();
    expect(claimsOf(replaced).scope).toContain('kms:shred_key');
    await init();
    expect(readFileSync(tokenFile, 'utf8').trim()).toBe(replaced);
    const { tokens } = JSON.parse((await run('token', 'list', '--json')).stdout);
    const { jti } = claimsOf(earlier.stdout);
    expect(tokens.find((one: { jti: string }) => one.jti === jti)).not.toHaveProperty('revoked_at');
  });

  test('issues a token with may_issue, and revokes it with all tokens that it issued', async () => {
    await init();
    const printed = await run(
      ...['token', 'issue', '--typ', 'service', '--sub', 'ops', '--scope', 'kms:admin'],
      ...[
        '--may-issue-scope',
        'kms:read_key, docs:read',
        '--may-issue-keys',
        'a-*',
        '--may-issue-keys',
        'b-dek',
      ],
      ...['--may-issue-project', 'project-a', '--may-issue-ttl', '2h'],
    );
    expect([printed.code, printed.stderr]).toEqual([0, '']);
    const issuer = printed.stdout.trim();
    expect(claimsOf(issuer).may_issue).toEqual({
      scopes: ['kms:read_key', 'docs:read'],
      keys: ['a-*', 'b-dek'],
      projects: ['project-a'],
      ttl_s: 7_200,
    });
    await using server = await startServer(environment);
    const issue = (body: object) =>
      call(server.apiUrl, '/v1/tokens', { token: issuer, body: { sub: 'x', typ: 'service', ...body } });
    expect((await issue({ scope: ['kms:read_key'], keys: ['c-dek'] })).status).toBe(403);
    const { token, jti } = (await issue({ scope: ['kms:read_key'], keys: ['b-dek'] })).json();
    const status = async () => (await call(server.apiUrl, '/v1/keys', { token })).status;
    const revoke = (...more: string[]) => run('token', 'revoke', claimsOf(issuer).jti, ...more);
    expect(await revoke()).toMatchObject({ code: 0, stdout: '' });
    expect(await status()).toBe(200);
    expect(await revoke('--cascade')).toMatchObject({
      code: 0,
      stdout: 'revoked, with 1 token that it issued\n',
    });
    expect(await status()).toBe(401);
    const again = JSON.parse((await revoke('--cascade', '--json')).stdout);
    expect(again).toEqual({ jti: claimsOf(issuer).jti, revoked: true, issued: 0 });
    const { tokens } = JSON.parse((await run('token', 'list', '--json')).stdout);
    const listed = tokens.find((one: { jti: string }) => one.jti === jti);
    expect(listed).toMatchObject({ issuer: claimsOf(issuer).jti, revoked_at: expect.any(String) });
  });

  test('refuses incomplete may-issue options', async () => {
    await init();
    const half = ['token', 'issue', '--typ', 'service', '--sub', 'ops', '--scope', 'kms:admin'];
    expectFailure(
      await run(...half, '--may-issue-scope', 'kms:read_key'),
      2,
      /--may-issue-ttl: is required with the other options/,
    );
    expectFailure(
      await run(...half, '--may-issue-ttl', '2h'),
      2,
      /--may-issue-scope: is required with the other options/,
    );
  });

  test('rotates, lists and shows keys while a server runs, and prints no key material', async () => {
    await init();
    await using server = await startServer(environment);
    const token = readFileSync(tokenFile, 'utf8').trim();
    for (const name of ['a-dek', 'b-dek'])
      await call(server.apiUrl, '/v1/keys', { token, body: { name, type: 'aes-256' } });
    const material = async (query: string) =>
      exportedKeySchema.parse((await call(server.internalUrl, `/v1/export/b-dek${query}`, { token })).json());
    const first = await material('');

    const rotated = await run('key', 'rotate', 'b-dek');
    expect(rotated).toMatchObject({ code: 0, stderr: '' });
    const second = await material('');
    expect([first.version, second.version]).toEqual([1, 2]);
    expect(rotated.stdout).toMatch(new RegExp(`^b-dek  enabled  2  ${second.kcv}  \\S+Z\n$`));
    expect((await material('?version=1')).key_material_b64).toBe(first.key_material_b64);

    const listed = await run('key', 'list', '--json');
    expect(keyPageSchema.parse(JSON.parse(listed.stdout)).keys).toMatchObject([
      { name: 'a-dek', version: 1 },
      { name: 'b-dek', version: 2, kcv: second.kcv },
    ]);
    const list = await run('key', 'list');
    expect(list.stdout).toMatch(/^a-dek {2}enabled {2}1 {2}[0-9a-f]{32} {2}\S+Z\nb-dek {2}enabled {2}2 {2}/);
    const shown = await run('key', 'show', 'b-dek', '--json');
    expect(keyDetailSchema.strict().parse(JSON.parse(shown.stdout))).toMatchObject({
      id: first.key_id,
      version: 2,
      versions: [
        { version: 1, kcv: first.kcv },
        { version: 2, kcv: second.kcv },
      ],
    });
    const show = await run('key', 'show', 'b-dek');
    expect(show.stdout).toMatch(/^name: b-dek$/m);
    expect(show.stdout).toMatch(new RegExp(`^version  1  available  ${first.kcv}  \\S+Z$`, 'm'));
    for (const { stdout } of [rotated, listed, list, shown, show])
      for (const { key_material_b64, wrapped_b64 } of [first, second]) {
        expect(stdout).not.toContain(key_material_b64.slice(0, 40));
        expect(stdout).not.toContain(wrapped_b64.slice(0, 40));
      }

    expectFailure(await run('key', 'rotate', 'none-dek'), 3, /key_not_found: The key does not exist/);
    expectFailure(await run('key', 'show', 'none-dek'), 3, /key_not_found/);
    expect((await run('audit', 'verify')).code).toBe(0);
  });

  test('runs a key through its life cycle, and exits with the codes in docs/keys.md', async () => {
    await init();
    const key = async (code: number, ...args: string[]) => {
      const finished = await run('key', ...args, '--json');
      expect([args, finished.code, finished.stderr]).toEqual([args, code, expect.any(String)]);
      return code === 0 ? JSON.parse(finished.stdout) : finished.stderr;
    };
    expect(keyInfoSchema.strict().parse(await key(0, 'create', 'a-dek'))).toMatchObject({
      exportable: true,
      rotate_after_days: null,
    });
    expect(await key(0, 'create', 'b-dek', '--no-exportable', '--rotate-after-days', '90')).toMatchObject({
      exportable: false,
      rotate_after_days: 90,
      next_rotation_at: expect.any(String),
    });
    expect(await key(5, 'create', 'a-dek')).toMatch(/key_exists/);
    expect(await key(0, 'rotate', 'a-dek')).toMatchObject({ version: 2, revision: 2 });
    expect(await key(0, 'disable', 'a-dek')).toMatchObject({ state: 'disabled' });
    expect(await key(5, 'rotate', 'a-dek')).toMatch(/key_disabled/);
    expect(await key(0, 'enable', 'a-dek')).toMatchObject({ state: 'enabled' });
    expect(await key(0, 'set', 'a-dek', '--rotate-after-days', '30')).toMatchObject({
      rotate_after_days: 30,
    });
    expect(await key(0, 'set', 'a-dek', '--rotate-after-days', 'never', '--no-exportable')).toMatchObject({
      rotate_after_days: null,
      exportable: false,
    });
    expect(await key(0, 'delete', 'a-dek', '--pending-days', '10')).toMatchObject({
      state: 'pending_deletion',
    });
    expect(await key(5, 'enable', 'a-dek')).toMatch(/key_pending_deletion/);
    expect(await key(0, 'restore', 'a-dek')).toMatchObject({ state: 'disabled' });
    expect(
      destroyReceiptSchema
        .strict()
        .parse(await key(0, 'destroy-version', 'a-dek', '1', '--confirm', 'a-dek')),
    ).toMatchObject({
      version: 1,
    });
    expect(await key(4, 'destroy-version', 'a-dek', '1', '--confirm', 'a-dek')).toMatch(
      /key_version_destroyed/,
    );
    expect(keyDetailSchema.strict().parse(await key(0, 'show', 'a-dek')).versions).toMatchObject([
      { state: 'destroyed' },
      { state: 'available' },
    ]);
    expect(await key(2, 'destroy', 'a-dek', '--confirm', 'b-dek')).toMatch(/--confirm/);
    const receipt = destroyReceiptSchema
      .strict()
      .parse(await key(0, 'destroy', 'a-dek', '--confirm', 'a-dek'));
    expect(await key(4, 'show', 'a-dek')).toMatch(/key_destroyed/);
    expect(await key(4, 'create', 'a-dek')).toMatch(/key_destroyed/);
    expect((await key(0, 'list')).keys).toMatchObject([{ state: 'destroyed' }, { name: 'b-dek' }]);
    const { seq, hash } = receipt.audit;
    expect((await run('audit', 'verify', '--receipt', `${seq}:${hash}`)).code).toBe(0);

    edit(`UPDATE keys SET exportable = 1 WHERE name = 'b-dek'`);
    expect(await key(6, 'show', 'b-dek')).toMatch(/key_damaged/);
    expect(await key(0, 'list')).toMatchObject({ damaged: ['b-dek'] });
    const verified = await run('audit', 'verify', '--json');
    expect([verified.code, JSON.parse(verified.stdout)]).toMatchObject([
      1,
      { intact: true, damaged_keys: ['b-dek'] },
    ]);
    for (const args of [
      ['create'],
      ['create', 'A'],
      ['create', 'c', '--rotate-after-days', '0'],
      ['set', 'b-dek'],
      ['delete', 'b-dek', '--pending-days', '6'],
      ['destroy', 'b-dek'],
      ['destroy-version', 'b-dek', '0', '--confirm', 'b-dek'],
    ])
      await key(2, ...args);
  });

  test('rotates the KEK while a server runs, from staging to a ring without the former KEK', async () => {
    await init();
    const token = readFileSync(tokenFile, 'utf8').trim();
    const kek = async (...args: string[]) => run('kek', ...args);
    const json = async (...args: string[]) => JSON.parse((await kek(...args, '--json')).stdout);
    await using server = await startServer(environment);
    for (const name of ['a-dek', 'b-dek'])
      await call(server.apiUrl, '/v1/keys', { token, body: { name, type: 'aes-256' } });
    const exported = async (name: string) => {
      const { wrapped_b64, key_material_b64 } = exportedKeySchema.parse(
        (await call(server.internalUrl, `/v1/export/${name}`, { token })).json(),
      );
      return { kekId: Buffer.from(wrapped_b64, 'base64').toString('hex', 1, 9), key_material_b64 };
    };
    const made = await exported('a-dek');
    const { current: former } = kekStatusSchema.strict().parse(await json('status'));
    expect(made.kekId).toBe(former);
    expectFailure(await kek('rotate'), 5, /kek_unusable: no KEK is staged/);

    const old = readFileSync(environment.BUNKMS_KEK_FILE, 'utf8');
    writeFileSync(environment.BUNKMS_KEK_FILE, `${'ab'.repeat(32)}\n${old}`);
    expect((await json('list')).keks).toMatchObject([
      { id: former, state: 'current', versions: 2, secrets: 2 },
      { state: 'staged', in_ring: true, versions: 0, secrets: 0 },
    ]);
    // The server reloads its ring file.
    await expect.poll(() => server.log).toContain('the KEK ring was reloaded');
    const { current, rotation } = kekStatusSchema.strict().parse(await json('rotate'));
    expect(rotation).toMatchObject({ from: former, total: 2, done: 2, completed_at: expect.any(String) });
    expect(await exported('a-dek')).toEqual({ ...made, kekId: current });
    await call(server.apiUrl, '/v1/keys', { token, body: { name: 'c-dek', type: 'aes-256' } });
    expect((await exported('c-dek')).kekId).toBe(current);
    expect(await json('verify')).toEqual({ current, checked: 3, under_others: 0, damaged: [] });
    expect((await kek('verify')).stdout).toContain('open: 3 versions, 3 with the current KEK');

    await exported('b-dek');
    edit(
      `UPDATE key_versions SET wrapped = zeroblob(69) WHERE key_id = (SELECT id FROM keys WHERE name = 'c-dek')`,
    );
    const faulty = await kek('verify');
    expect(faulty).toMatchObject({ code: 1, stderr: expect.stringContaining('keys do not open: c-dek') });
    expect((await kek('unfetched', former)).stdout).toBe('');
    expect((await kek('retire', '0'.repeat(16))).code).toBe(3);
    expectFailure(await kek('retire', current), 5, /kek_in_use/);
    expect(await json('retire', former)).toMatchObject({ id: former, state: 'retired' });
    writeFileSync(environment.BUNKMS_KEK_FILE, `${'ab'.repeat(32)}\n`);
    expect((await kek('status')).stdout).toMatch(
      new RegExp(`^current: ${current}\n${former}  retired  not in the ring`),
    );
    await using later = await startServer(environment);
    const answer = await call(later.internalUrl, '/v1/export/a-dek', { token });
    expect(answer.json().key_material_b64).toBe(made.key_material_b64);
  });

  test('lists the reasons against the retirement of a KEK, and can leave the rewrapping to the server', async () => {
    await init();
    const token = readFileSync(tokenFile, 'utf8').trim();
    await using server = await startServer(environment);
    await call(server.apiUrl, '/v1/keys', { token, body: { name: 'a-dek', type: 'aes-256' } });
    await call(server.internalUrl, '/v1/export/a-dek', { token });
    appendFileSync(environment.BUNKMS_KEK_FILE, `${'cd'.repeat(32)}\n`);
    await expect.poll(() => server.log).toContain('the KEK ring was reloaded');
    const { rotation } = JSON.parse((await run('kek', 'rotate', '--no-wait', '--json')).stdout);
    await expect
      .poll(async () => JSON.parse((await run('kek', 'status', '--json')).stdout).rotation.completed_at)
      .toBeDefined();
    // The record precedes the log line.
    await expect.poll(() => server.log).toContain('everything is wrapped with the current KEK');
    const refused = await run('kek', 'retire', rotation.from);
    expect(refused).toMatchObject({
      code: 5,
      stdout: 'a-dek\n',
      stderr: expect.stringContaining('kek_unfetched'),
    });
    expect(JSON.parse((await run('kek', 'unfetched', rotation.from, '--json')).stdout)).toEqual({
      keys: ['a-dek'],
    });
    expect((await run('kek', 'retire', rotation.from, '--accept-unfetched')).stdout).toContain('is retired');
    for (const args of [['rotate', 'x'], ['retire'], ['retire', 'ABCD'], ['unfetched']])
      expect((await run('kek', ...args)).code).toBe(2);
  });

  test('never creates a new KEK for a store that has one', async () => {
    await init();
    rmSync(environment.BUNKMS_KEK_FILE);
    expectFailure(await init(), 1, /the KEK file is missing/);
    expect(existsSync(environment.BUNKMS_KEK_FILE)).toBe(false);
  });

  test('issues tokens that a running server accepts, and revokes them at once', async () => {
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

  test('names the first broken record of the chain, and reports missing records that a receipt proves', async () => {
    await init();
    for (const sub of ['a', 'b', 'c'])
      await run('token', 'issue', '--typ', 'service', '--sub', sub, '--scope', 'kms:read_key');
    const head = JSON.parse((await run('audit', 'head', '--json')).stdout);
    const receipt = (await run('audit', 'head')).stdout.trim();
    expect(receipt).toBe(`${head.seq}:${head.hash}`);
    const earlier = (await run('audit', 'verify', '--receipt', receipt, '--json')).stdout;
    expect(JSON.parse(earlier)).toEqual({ intact: true, head });
    // Remove the row too: without its record it would be detected.
    edit(`DELETE FROM audit WHERE seq = ${head.seq}; DELETE FROM tokens WHERE sub = 'c'`);
    const before = (await run('audit', 'head')).stdout.trim();
    expect((await run('audit', 'verify', '--receipt', before)).code).toBe(0);
    for (const receipts of [
      ['--receipt', before, '--receipt', receipt],
      ['--receipt', receipt, '--receipt', before],
    ])
      expectFailure(
        await run('audit', 'verify', ...receipts),
        1,
        new RegExp(`record ${head.seq} is missing`),
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

  test('reports that it is sealed, and then changes nothing', async () => {
    await init();
    writeFileSync(environment.BUNKMS_KEK_FILE, `${'ab'.repeat(32)}\n`);
    for (const args of [
      ['token', 'issue', '--typ', 'service', '--sub', 'x', '--scope', 'kms:admin'],
      ['audit', 'verify'],
      ['key', 'rotate', 'a-dek'],
      ['init'],
    ])
      expectFailure(await run(...args), 1, /bunkms: sealed: the ring lacks the KEK/);
    const status = await run('status');
    expect(status.code).toBe(1);
    expect(status.stdout).toContain('status: sealed');
    // It must not report the KEK of the ring as that of the store.
    expect(status.stdout).not.toContain('current_kek');
    expect(status.stdout).toMatch(/^known_keks: [0-9a-f]{16}\nring_keks: [0-9a-f]{16}$/m);
  });

  test.each<[string[], RegExp]>([
    [['token', 'issue'], /required option/],
    [['token', 'issue', '--typ', 'root', '--sub', 'x', '--scope', 'kms:admin'], /--typ/],
    [['token', 'issue', '--typ', 'client', '--sub', 'x', '--scope', 'kms:export_key'], /only service tokens/],
    [['token', 'issue', '--typ', 'client', '--sub', 'x', '--scope', 'docs:read', '--ttl', 'soon'], /ttl/],
    [['token', 'revoke'], /missing required argument/],
    [['audit', 'verify', '--receipt', 'x'], /receipt/],
    [['key', 'rotate'], /missing required argument/],
    [['key', 'rotate', 'NO-name'], /must be 1 to 128/],
    [['key', 'show', 'a/b'], /must be 1 to 128/],
    [['audit', 'list', '--from', 'yesterday'], /a time such as/],
    [['frobnicate'], /unknown command/],
    [['status', '--loud'], /unknown option/],
  ])('treats %j as a usage error: exit code 2', async (args, message) => {
    expectFailure(await run(...args), 2, message);
  });

  test('exits as a process with the exit code of the command', async () => {
    expectFailure(await bunkmsProcess(environment, 'frobnicate'), 2, /unknown command/);
    expectFailure(await bunkmsProcess(environment, 'status'), 1, /"bunkms init"/);
    await init();
    expect(await bunkmsProcess(environment, 'status', '--json')).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(/^{"status":"unsealed".*}\n$/),
      stderr: '',
    });
  });

  test('creates no store on its own, and lists every fault of the configuration', async () => {
    expectFailure(
      await run('status'),
      1,
      new RegExp(`no store in ${environment.BUNKMS_DATA_DIR} .*"bunkms init"`),
    );
    expect(existsSync(environment.BUNKMS_DATA_DIR)).toBe(false);
    expectFailure(
      await bunkms({ BUNKMS_PORT: 'x', BUNKMS_STORAGE: 'y' }, 'status'),
      2,
      /BUNKMS_PORT.*BUNKMS_STORAGE.*BUNKMS_KEK_FILE/,
    );
    for (const args of [
      ['token', 'revoke', 'nobody'],
      ['key', 'list'],
      ['key', 'rotate', 'a-dek'],
    ])
      expectFailure(await run(...args), 1, /"bunkms init"/);
  });
});
