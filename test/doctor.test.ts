import { X509Certificate } from 'node:crypto';
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { runBunkms } from '@bundoc/bunkms/cli/program';
import { BackupFolder } from '@bundoc/bunkms/recovery/backup-folder';
import { capturedRun } from '@bundoc/shared/testing/captured-run';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Days, TestPki } from '../packages/bunkms/test/support/pki.ts';
import { bundocCommand } from './support/bundoc-command.ts';
import { Installation } from './support/installation.ts';

let installation: Installation;
let token: string;
beforeAll(async () => {
  installation = await Installation.start({ isOnFiles: true });
  token = await installation.client();
});
afterAll(() => installation[Symbol.asyncDispose]());

interface Report {
  readonly code: number | null;
  /** The verdict and text of the last finding of each check, by its name. */
  readonly of: Readonly<Record<string, string>>;
  /** Every finding, one a line. */
  readonly all: string;
  readonly checks: readonly string[];
}
/** What a report must contain: its exit code, a check and its finding. */
type Expected = readonly [code: number, check: string, finding: RegExp];

function expectFinding({ code, of }: Report, [expected, check, finding]: Expected): void {
  expect([code, of[check]]).toEqual([expected, expect.stringMatching(finding)]);
}
function expectSound({ code, of, checks: names }: Report, checks: string): void {
  expect(code).toBe(0);
  // Each name stands for one check of one service.
  expect([...names].sort()).toEqual([...new Set(names)].sort());
  for (const check of checks.split(', '))
    expect([check, of[check]]).toEqual([check, expect.stringMatching(/^(ok|warn): /)]);
}

function reportOf({ code, stdout }: { readonly code: number | null; readonly stdout: string }): Report {
  const { findings } = JSON.parse(stdout) as {
    findings: { check: string; verdict: string; found: string; remedy?: string }[];
  };
  const lines = findings.map(
    ({ check, verdict, found, remedy }) => [check, `${verdict}: ${found}. ${remedy ?? ''}`] as const,
  );
  const all = lines.map(([, line]) => line).join('\n');
  return { code, of: Object.fromEntries(lines), all, checks: lines.map(([check]) => check) };
}

const client = () => ({ BUNDOC_URL: installation.url, BUNDOC_TOKEN: token });
const service = () => ({
  ...client(),
  BUNDOC_DATA_DIR: installation.dataDir,
  BUNDOC_KMS_URL: installation.kms.internalUrl,
  BUNDOC_KMS_TOKEN_FILE: installation.tokenFile,
});
const bundoc = async (environment: Record<string, string>, ...args: string[]) =>
  reportOf(await bundocCommand(environment, ['doctor', '--json', ...args]));
const bunkmsCommand = (more: Record<string, string>, ...args: string[]) =>
  capturedRun(() => runBunkms(args, { NODE_ENV: 'test', ...installation.kmsEnvironment, ...more }));
const bunkms = async (more: Record<string, string>, ...args: string[]) =>
  reportOf(await bunkmsCommand(more, 'doctor', '--json', '--url', installation.kms.apiUrl, ...args));
const file = (name: string) => join(installation.folder, name);

