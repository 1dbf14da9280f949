import { exportedKeySchema } from '@bundoc/shared/contract/keys';
import { describe, expect, it } from 'vitest';
import { claimsOf, environment, expectFailure, init, run, useCommandLine } from './support/command-line.ts';
import { call } from './support/http.ts';
import { startConfigured } from './support/in-process.ts';

useCommandLine();

describe('`bunkms token`', () => {
  it('issues a token with may_issue, and revokes it with all tokens that it issued', async () => {
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
    await using server = await startConfigured(environment);
    const issue = (body: object) =>
      call(server.apiUrl, '/v1/tokens', { token: issuer, body: { sub: 'x', typ: 'service', ...body } });
    expect((await issue({ scope: ['kms:read_key'], keys: ['c-dek'] })).status).toBe(403);
    const { token, jti } = (await issue({ scope: ['kms:read_key'], keys: ['b-dek'] })).json();
    const status = async () => (await call(server.apiUrl, '/v1/keys', { token })).status;
    const revoke = (...more: string[]) => run('token', 'revoke', claimsOf(issuer).jti, ...more);
    expect(await revoke()).toMatchObject({ code: 0, stdout: expect.stringMatching(/with its renewals: /) });
    expect(await status()).toBe(200);
    expectFailure(await run('token', 'revoke', 'shop'), 3, /token_not_found.*"bunkms token list"/);
    expect(await revoke('--cascade')).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(/ with its renewals, and 1 token that it issued: /),
    });
    expect(await status()).toBe(401);
    const again = JSON.parse((await revoke('--cascade', '--json')).stdout);
    expect(again).toEqual({ jti: claimsOf(issuer).jti, revoked: true, issued: 0 });
    const { tokens } = JSON.parse((await run('token', 'list', '--json')).stdout);
    const listed = tokens.find((one: { jti: string }) => one.jti === jti);
    expect(listed).toMatchObject({ issuer: claimsOf(issuer).jti, revoked_at: expect.any(String) });
  });

  it('warns of a token whose scopes are about keys and that names none, and issues it', async () => {
    await init();
    const issue = (scope: string, ...more: string[]) =>
      run('token', 'issue', '--typ', 'service', '--sub', 'x', '--scope', scope, ...more);
    const warned = await issue('kms:encrypt kms:audit kms:read_key');
    expect([warned.code, claimsOf(warned.stdout.trim()).scope]).toEqual([
      0,
      'kms:encrypt kms:audit kms:read_key',
    ]);
    expect(warned.stderr).toMatch(
      /^bunkms: the token names no key, so it can use none by kms:encrypt kms:read_key: .*--keys '\*'\n$/,
    );
    for (const [scope, ...more] of [
      ['kms:encrypt', '--keys', 'a-*'],
      ['kms:audit'],
      ['kms:admin'],
      ['docs:read', '--project', 'p'],
    ] as const)
      expect(await issue(scope, ...more)).toMatchObject({ code: 0, stderr: '' });
  });

  it('issues tokens that a running server accepts, and revokes them at once', async () => {
    await init();
    await using server = await startConfigured(environment);
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
    expect(await run('token', 'revoke', jti)).toMatchObject({ code: 0, stderr: '' });
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

  it('prints a token and nothing else', async () => {
    await init();
    const { code, stdout } = await run(
      ...['token', 'issue', '--typ', 'client', '--sub', 'app', '--scope', 'docs:read docs:write'],
      ...['--project', 'Project-A', '--projects', 'b,c'],
    );
    expect(code).toBe(0);
    expect(stdout).toMatch(/^[\w-]+\.[\w-]+\.[\w-]+\n$/);
    expect(claimsOf(stdout)).toMatchObject({ aud: 'bundoc', projects: ['project-a', 'b', 'c'] });
  });
});
