import { X509Certificate } from 'node:crypto';
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { runBunkms } from '@bundoc/bunkms/cli/program';
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
}

function reportOf({ code, stdout }: { readonly code: number | null; readonly stdout: string }): Report {
  const { findings } = JSON.parse(stdout) as {
    findings: { check: string; verdict: string; found: string; remedy?: string }[];
  };
  const of = Object.fromEntries(
    findings.map(({ check, verdict, found, remedy }) => [check, `${verdict}: ${found}. ${remedy ?? ''}`]),
  );
  return { code, of };
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
const bunkms = async (more: Record<string, string>, ...args: string[]) =>
  reportOf(
    await capturedRun(() =>
      runBunkms(['doctor', '--json', '--url', installation.kms.apiUrl, ...args], {
        NODE_ENV: 'test',
        ...installation.kmsEnvironment,
        ...more,
      }),
    ),
  );
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
    const { code, of } = await bundoc(service());
    expect(code).toBe(0);
    for (const check of [
      'url',
      'tls',
      'clock',
      'version',
      'ready',
      'kms',
      'token',
      'config',
      'disk',
      'kek',
      'service token',
    ])
      expect([check, of[check]]).toEqual([check, expect.stringMatching(/^(ok|warn): /)]);
    expect(of['token']).toMatch(/^ok: Bundoc accepts the token/);
  });

  it('prints one line for each finding, with the remedy', async () => {
    const { code, stdout } = await bundocCommand({ BUNDOC_URL: 'http://127.0.0.1:1', BUNDOC_TOKEN: token }, [
      'doctor',
    ]);
    expect([code, stdout]).toEqual([
      1,
      'fail  url  nothing listens at 127.0.0.1:1. To do: start Bundoc, or name its address (by --url, BUNDOC_URL or a profile)\n',
    ]);
  });

  it('reports an invalid URL, a service without TLS, and a server that is not Bundoc', async () => {
    const { port } = new URL(installation.url);
    expect((await bundoc({ ...client(), BUNDOC_URL: 'docs' })).of['url']).toContain(
      'is not an http or https URL',
    );
    const tls = await bundoc({ ...client(), BUNDOC_URL: `https://127.0.0.1:${port}` });
    expect([tls.code, tls.of['tls']]).toEqual([1, expect.stringContaining(`use http://127.0.0.1:${port}`)]);
    using other = await startFake(() => ({ hello: 'world' }));
    expect((await bundoc({ ...client(), BUNDOC_URL: other.url })).of['url']).toContain('is not Bundoc');
  });

  it('reports a token that is expired, for BunKMS, refused or missing', async () => {
    const [header, , signature] = token.split('.');
    const ended = {
      ...JSON.parse(Buffer.from(String(token.split('.')[1]), 'base64url').toString()),
      exp: 1_700_000_000,
    };
    const cases = [
      [
        [header, Buffer.from(JSON.stringify(ended)).toString('base64url'), signature].join('.'),
        'the token expired at',
      ],
      [readFileSync(installation.tokenFile, 'utf8').trim(), 'the token is for BunKMS'],
      [`${token.slice(0, -8)}AAAAAAAA`, 'Bundoc refuses the token'],
      ['nonsense', 'three parts'],
    ] as const;
    for (const [text, reason] of cases) {
      const { code, of } = await bundoc({ ...client(), BUNDOC_TOKEN: text });
      expect([code, of['token']]).toEqual([1, expect.stringMatching(new RegExp(`^fail: .*${reason}`))]);
    }
    const none = await bundoc({ BUNDOC_URL: installation.url, XDG_CONFIG_HOME: file('no-config') });
    expect([none.code, none.of['token'], none.of['url']]).toEqual([
      1,
      expect.stringContaining('run "bundoc login"'),
      expect.stringMatching(/^ok/),
    ]);
  });

  it('reports clock skew and a different version', async () => {
    const health = () => ({ status: 'ok', version: '0.0.1-old' });
    using ahead = await startFake(health, new Date(Date.now() + 300_000));
    const { code, of } = await bundoc({ ...client(), BUNDOC_URL: ahead.url });
    expect([code, of['clock']]).toEqual([
      1,
      expect.stringMatching(/^fail: Bundoc is (29\d|30\d) s ahead of/),
    ]);
    expect(of['version']).toMatch(/^warn: .*0\.0\.1-old.*upgrade/);
    using behind = await startFake(health, new Date(Date.now() - 20_000));
    expect((await bundoc({ ...client(), BUNDOC_URL: behind.url })).of['clock']).toMatch(/^warn: .*behind/);
  });

  it('reports faults in the variables, the folder and the token of the service', async () => {
    const config = await bundoc({ ...service(), BUNDOC_LOG_BYTES: 'much' });
    expect([config.code, config.of['config']]).toEqual([1, expect.stringContaining('BUNDOC_LOG_BYTES')]);
    const disk = await bundoc({ ...service(), BUNDOC_DATA_DIR: file('nowhere') });
    expect([disk.code, disk.of['disk']]).toEqual([1, expect.stringContaining('there is no folder')]);
    writeFileSync(file('not-kms'), token);
    const wrong = await bundoc({ ...service(), BUNDOC_KMS_TOKEN_FILE: file('not-kms') });
    expect([wrong.code, wrong.of['service token']]).toEqual([
      1,
      expect.stringContaining('a client token for bundoc'),
    ]);
    const none = await bundoc({ ...service(), BUNDOC_KMS_TOKEN_FILE: file('no-token') });
    expect(none.of['service token']).toMatch(/^fail: there is no file at/);
    const kms = await bundoc({ ...service(), BUNDOC_KMS_URL: 'http://127.0.0.1:1' });
    expect([kms.code, kms.of['url']]).toEqual([1, expect.stringContaining('start BunKMS')]);
  });

  it('needs no client token on the host of the service, and finds the service by its variables', async () => {
    const { BUNDOC_URL: _, BUNDOC_TOKEN: __, ...own } = service();
    const { port } = new URL(installation.url);
    const { code, of } = await bundoc({ ...own, BUNDOC_PORT: port, XDG_CONFIG_HOME: file('no-config') });
    expect([code, of['token'], of['service token']]).toEqual([
      0,
      expect.stringMatching(/^warn: there is no client token to try/),
      expect.stringMatching(/^ok/),
    ]);
  });

  it('reports that BunKMS is sealed', async () => {
    using sealed = await startFake((path) => ({ status: path === '/health' ? 'ok' : 'sealed' }));
    const { code, of } = await bundoc({ ...service(), BUNDOC_KMS_URL: sealed.url });
    expect([code, of['kek']]).toEqual([1, expect.stringMatching(/^fail: BunKMS is sealed/)]);
  });
});