/** Starts a server with these answers and this `Date`. */
async function startFake(answer: (path: string) => object, date = new Date()) {
  const server = createServer((request, response) => {
    response.sendDate = false;
    response.setHeader('date', date.toUTCString());
    response.end(JSON.stringify(answer(request.url ?? '')));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  return { url: `http://127.0.0.1:${port}`, [Symbol.dispose]: () => server.close() };
}

describe('bundoc doctor', () => {
  it('finds no fault in a working client and service', async () => {
    const report = await bundoc(service());
    expectSound(report, 'url, tls, clock, version, ready, kms, token, config, disk, service token');
    expectSound(report, 'kms url, kms tls, kms clock, kms version, kms ready');
    expect(report.of['token']).toMatch(/^ok: Bundoc accepts the token/);
  });

  it('prints one line for each finding, with the remedy', async () => {
    const { code, stdout } = await bundocCommand({ BUNDOC_URL: 'http://127.0.0.1:1', BUNDOC_TOKEN: token }, [
      'doctor',
    ]);
    expect([code, stdout]).toEqual([
      1,
      'fail  url  nothing listens at 127.0.0.1:1. To do: start Bundoc, or name its address (BUNDOC_URL)\n',
    ]);
  });

  const withToken = (text: string) => ({ ...client(), BUNDOC_TOKEN: text });
  const expired = () => {
    const [header, claims, signature] = token.split('.');
    const ended = { ...JSON.parse(Buffer.from(String(claims), 'base64url').toString()), exp: 1_700_000_000 };
    return [header, Buffer.from(JSON.stringify(ended)).toString('base64url'), signature].join('.');
  };
  const serviceToken = () => readFileSync(installation.tokenFile, 'utf8').trim();
  const forged = (text: string) => `${text.slice(0, -8)}AAAAAAAA`;
  const none = () => ({ BUNDOC_URL: installation.url, XDG_CONFIG_HOME: file('no-config') });
  const overTls = () => ({ ...client(), BUNDOC_URL: installation.url.replace('http:', 'https:') });
  const otherToken = () => {
    writeFileSync(file('not-kms'), token);
    return { ...service(), BUNDOC_KMS_TOKEN_FILE: file('not-kms') };
  };
  it.each<[string, () => Record<string, string>, ...Expected]>([
    ['an invalid URL', () => ({ ...client(), BUNDOC_URL: 'docs' }), 1, 'url', /is not an http or https URL/],
    ['a service without TLS', overTls, 1, 'tls', /use http:\/\/127\.0\.0\.1:\d/],
    ['an expired token', () => withToken(expired()), 1, 'token', /^fail: the token expired at/],
    ['a token for BunKMS', () => withToken(serviceToken()), 1, 'token', /^fail: the token is for BunKMS/],
    ['a refused token', () => withToken(forged(token)), 1, 'token', /^fail: Bundoc refuses the token/],
    ['a text that is no token', () => withToken('nonsense'), 1, 'token', /^fail: .*three parts/],
    ['a missing token', none, 1, 'token', /run "bundoc login"/],
    ['a URL that works without a token', none, 1, 'url', /^ok/],
    ['a variable', () => ({ ...service(), BUNDOC_LOG_BYTES: 'much' }), 1, 'config', /BUNDOC_LOG_BYTES/],
    ['a folder', () => ({ ...service(), BUNDOC_DATA_DIR: file('no') }), 1, 'disk', /there is no folder/],
    [
      'a database that projects shall move to',
      () => ({ ...service(), BUNDOC_MOVE_TO: 'postgres://a:b@127.0.0.1:1/x' }),
      1,
      'database',
      /does not answer.*correct BUNDOC_MOVE_TO/,
    ],
    ['a client token for BunKMS', otherToken, 1, 'service token', /a client token for bundoc/],
    ['a service token that others may read', otherToken, 1, 'service token file', /^warn: .*chmod 600/],
    [
      'a missing service token',
      () => ({ ...service(), BUNDOC_KMS_TOKEN_FILE: file('no-token') }),
      1,
      'service token',
      /^fail: there is no file at/,
    ],
    [
      'a BunKMS that does not run',
      () => ({ ...service(), BUNDOC_KMS_URL: 'http://127.0.0.1:1' }),
      1,
      'kms url',
      /start BunKMS/,
    ],
  ])('reports %s', async (_what, environment, ...expected) => {
    expectFinding(await bundoc(environment()), expected);
  });

  it('lists each fault of a token and of the variables, with what to do', async () => {
    const [header, claims, signature] = serviceToken().split('.');
    const other = { ...JSON.parse(Buffer.from(String(claims), 'base64url').toString()), exp: 1_700_000_000 };
    const ended = [header, Buffer.from(JSON.stringify(other)).toString('base64url'), signature].join('.');
    const { all } = await bundoc(withToken(ended));
    expect(all).toMatch(/^fail: the token is for BunKMS.* get a new token/m);
    expect(all).toMatch(/^fail: the token expired at .* get a new token/m);
    const faulty = await bundoc({ ...service(), BUNDOC_LOG_BYTES: 'much', BUNDOC_DRAIN_MS: 'x' });
    expect(faulty.all.match(/^fail: BUNDOC_.* correct the variable/gm)).toHaveLength(2);
    expect(faulty.of['rest']).toMatch(
      /^warn: what depends on the variables was not checked\. .*run doctor again/,
    );
  });

  it('reports two tokens in the environment, which commands refuse', async () => {
    const both = { ...client(), BUNDOC_TOKEN_FILE: file('token') };
    writeFileSync(file('token'), token);
    const found = /BUNDOC_TOKEN and BUNDOC_TOKEN_FILE are both set: unset one of them, or give --token-file/;
    expectFinding(await bundoc(both), [1, 'token', found]);
    const { code, stderr } = await bundocCommand(both, ['projects']);
    expect([code, stderr]).toEqual([2, expect.stringMatching(found)]);
    expect(stderr.trim().split('\n')).toHaveLength(1);
    expect(await bundocCommand(both, ['projects', '--token-file', file('token')])).toMatchObject({ code: 0 });
  });

  const health = () => ({ status: 'ok', version: '0.0.1-old' });
  it.each<[string, (path: string) => object, number, ...Expected]>([
    ['a server that is not Bundoc', () => ({ hello: 'world' }), 0, 1, 'url', /is not Bundoc/],
    ['a clock far ahead', health, 300_000, 1, 'clock', /^fail: Bundoc is (29\d|30\d) s ahead of/],
    ['a clock behind', health, -20_000, 0, 'clock', /^warn: .*behind/],
    ['another version', health, 0, 0, 'version', /^warn: .*0\.0\.1-old.*upgrade/],
  ])('reports %s', async (_what, answer, skewMs, ...expected) => {
    using other = await startFake(answer, new Date(Date.now() + skewMs));
    expectFinding(await bundoc({ ...client(), BUNDOC_URL: other.url }), expected);
  });

  it('needs no client token on the host of the service, and finds the service by its variables', async () => {
    const { BUNDOC_URL: _, BUNDOC_TOKEN: __, ...own } = service();
    const { port } = new URL(installation.url);
    const report = await bundoc({ ...own, BUNDOC_PORT: port, XDG_CONFIG_HOME: file('no-config') });
    expectFinding(report, [0, 'token', /^warn: there is no client token to try/]);
    expectFinding(report, [0, 'service token', /^ok/]);
  });

  it('names the listener of BunKMS that answers in the place of another', async () => {
    const { apiUrl } = installation.kms;
    const found = /^fail: the API listener of BunKMS answers at .*give the URL of (Bundoc|the internal) /;
    expectFinding(await bundoc({ ...client(), BUNDOC_URL: apiUrl }), [1, 'url', found]);
    expectFinding(await bundoc({ ...service(), BUNDOC_KMS_URL: apiUrl }), [1, 'kms url', found]);
    expectFinding(await bunkms({}, '--url', installation.url), [1, 'url', /^fail: Bundoc answers at /]);
  });

  it('says that a profile leads to another service than the one of this environment', async () => {
    const { BUNDOC_URL, BUNDOC_TOKEN, ...own } = service();
    const settings = { XDG_CONFIG_HOME: file('with-profile') };
    writeFileSync(file('profile-token'), BUNDOC_TOKEN);
    const login = ['login', '--url', BUNDOC_URL, '--token-file', file('profile-token')];
    expect((await bundocCommand(settings, login)).code).toBe(0);
    const report = await bundoc({ ...own, ...settings, BUNDOC_PORT: '1' });
    expectFinding(report, [0, 'url', /^ok: .* \(the profile "default"\)/]);
    expectFinding(report, [
      0,
      'profile',
      /^warn: .*at http:\/\/127\.0\.0\.1:1\. .*--url http:\/\/127\.0\.0\.1:1$/,
    ]);
    expect(report.checks.indexOf('disk')).toBeGreaterThan(report.checks.indexOf('ready'));
    const { port } = new URL(BUNDOC_URL);
    expect((await bundoc({ ...own, ...settings, BUNDOC_PORT: port })).checks).not.toContain('profile');
    // The other commands warn, and name the source of a URL without an answer.
    const both = await bundocCommand({ ...settings, BUNDOC_PORT: '1' }, ['projects', '--json']);
    expect([both.code, both.stderr]).toEqual([
      0,
      `bundoc: asking ${BUNDOC_URL} of the profile "default", not http://127.0.0.1:1 of BUNDOC_HOST and BUNDOC_PORT: choose with --url\n`,
    ]);
  });

  it('reports that BunKMS is sealed', async () => {
    using sealed = await startFake((path) => ({ status: path === '/health' ? 'ok' : 'sealed' }));
    const report = await bundoc({ ...service(), BUNDOC_KMS_URL: sealed.url });
    expectFinding(report, [1, 'kms ready', /^fail: BunKMS is sealed/]);
  });
});

describe('bunkms doctor', () => {
  it('finds no fault in a working installation', async () => {
    const report = await bunkms({}, '--token-file', installation.tokenFile);
    expectSound(report, 'config, kek, disk, token, token file, url, tls, clock, version, ready');
  });

  const emptyFolder = () => {
    mkdirSync(file('empty'));
    return { BUNKMS_DATA_DIR: file('empty') };
  };
  it.each<[string, () => Record<string, string>, ...Expected]>([
    ['a wrong KEK', () => ({ BUNKMS_KEK: 'ab'.repeat(32) }), 1, 'kek', /^fail: sealed/],
    ['an invalid KEK', () => ({ BUNKMS_KEK: 'short' }), 1, 'kek', /neither 32 bytes/],
    ['each invalid variable', () => ({ BUNKMS_PORT: 'x', BUNKMS_LOG_LEVEL: 'x' }), 1, 'config', /_LOG_LEVEL/],
    ['a folder without a store', emptyFolder, 1, 'kek', /bunkms init/],
  ])('reports %s', async (_what, environment, ...expected) => {
    expectFinding(await bunkms(environment()), expected);
  });

  it('reports a server that does not run, and a token of another installation or of Bundoc', async () => {
    expectFinding(await bunkms({}, '--url', 'http://127.0.0.1:1'), [1, 'url', /start BunKMS/]);
    const text = readFileSync(installation.tokenFile, 'utf8').trim();
    writeFileSync(file('forged'), `${text.slice(0, -8)}AAAAAAAA`);
    const forged = await bunkms({}, '--token-file', file('forged'));
    expectFinding(forged, [1, 'token file', /another installation/]);
    writeFileSync(file('of-bundoc'), await installation.client());
    const other = await bunkms({}, '--token-file', file('of-bundoc'));
    expectFinding(other, [1, 'token file', /^fail: the token is for Bundoc, not for BunKMS: "bundoc doctor/]);
  });

  it('warns of a KEK that other users can read', async () => {
    writeFileSync(file('kek-file'), installation.kekHex);
    chmodSync(file('kek-file'), 0o644);
    const report = await bunkms({ BUNKMS_KEK: '', BUNKMS_KEK_FILE: file('kek-file') });
    expect([report.code, report.all]).toEqual([0, expect.stringMatching(/^warn: .*mode 644.*chmod 600/m)]);
  });

  it.each<[number | undefined, RegExp]>([
    [25 * 60_000, /^ok: the newest backup in .* is 25 minutes old/],
    [4 * 3_600_000, /^warn: the newest backup in .* is 4 hours old\. look for "BunKMS was not backed up"/],
    [undefined, /^warn: there is no backup in /],
  ])('reports how old the newest of the backups in BUNKMS_BACKUP_TO is: %j ms', async (ageMs, finding) => {
    const folder = file(`backups-${ageMs}`);
    mkdirSync(folder);
    const { stdout } = await bunkmsCommand({}, 'audit', 'list', '--limit', '1', '--json');
    const [first] = (JSON.parse(stdout) as { records: { hash: string }[] }).records;
    const planted = new BackupFolder(folder, async () => String(first?.hash.slice(0, 8)));
    await planted.read(Date.now());
    if (ageMs !== undefined) writeFileSync(planted.pathOf(Date.now() - ageMs), '');
    const { code, of } = await bunkms({ BUNKMS_BACKUP_TO: folder });
    expect([code, of['backup']]).toEqual([0, expect.stringMatching(finding)]);
    expect(of['backup disk']).toMatch(/^(ok|warn): .* has \d+ MiB free/);
  });

  it('reports a folder of backups that cannot be written', async () => {
    writeFileSync(file('no-folder'), '');
    for (const [folder, finding] of [
      [file('no-folder'), /^fail: .* is not a folder/],
      ['/proc/x', /^fail: there is no folder \/proc\/x\. name a folder .* BUNKMS_BACKUP_TO/],
    ] as const)
      expectFinding(await bunkms({ BUNKMS_BACKUP_TO: folder }), [1, 'backup disk', finding]);
  });

  it('reports a copy of the audit chain that cannot be written', async () => {
    mkdirSync(file('is-a-folder'));
    for (const [target, code, finding] of [
      [file('is-a-folder'), 1, /^fail: .* is not a file, so the audit chain is not copied/],
      [file('none/copy.ndjson'), 1, /^fail: there is no folder .*none\. name a folder .* BUNKMS_AUDIT_SHIP/],
      [file('copy.ndjson'), 0, /^(ok|warn): .* has \d+ MiB free/],
    ] as const)
      expectFinding(await bunkms({ BUNKMS_AUDIT_SHIP: `file:${target}` }), [code, 'audit copy', finding]);
  });

  it.each<[Days, RegExp]>([
    [{ to: 100 }, /^ok: the certificate is valid until DAY\. $/],
    [{ to: 13 }, /^warn: the certificate expires on DAY\. renew it/],
    [{ from: -3, to: -1 }, /^fail: the certificate expired on DAY\. renew it/],
  ])('reports until which day the certificate of a listener is valid: %j', async (days, finding) => {
    using pki = await TestPki.make();
    const { cert, key, ca } = pki.write('listener', await pki.issue(days));
    const { of } = await bunkms({
      BUNKMS_INTERNAL_TLS_CERT_FILE: cert?.path ?? '',
      BUNKMS_INTERNAL_TLS_KEY_FILE: key?.path ?? '',
      BUNKMS_INTERNAL_CLIENT_CA_FILE: ca?.path ?? '',
    });
    const { validToDate } = new X509Certificate(readFileSync(String(cert?.path)));
    const day = validToDate.toISOString().slice(0, 10);
    expect(of['internal tls']?.replace(day, 'DAY')).toMatch(finding);
  });
});
