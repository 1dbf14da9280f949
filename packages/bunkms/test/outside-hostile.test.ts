import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import type { ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inspect } from 'node:util';
import { formatCauses } from '@bundoc/shared/logs/error-line';
import { beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { BoundedKey } from '../src/outside/bounded-key.ts';
import type { OutsideEntry } from '../src/outside/entries.ts';
import { openOutsideKey } from '../src/outside/open-key.ts';
import { BLOB_BYTES_MAX, OutsideKeyError } from '../src/outside/port.ts';
import { bunkms } from './support/command.ts';
import { HostileServer, type Misdeed } from './support/hostile-server.ts';
import { TestPki } from './support/pki.ts';

/** A provider over HTTP, as its service answers. */
interface Dialect {
  /** An entry and its credential files. */
  readonly entryOf: (url: string, folder: string, more?: object) => OutsideEntry;
  readonly wrapped: (blob: Buffer) => object;
  readonly unwrapped: (secret: Buffer) => object;
  /** Its refusal of the use of a key. */
  readonly denial: { readonly status: number; readonly body: object };
  readonly isLookup: (line: string) => boolean;
  readonly lookup: object;
}

const TOKEN = 'hvs.planted-token-7QmJ2r9XkVwZ';
const AWS_SECRET = 'planted/aws+secret0123456789ABCDEFGHIJKL';
const AWS_SESSION = 'planted/session+token0123456789abcdefgh==';

function tokenFile(folder: string): string {
  writeFileSync(join(folder, 'token'), `${TOKEN}\n`);
  return join(folder, 'token');
}

const DIALECTS: Record<string, Dialect> = {
  transit: {
    entryOf: (url, folder, more) => ({
      kind: 'transit',
      url,
      mount: 'transit',
      key: 'held',
      token_file: tokenFile(folder),
      ...more,
    }),
    wrapped: (blob) => ({ data: { ciphertext: `vault:v1:${blob.toString('base64')}` } }),
    unwrapped: (secret) => ({ data: { plaintext: secret.toString('base64') } }),
    denial: { status: 403, body: { errors: ['1 error occurred:\n\t* permission denied\n\n'] } },
    isLookup: (line) => line === 'GET /v1/auth/token/lookup-self',
    lookup: { data: { ttl: 0, renewable: false } },
  },
  bunkms: {
    entryOf: (url, folder, more) => ({
      kind: 'bunkms',
      url,
      key: 'held',
      token_file: tokenFile(folder),
      ...more,
    }),
    wrapped: (blob) => ({ ciphertext_b64: blob.toString('base64') }),
    unwrapped: (secret) => ({ plaintext_b64: secret.toString('base64') }),
    denial: { status: 409, body: { code: 'key_disabled' } },
    isLookup: (line) => line === 'GET /v1/keys/held',
    lookup: { name: 'held' },
  },
  'aws-kms': {
    entryOf: (endpoint, folder, more) => {
      const credentials = [
        '[default]',
        'aws_access_key_id = ASIAPLANTED',
        `aws_secret_access_key = ${AWS_SECRET}`,
        `aws_session_token = ${AWS_SESSION}`,
      ];
      writeFileSync(join(folder, 'aws'), credentials.join('\n'));
      return {
        kind: 'aws-kms',
        key_arn: 'arn:aws:kms:eu-central-1:123456789012:key/1234abcd',
        endpoint,
        credentials_file: join(folder, 'aws'),
        ...more,
      };
    },
    wrapped: (blob) => ({ CiphertextBlob: blob.toString('base64') }),
    unwrapped: (secret) => ({ Plaintext: secret.toString('base64') }),
    denial: {
      status: 400,
      body: { __type: 'com.amazonaws.kms#DisabledException', message: 'it is disabled' },
    },
    isLookup: () => false,
    lookup: {},
  },
};

const answer = (response: ServerResponse, status: number, body: unknown) =>
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));

function newFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'bunkms-hostile-'));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  return folder;
}

beforeEach(() => {
  for (const name of Object.keys(process.env)) if (name.startsWith('AWS_')) vi.stubEnv(name, undefined);
  vi.stubEnv('AWS_EC2_METADATA_DISABLED', 'true');
  return () => vi.unstubAllEnvs();
});

/** All that a person or a log could see of an error. */
function seenOf(error: unknown): string {
  return `${formatCauses(error)}\n${inspect(error, { depth: 20, showHidden: true, maxStringLength: null })}`;
}