describe('bunkms doctor', () => {
  it('finds no fault in a working installation', async () => {
    const { code, of } = await bunkms({}, '--token-file', installation.tokenFile);
    expect(code).toBe(0);
    for (const check of [
      'config',
      'kek',
      'disk',
      'token',
      'token file',
      'url',
      'tls',
      'clock',
      'version',
      'ready',
    ])
      expect([check, of[check]]).toEqual([check, expect.stringMatching(/^(ok|warn): /)]);
  });

  it('reports a wrong KEK, an invalid KEK, and a KEK that other users can read', async () => {
    const other = await bunkms({ BUNKMS_KEK: 'ab'.repeat(32) });
    expect([other.code, other.of['kek']]).toEqual([1, expect.stringMatching(/^fail: sealed/)]);
    const none = await bunkms({ BUNKMS_KEK: 'short' });
    expect([none.code, none.of['kek']]).toEqual([1, expect.stringContaining('neither 32 bytes')]);
    const kek = file('kek-file');
    writeFileSync(kek, installation.kekHex);
    chmodSync(kek, 0o644);
    const { stdout, code } = await capturedRun(() =>
      runBunkms(['doctor', '--url', installation.kms.apiUrl], {
        ...{ NODE_ENV: 'test', ...installation.kmsEnvironment, BUNKMS_KEK: '', BUNKMS_KEK_FILE: kek },
      }),
    );
    expect([code, stdout]).toEqual([0, expect.stringMatching(/^warn +kek .*mode 644.*chmod 600/m)]);
  });

  it('reports each invalid variable, a folder without a store, and a server that does not run', async () => {
    const config = await bunkms({ BUNKMS_PORT: 'x', BUNKMS_LOG_LEVEL: 'loud' });
    expect([config.code, config.of['config']]).toEqual([1, expect.stringMatching(/^fail: BUNKMS_LOG_LEVEL/)]);
    mkdirSync(file('empty'));
    const store = await bunkms({ BUNKMS_DATA_DIR: file('empty') });
    expect([store.code, store.of['kek']]).toEqual([1, expect.stringContaining('bunkms init')]);
    const down = await bunkms({}, '--url', 'http://127.0.0.1:1');
    expect([down.code, down.of['url']]).toEqual([1, expect.stringContaining('start BunKMS')]);
  });

  it('reports until which day the certificate of a listener is valid', async () => {
    using pki = await TestPki.make();
    const reported = async (days: Days) => {
      const { cert, key, ca } = pki.write(`to-${days.to}`, await pki.issue(days));
      const environment = {
        BUNKMS_INTERNAL_TLS_CERT_FILE: cert?.path ?? '',
        BUNKMS_INTERNAL_TLS_KEY_FILE: key?.path ?? '',
        BUNKMS_INTERNAL_CLIENT_CA_FILE: ca?.path ?? '',
      };
      const { of } = await bunkms(environment);
      const { validToDate } = new X509Certificate(readFileSync(environment.BUNKMS_INTERNAL_TLS_CERT_FILE));
      return of['internal tls']?.replace(`${validToDate.toISOString().split('T')[0]}. `, 'that day. ');
    };
    expect(await reported({ to: 100 })).toBe('ok: the certificate is valid until that day. ');
    expect(await reported({ to: 13 })).toMatch(/^warn: the certificate expires on that day\. renew it/);
    expect(await reported({ from: -3, to: -1 })).toMatch(
      /^fail: the certificate expired on that day\. renew it/,
    );
  });

  it('reports a token of another installation', async () => {
    const text = readFileSync(installation.tokenFile, 'utf8').trim();
    writeFileSync(file('forged'), `${text.slice(0, -8)}AAAAAAAA`);
    const { code, of } = await bunkms({}, '--token-file', file('forged'));
    expect([code, of['token file']]).toEqual([1, expect.stringContaining('another installation')]);
  });
});
