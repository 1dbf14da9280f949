import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SCOPES } from '@bundoc/shared/contract/scopes';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { bunkms } from './support/command.ts';
import { newKek } from './support/kms.ts';
import { bunkmsProcess } from './support/process.ts';

const folder = mkdtempSync(join(tmpdir(), 'bunkms-token-'));
const environment = { BUNKMS_DATA_DIR: join(folder, 'kms'), BUNKMS_KEK: newKek() };
const run = (...args: string[]) => bunkms(environment, ...args);
const issue = async (...args: string[]) => (await run('token', 'issue', ...args)).stdout.trim();
const jtiOf = (token: string) =>
  JSON.parse(Buffer.from(String(token.split('.')[1]), 'base64url').toString()).jti;

let backend: string;
let reader: string;
beforeAll(async () => {
  expect((await run('init')).code).toBe(0);
  backend = await issue(
    ...['--typ', 'service', '--sub', 'shop', '--scope', 'kms:issue_client', '--ttl', '90d'],
    ...[
      '--may-issue-scope',
      'docs:read docs:write',
      '--may-issue-project',
      'project-a',
      '--may-issue-ttl',
      '15m',
    ],
  );
  reader = await issue(
    ...['--typ', 'client', '--sub', 'ann', '--scope', 'docs:read', '--project', 'project-a,project-b'],
  );
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe('bunkms token inspect', () => {
  it('explains a token without store, KEK or network', async () => {
    const { code, stdout, stderr } = await bunkms({}, 'token', 'inspect', backend);
    expect([code, stderr]).toEqual([0, '']);
    expect(stdout).toMatch(/^for +shop, a service$/m);
    expect(stdout).toMatch(
      /^issues +tokens with docs:read docs:write, for projects project-a, of at most 15 minutes$/m,
    );
    expect(stdout).toMatch(/^until .*\(in 90 days\)$/m);
    expect(stdout).toMatch(/^signature +not checked/m);
  });

  it('reads standard input, and says why a text is not a token', async () => {
    const piped = await bunkmsProcess({ NODE_ENV: 'test' }, 'token', 'inspect', '--json');
    expect([piped.code, piped.stderr]).toEqual([
      2,
      'bunkms: there is no token: give one as argument or on standard input\n',
    ]);
    const cut = await bunkms({}, 'token', 'inspect', backend.slice(0, 60));
    expect([cut.code, cut.stderr]).toEqual([2, expect.stringContaining('cut off')]);
  });

  it('exits with 1 for a token that has expired', async () => {
    const [head, content = '', signature] = reader.split('.');
    const claims = JSON.parse(Buffer.from(content, 'base64url').toString());
    const earlier = Buffer.from(JSON.stringify({ ...claims, exp: claims.iat })).toString('base64url');
    const text = [head, earlier, signature].join('.');
    const { code, stdout, stderr } = await bunkms({}, 'token', 'inspect', text, '--json');
    expect([code, JSON.parse(stdout).expired]).toEqual([1, true]);
    expect(stderr).toContain('the token has expired: get a new one');
  });

  it('checks the signature with the given keys, and exits with 1 for a bad one', async () => {
    const { x, kid } = await publicKey();
    const jwks = join(folder, 'jwks.json');
    writeFileSync(
      jwks,
      JSON.stringify({ keys: [{ kty: 'OKP', crv: 'Ed25519', use: 'sig', alg: 'EdDSA', kid, x }] }),
    );
    const good = await bunkms({}, 'token', 'inspect', reader, '--jwks', jwks, '--json');
    expect([good.code, JSON.parse(good.stdout)]).toMatchObject([
      0,
      { sub: 'ann', signature: 'good', expired: false },
    ]);
    const bad = await bunkms({}, 'token', 'inspect', `${reader.slice(0, -8)}AAAAAAAA`, '--jwks', jwks);
    expect([bad.code, bad.stderr]).toEqual([1, expect.stringContaining('the signature is bad')]);
  });
});

describe('bunkms token list', () => {
  it('shows scopes, projects, issuer and expiry below a header', async () => {
    const [head, ...rows] = (await run('token', 'list')).stdout.trimEnd().split('\n');
    expect(head?.split(/ {2,}/)).toEqual([
      ...['token', 'state', 'type', 'subject', 'scopes', 'projects', 'keys', 'issuer', 'ends'],
    ]);
    const row = rows.find((line) => line.startsWith(jtiOf(reader)))?.split(/ {2,}/);
    expect(row?.slice(1, 8)).toEqual([
      'valid',
      'client',
      'ann',
      'docs:read',
      'project-a,project-b',
      '-',
      'cli',
    ]);
    expect(row?.[8]).toMatch(/^\d{4}-/);
  });

  it.each([
    [['--sub', 'ann'], ['ann']],
    [['--typ', 'service'], ['shop']],
    [['--scope', 'docs:read'], ['ann']],
    [['--project', 'project-b'], ['ann']],
    [['--project', 'project-c'], []],
    [
      ['--issuer', 'cli', '--state', 'valid'],
      ['shop', 'ann'],
    ],
    [['--state', 'revoked'], []],
  ])('filters by %j', async (filter, subjects) => {
    const { tokens } = JSON.parse((await run('token', 'list', '--json', ...filter)).stdout);
    expect(tokens.map(({ sub }: { sub: string }) => sub)).toEqual(subjects);
  });

  it('refuses an unknown filter', async () => {
    for (const filter of [
      ['--typ', 'other'],
      ['--scope', 'docs:none'],
      ['--state', 'gone'],
    ])
      expect((await run('token', 'list', ...filter)).code).toBe(2);
  });
});

describe('bunkms token issue', () => {
  it.each([
    ['--project a --projects b,no/project', '--projects no/project: '],
    ['--project no/project', '--project no/project: must be *, or 1 to 63 of a-z 0-9 -'],
    ['--ttl 1h', '--project: is required with docs:read: name projects, or * for all'],
    ['--ttl 48h', '--ttl: must be at most 86400 (24 hours) for a client token'],
    ['--keys A', '--keys A: '],
    [
      '--scope docs:write,docs:reed',
      '--scope docs:reed: is not a scope; use docs:read, docs:write, docs:admin, docs:metrics\n',
    ],
    ['--scope read', '--scope read: is not a scope; use kms:create_key, '],
    ['--scope ,', '--scope: must have at least 1 element\n'],
    ['--ttl 0s', '--ttl: must be more than 0; '],
    ['--typ user', '--typ: must be one of "service", "client"\n'],
    ['--may-issue-scope docs:read --may-issue-ttl 1h --may-issue-project x/y', '--may-issue-project x/y: '],
    ['--typ service --scope kms:admin --may-issue-scope docs:read', '--may-issue-ttl: is required with'],
    ['--typ service --scope kms:admin --may-issue-ttl 2h', '--may-issue-scope: is required with'],
    ['--typ service --scope kms:issue_client', '--may-issue-scope: is required'],
    ['--scope kms:issue_client', '--scope: only service tokens may have kms:issue_client'],
    ['--scope docs:metrics', '--scope: only service tokens may have docs:metrics (docs/scopes.md)\n'],
  ])('names the faulty option: %s', async (options, fault) => {
    const client = ['--typ', 'client', '--sub', 'a', '--scope', 'docs:read'];
    const { code, stderr } = await run('token', 'issue', ...client, ...options.split(' '));
    expect([code, stderr]).toEqual([2, expect.stringContaining(fault)]);
  });

  it('lists all scopes in its help, with what each allows and which are for service tokens only', async () => {
    const { stdout } = await run('token', 'issue', '--help');
    const lines = stdout.slice(stdout.indexOf('Scopes')).match(/^ {2}\S.*$/gm) ?? [];
    expect(lines.map((line) => line.trim().split(/ +/)[0])).toEqual(SCOPES);
    expect(lines).toContainEqual(expect.stringMatching(/^ {2}docs:read +read documents/));
    expect(lines).toContainEqual(expect.stringMatching(/^ {2}docs:metrics +\* +read the metrics/));
    expect(stdout).not.toContain('default: []');
  });
});

async function publicKey(): Promise<{ readonly kid: string; readonly x: string }> {
  const { withKms } = await import('../src/cli/open-kms.ts');
  return await withKms(environment, async ({ state }) => state.publicKey);
}