/** Expects that none of these texts shows a planted secret, in any spelling. */
function expectNoSecret(texts: readonly string[], secrets: readonly Buffer[]): void {
  const planted = [TOKEN, AWS_SECRET, AWS_SESSION];
  for (const secret of secrets)
    planted.push(
      secret.toString('hex'),
      secret.toString('base64').replace(/=+$/, ''),
      secret.toString('base64url'),
    );
  for (const text of texts)
    for (const secret of planted) expect(text.includes(secret), `${secret} in ${text}`).toBe(false);
}

describe.each(Object.entries(DIALECTS))('a hostile service of the kind %s', (kind, dialect) => {
  async function started() {
    const server = await HostileServer.start();
    onTestFinished(() => server[Symbol.asyncDispose]());
    const folder = newFolder();
    const key = await openOutsideKey('held', dialect.entryOf(server.url, folder));
    onTestFinished(() => key[Symbol.asyncDispose]());
    const secret = randomBytes(32);
    const blob = Buffer.from(kind === 'transit' ? 'vault:v1:AAAAAAAA' : randomBytes(80));
    /** Both calls, each of which must fail. */
    const fail = async () => {
      const calls = await Promise.allSettled([key.wrap(secret), key.unwrap(blob)]);
      const errors = calls.map((call) => (call.status === 'rejected' ? call.reason : call.value));
      for (const error of errors) expect(error).toBeInstanceOf(OutsideKeyError);
      expectNoSecret(errors.map(seenOf), [secret]);
      return errors.map(({ fault }: OutsideKeyError) => fault);
    };
    return { server, folder, key, secret, blob, fail };
  }
  /** Answers as the service does. */
  const honest =
    (blob: Buffer, secret: Buffer): Misdeed =>
    (response, { line, body }) => {
      if (dialect.isLookup(line)) return answer(response, 200, dialect.lookup);
      const isWrap = /encrypt/i.test(line) || body.includes('"Plaintext"');
      return answer(response, 200, isWrap ? dialect.wrapped(blob) : dialect.unwrapped(secret));
    };

  const misdeeds: Record<string, Misdeed> = {
    'is no JSON': (response) => response.end('<html>sign in'),
    'is empty': (response) => response.end(),
    'is no object': (response) => answer(response, 200, ['vault:v1:AAAA']),
    'has members of other types': (response) =>
      answer(response, 200, {
        data: { ciphertext: 7, plaintext: {} },
        ciphertext_b64: [],
        plaintext_b64: null,
        CiphertextBlob: { a: 1 },
        Plaintext: [1],
      }),
    'has no base64': (response) =>
      answer(response, 200, {
        data: { ciphertext: 'a b\n', plaintext: '?!' },
        ciphertext_b64: '?!',
        plaintext_b64: '?!',
        CiphertextBlob: '?!',
        Plaintext: '?!',
      }),
    'has a member beyond its bounds': (response, request) => {
      const long = randomBytes(BLOB_BYTES_MAX + 1);
      return honest(long, long)(response, request);
    },
    'has more than 16 KiB': (response) => answer(response, 200, { more: 'A'.repeat(20_000) }),
    'has more than 16 KiB, without a length': (response) => {
      response.writeHead(200);
      for (let part = 0; part < 40; part++) response.write(' '.repeat(1_024));
      response.end('{}');
    },
    'has a head without an end': (response) => {
      const socket = response.socket;
      socket?.write('HTTP/1.1 200 OK\r\n');
      for (let line = 0; line < 4_000; line++) socket?.write(`x-${line}: aaaaaaaaaaaaaaaa\r\n`);
    },
    'ends in the middle': (response) => {
      response.writeHead(200, { 'content-length': '100' }).write('{"data":');
      setImmediate(() => response.destroy());
    },
    'is a broken connection': (response) => response.destroy(),
    'is no HTTP': (response) => response.socket?.end('SSH-2.0-OpenSSH\r\n'),
    'repeats what was sent, as its error': (response, { headers, body }) =>
      answer(response, 400, {
        errors: [`invalid ciphertext: ${JSON.stringify(headers)} ${body}`],
        code: `x${headers.authorization ?? ''}${body}`,
        __type: 'X',
        message: `${JSON.stringify(headers)}${body}`,
      }),
    'repeats what was sent, as its result': (response, { body }) => {
      const [sent = ''] = Object.values(JSON.parse(body) as Record<string, string>).filter(
        (text) => !text.startsWith('arn'),
      );
      return answer(response, 200, {
        data: { ciphertext: sent, plaintext: sent },
        ciphertext_b64: sent,
        plaintext_b64: sent,
        CiphertextBlob: sent,
        Plaintext: sent,
      });
    },
    'is 401': (response) => answer(response, 401, { errors: ['permission denied'], code: 'unauthorized' }),
    'is 403 of a proxy': (response) => response.writeHead(403).end('<html>forbidden'),
    'is 404': (response) => answer(response, 404, { errors: [], code: 'not_found' }),
    'is 429': (response) => answer(response, 429, { errors: ['rate limit'], code: 'rate_limited' }),
    'is 500': (response) => answer(response, 500, { errors: ['internal error'], code: 'internal' }),
    'is 503': (response) => answer(response, 503, { errors: ['Vault is sealed'], code: 'sealed' }),
  };

  it.each(Object.keys(misdeeds))('is unavailable after one try when its answer %s', async (name) => {
    const { server, key, secret, blob, fail } = await started();
    server.misdeed = misdeeds[name] as Misdeed;
    const faults = await fail();
    // A secret of a wrong length may count as damaged.
    const isOfLength = name.endsWith('as its result') || name.endsWith('beyond its bounds');
    const allowed = isOfLength ? ['unavailable', 'damaged'] : ['unavailable'];
    for (const fault of faults) expect(allowed).toContain(fault);
    expect(server.received.filter(({ line }) => !dialect.isLookup(line))).toHaveLength(2);
    // Nothing is lost: the next call works.
    server.misdeed = honest(blob, secret);
    expect(await key.unwrap(blob)).toEqual(secret);
  });

  it.each([301, 302, 303, 307, 308])(
    'is unavailable when it redirects by %i, and nobody else is asked',
    async (status) => {
      const { server, fail } = await started();
      await using other = await HostileServer.start();
      for (const location of [`${other.url}/v1`, '/elsewhere', 'http://localhost:1/']) {
        server.received.length = 0;
        server.misdeed = (response) => response.writeHead(status, { location }).end();
        expect(await fail()).toEqual(['unavailable', 'unavailable']);
        expect(server.received.map(({ line }) => line)).not.toContain('GET /elsewhere');
      }
      expect(other.received).toEqual([]);
    },
  );

  it.each([31, 65, 0])('is no provider of secrets of %i bytes', async (bytes) => {
    const { server, key, blob } = await started();
    server.misdeed = honest(blob, randomBytes(bytes));
    const error: unknown = await key.unwrap(blob).catch((reason: unknown) => reason);
    expect(error).toMatchObject({ fault: expect.stringMatching(/^(?:damaged|unavailable)$/) });
  });

  const stalls: Record<string, Misdeed> = {
    'before its head': () => undefined,
    'within its head': (response) => response.socket?.write('HTTP/1.1 200 OK\r\nx-a'),
    'after its head': (response) => response.writeHead(200, { 'content-length': '100' }).flushHeaders(),
    'within its body': (response) => response.writeHead(200, { 'content-length': '100' }).write('{"data":'),
    'never, byte by byte': (response) => {
      response.writeHead(200);
      const timer = setInterval(() => response.write(' '), 20);
      response.once('close', () => clearInterval(timer));
    },
  };

  it('that stalls at any place of its answers is unavailable at the deadline, and delays no other key', async () => {
    const hanging = await Promise.all(Object.keys(stalls).map(() => started()));
    const other = await started();
    other.server.misdeed = honest(other.blob, other.secret);
    let ended = 0;
    const faults = Object.values(stalls).map(async (stall, index) => {
      const held = hanging[index] as (typeof hanging)[number];
      held.server.misdeed = stall;
      const found = await held.fail();
      ended += 1;
      // The connections are closed with the calls.
      held.server.misdeed = honest(held.blob, held.secret);
      expect(await held.key.unwrap(held.blob)).toEqual(held.secret);
      return found;
    });
    await Promise.all(hanging.map(({ server }) => server.asked()));
    expect(await other.key.unwrap(other.blob)).toEqual(other.secret);
    expect(ended).toBe(0);
    for (const found of await Promise.all(faults)) expect(found).toEqual(['unavailable', 'unavailable']);
    for (const { server } of hanging) expect(server.received).toHaveLength(3);
  });

  it('that answers late is not believed, and its answer reaches no later call', async () => {
    const { server, key, blob, secret } = await started();
    const held: ServerResponse[] = [];
    server.misdeed = (response) => held.push(response);
    await expect(key.unwrap(blob)).rejects.toMatchObject({ fault: 'unavailable' });
    const wrong = randomBytes(32);
    for (const response of held) answer(response, 200, dialect.unwrapped(wrong));
    server.misdeed = honest(blob, secret);
    expect(await key.unwrap(blob)).toEqual(secret);
  });

  it('is denied only while our own credential works', async () => {
    const { server, fail } = await started();
    const { status, body } = dialect.denial;
    let lookup: Misdeed = (response) => answer(response, 200, dialect.lookup);
    server.misdeed = (response, request) =>
      dialect.isLookup(request.line) ? lookup(response, request) : answer(response, status, body);
    expect(await fail()).toEqual(['denied', 'denied']);
    // AWS KMS says itself that a credential is bad.
    if (kind === 'aws-kms') return;
    const others: Misdeed[] = [
      (response) => answer(response, 401, { errors: ['permission denied'], code: 'unauthorized' }),
      (response) => response.writeHead(403).end('<html>'),
      (response) => response.writeHead(302, { location: '/login' }).end(),
      (response) => answer(response, 429, { code: 'rate_limited' }),
      (response) => answer(response, 500, {}),
      (response) => response.destroy(),
    ];
    for (const other of others) {
      lookup = other;
      expect(await fail()).toEqual(['unavailable', 'unavailable']);
    }
    // Neither while the question about our credential has no answer.
    lookup = () => undefined;
    expect(await fail()).toEqual(['unavailable', 'unavailable']);
  });

  it('with a certificate of another authority, or for another name, gets no secret', async () => {
    using pki = await TestPki.make();
    const pair = await pki.issue({ names: ['127.0.0.1'] });
    const ours = pki.write('ours', pair).ca?.path;
    const another = await pki.issue({ names: ['127.0.0.1'], by: await TestPki.newAuthority() });
    const elsewhere = await pki.issue({ names: ['other.example'] });
    const late = await pki.issue({ names: ['127.0.0.1'], from: -9, to: -1 });
    vi.stubEnv('NODE_TLS_REJECT_UNAUTHORIZED', '0');
    const [secret, blob] = [randomBytes(32), Buffer.from('vault:v1:AAAAAAAA')];
    for (const [shown, isTrusted] of [
      [pair, true],
      [another, false],
      [elsewhere, false],
      [late, false],
    ] as const) {
      await using server = await HostileServer.start(shown);
      server.misdeed = honest(blob, secret);
      const entry = dialect.entryOf(server.url, newFolder(), { ca_file: ours });
      await using key = await openOutsideKey('held', entry);
      const result: unknown = await key.unwrap(blob).catch((error: unknown) => error);
      if (isTrusted) expect(result).toEqual(secret);
      else expect(result).toMatchObject({ fault: 'unavailable' });
      expect(server.received).toHaveLength(isTrusted ? 1 : 0);
    }
  });

  it('shows no secret of ours in the output of a check, in text or JSON', async () => {
    const { server, folder } = await started();
    const { kind: _kind, ...members } = dialect.entryOf(server.url, folder);
    const file = join(folder, 'outside.json');
    writeFileSync(file, JSON.stringify({ keys: { held: { kind, ...members } } }));
    const environment = {
      BUNKMS_OUTSIDE_KEYS_FILE: file,
      BUNKMS_DATA_DIR: folder,
      BUNKMS_KEK_FILE: join(folder, 'kek'),
    };
    for (const name of Object.keys(misdeeds))
      for (const more of [[], ['--json']]) {
        server.received.length = 0;
        server.misdeed = misdeeds[name] as Misdeed;
        const { code, stdout, stderr } = await bunkms(environment, 'outside', 'check', ...more);
        expect([name, code]).toEqual([name, 1]);
        const sent = server.received.flatMap(({ body }) => body.match(/[A-Za-z0-9+/]{42,43}={0,2}/g) ?? []);
        expectNoSecret(
          [stdout, stderr],
          sent.map((text) => Buffer.from(text, 'base64')),
        );
      }
  });

  it('gets a bounded number of calls: those beyond it fail at once', async () => {
    const { server, key, blob, secret } = await started();
    server.misdeed = () => undefined;
    const calls = Array.from({ length: 100 }, () => key.unwrap(blob).catch((error: unknown) => error));
    const first = await Promise.race(calls);
    expect(first).toMatchObject({ fault: 'unavailable', message: 'too many calls wait for it' });
    for (const error of await Promise.all(calls)) expect(error).toMatchObject({ fault: 'unavailable' });
    // Eight and those that waited: the others were never sent.
    expect(server.received.length).toBeLessThanOrEqual(72);
    server.misdeed = honest(blob, secret);
    expect(await key.unwrap(blob)).toEqual(secret);
  });
});

it('an outside key that answers with the secret itself has not wrapped it', async () => {
  const provider = {
    realName: 'echo',
    wrap: async (secret: Uint8Array) => Buffer.from(secret),
    unwrap: async (blob: Uint8Array) => Buffer.from(blob),
    checkCredential: async () => undefined,
    [Symbol.asyncDispose]: async () => undefined,
  };
  await using key = new BoundedKey('echo', 'test', provider);
  await expect(key.wrap(randomBytes(32))).rejects.toMatchObject({ fault: 'unavailable' });
  await expect(key.check()).rejects.toMatchObject({ fault: 'unavailable' });
});
