import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inspect } from 'node:util';
import { needs } from '@bundoc/shared/testing/programs';
import { canonicalRequest, parseAuthorization, signatureOf } from '@bundoc/shared/testing/sigv4';
import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { AwsKmsKey, type AwsKmsKeyOptions } from '../src/outside/aws-kms-key.ts';
import type { KmsSdk } from '../src/outside/aws-kms-sdk.ts';
import { BoundedKey } from '../src/outside/bounded-key.ts';
import { readEntries } from '../src/outside/entries.ts';
import { type OutsideFault, OutsideKeyError } from '../src/outside/port.ts';
import { AwsKmsServer, type KnownCredential, refusal } from './support/aws-kms-server.ts';
import { bunkms } from './support/command.ts';
import { MotoServer } from './support/moto-server.ts';
import { conformsToPort, faultOf } from './support/outside-providers.ts';
import { TestPki } from './support/pki.ts';
import { bunkmsProcess } from './support/process.ts';

const ARN = 'arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab';

/** moto changes keys by their ids alone. */
const idOf = (keyArn: string) => String(keyArn.split('/')[1]);

function newFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'bunkms-aws-'));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  return folder;
}

/** What each command reads. */
const configurationIn = (folder: string) => ({
  BUNKMS_DATA_DIR: folder,
  BUNKMS_KEK_FILE: join(folder, 'kek'),
});

function sectionOf({ accessKeyId, secretAccessKey, sessionToken }: KnownCredential, profile: string): string {
  return [
    `[${profile}]`,
    `aws_access_key_id = ${accessKeyId}`,
    `aws_secret_access_key=${secretAccessKey}`,
    `aws_session_token = ${sessionToken}\n`,
  ].join('\n');
}

/** All that an error says anywhere, with its causes and hidden members. */
async function errorOf(
  call: Promise<unknown>,
): Promise<{ fault: OutsideFault; message: string; all: string }> {
  const error = await call.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!(error instanceof OutsideKeyError)) throw new Error(`not refused as expected: ${inspect(error)}`);
  return {
    fault: error.fault,
    message: error.message,
    all: inspect(error, { depth: 20, showHidden: true, maxStringLength: null }),
  };
}

beforeEach(() => {
  // Nothing of the machine's own configuration.
  for (const name of Object.keys(process.env)) if (name.startsWith('AWS_')) vi.stubEnv(name, undefined);
  vi.stubEnv('AWS_CONFIG_FILE', '/nonexistent');
  vi.stubEnv('AWS_SHARED_CREDENTIALS_FILE', '/nonexistent');
  vi.stubEnv('AWS_EC2_METADATA_DISABLED', 'true');
  return () => vi.unstubAllEnvs();
});

describe('signatures of version 4', () => {
  // The AWS signature version 4 test suite: its access key, day and expected signatures.
  const authorization = (names: string, signature: string) =>
    `AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders=${names}, Signature=${signature}`;
  const headers = { host: 'example.amazonaws.com', 'x-amz-date': '20150830T123600Z' };
  const form = { ...headers, 'content-type': 'application/x-www-form-urlencoded' };
  it.each([
    [
      'get-vanilla',
      'GET',
      '',
      headers,
      '',
      '5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31',
    ],
    [
      'post-vanilla',
      'POST',
      '',
      headers,
      '',
      '5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b',
    ],
    [
      ...(['post-vanilla-query', 'POST', 'Param1=value1', headers, ''] as const),
      '28038455d6de14eafc1f9222cf5aa6f1a96197d7deb8263271d420d138af7f11',
    ],
    [
      ...(['post-x-www-form-urlencoded', 'POST', '', form, 'Param1=value1'] as const),
      'ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a',
    ],
  ])('are verified as AWS publishes them: %s', (_name, method, query, sent, body, expected) => {
    const parsed = parseAuthorization(authorization(Object.keys(sent).sort().join(';'), expected));
    if (parsed === undefined) throw new Error('it is a signature');
    const request = { method, path: '/', query, headers: sent, body: Buffer.from(body) };
    const canonical = canonicalRequest(request, parsed.signedHeaders);
    const sign = (secret: string) => signatureOf(canonical, parsed, sent['x-amz-date'], secret);
    expect(sign('wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY')).toBe(parsed.signature);
    expect(sign('wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEZ')).not.toBe(parsed.signature);
  });
});

describe('a key of AWS KMS', needs('moto'), () => {
  let moto: MotoServer;
  beforeAll(async () => {
    moto = await MotoServer.start();
  });
  afterAll(async () => {
    await moto[Symbol.asyncDispose]();
  });

  /** A server with a key, a credential in a file, and providers that use them. */
  async function startKms() {
    const server = await AwsKmsServer.start(moto);
    onTestFinished(() => server[Symbol.asyncDispose]());
    const keyArn = await moto.createKey();
    const credential = server.newCredential();
    const credentialsFile = join(newFolder(), 'credentials');
    const write = (text: string) => writeFileSync(credentialsFile, text);
    write(sectionOf(credential, 'default'));
    const open = async (more: Partial<AwsKmsKeyOptions> = {}) => {
      const key = await AwsKmsKey.open({ keyArn, endpoint: server.url, credentialsFile, ...more });
      onTestFinished(() => key[Symbol.asyncDispose]());
      return key;
    };
    const openBounded = async (more: Partial<AwsKmsKeyOptions> = {}) =>
      new BoundedKey('held', 'aws-kms', await open(more));
    return { server, keyArn, credential, credentialsFile, write, open, openBounded };
  }

  /** A server that answers in its own way, until the test ends. @returns its URL. */
  async function listen(
    answer: (request: IncomingMessage, response: ServerResponse) => void,
  ): Promise<string> {
    const server = createServer(answer);
    await once(server.listen(0, '127.0.0.1'), 'listening');
    onTestFinished(() => {
      server.closeAllConnections();
      server.close();
    });
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  }

  conformsToPort('AWS KMS, by moto', async () => {
    const { server, keyArn, credential, open } = await startKms();
    const other = await moto.createKey();
    const change = async (operation: 'DisableKey' | 'EnableKey') => {
      expect((await moto.call(operation, { KeyId: idOf(keyArn) })).status).toBe(200);
    };
    return {
      kind: 'aws-kms',
      open: () => open(),
      openOther: () => open({ keyArn: other }),
      deny: () => change('DisableKey'),
      allow: () => change('EnableKey'),
      endCredential: async () => {
        credential.isExpired = true;
      },
      [Symbol.asyncDispose]: async () => {
        expect(new Set(server.asked)).toEqual(new Set(['Encrypt', 'Decrypt']));
      },
    };
  });

  it('is denied once it is scheduled for deletion, or gone', async () => {
    const { keyArn, openBounded } = await startKms();
    const key = await openBounded();
    const blob = await key.wrap(randomBytes(32));
    await moto.call('ScheduleKeyDeletion', { KeyId: idOf(keyArn), PendingWindowInDays: 7 });
    const error = await errorOf(key.unwrap(blob));
    expect(error.fault).toBe('denied');
    expect(error.message).toContain('KMSInvalidStateException');
    const gone = await openBounded({ keyArn: ARN });
    expect((await errorOf(gone.wrap(randomBytes(32)))).message).toContain('NotFoundException');
    expect(await faultOf(gone.wrap(randomBytes(32)))).toBe('denied');
  });

  it.each<[OutsideFault, number, string, string]>([
    [
      'denied',
      400,
      'AccessDeniedException',
      'User: arn:aws:iam::1:user/a is not authorized to perform: kms:Decrypt',
    ],
    ['denied', 400, 'DisabledException', `${ARN} is disabled.`],
    ['denied', 400, 'NotFoundException', `Key '${ARN}' does not exist`],
    ['denied', 400, 'KMSInvalidStateException', `${ARN} is pending import.`],
    ['damaged', 400, 'InvalidCiphertextException', ''],
    ['damaged', 400, 'IncorrectKeyException', ''],
    // A key store outside of AWS is away: that says nothing about the key.
    ['unavailable', 400, 'KMSInvalidStateException', 'the proxy could not reach the external key manager'],
    ['unavailable', 400, 'ThrottlingException', 'Rate exceeded'],
    ['unavailable', 400, 'LimitExceededException', ''],
    ['unavailable', 500, 'KMSInternalException', ''],
    ['unavailable', 500, 'KeyUnavailableException', ''],
    ['unavailable', 500, 'DependencyTimeoutException', ''],
    ['unavailable', 503, 'ServiceUnavailable', ''],
    ['unavailable', 400, 'InvalidKeyUsageException', ''],
    ['unavailable', 403, 'AccessDenied', 'as other services say it'],
    ['unavailable', 403, 'IncompleteSignature', ''],
    ['unavailable', 403, 'InvalidClientTokenId', ''],
    ['unavailable', 403, 'MissingAuthenticationToken', ''],
    ['unavailable', 400, 'constructor', ''],
  ])('is %s for the answer %i %s, after one try', async (fault, status, name, message) => {
    const { server, openBounded } = await startKms();
    const key = await openBounded();
    const blob = await key.wrap(randomBytes(32));
    server.asked.length = 0;
    server.intercept = (_request, response) => {
      response.writeHead(status, { 'content-type': 'application/x-amz-json-1.1' });
      response.end(refusal(status, `com.amazonaws.kms#${name}`, message).body);
    };
    const error = await errorOf(key.unwrap(blob));
    expect(error.fault).toBe(fault);
    expect(error.message).toContain(name);
    expect(error.message.includes(message)).toBe(fault === 'denied' || message === '');
    expect(server.asked).toEqual(['Decrypt']);
    server.intercept = undefined;
    expect(await key.unwrap(blob)).toHaveLength(32);
  });

  describe('is unavailable, after one try, for an answer', () => {
    const answers: Record<string, (response: ServerResponse, elsewhere: string) => unknown> = {
      'that is no JSON': (response) => response.end('<html>'),
      'that is empty': (response) => response.end(),
      'without the bytes': (response) => response.end('{}'),
      'with other types': (response) => response.end('{"Plaintext":[1],"CiphertextBlob":{"a":1}}'),
      'without base64': (response) => response.end('{"Plaintext":"?!","CiphertextBlob":"?!"}'),
      'of more than 16 KiB': (response) =>
        response.end(JSON.stringify({ Plaintext: 'A'.repeat(20_000), CiphertextBlob: 'A'.repeat(20_000) })),
      'that redirects': (response, elsewhere) => response.writeHead(307, { location: elsewhere }).end(),
      'that ends early': (response) => {
        response.writeHead(200, { 'content-length': '100' }).write('{"Plaintext":');
        setImmediate(() => response.destroy());
      },
      'that never comes, when the connection breaks': (response) => response.destroy(),
    };
    it.each(Object.keys(answers))('%s', async (name) => {
      const { server, openBounded } = await startKms();
      const visits: string[] = [];
      const elsewhere = await listen((request, response) => {
        visits.push(String(request.url));
        response.end();
      });
      const key = await openBounded();
      const blob = await key.wrap(randomBytes(32));
      server.asked.length = 0;
      server.intercept = (_request, response) => answers[name]?.(response, elsewhere);
      expect(await faultOf(key.unwrap(blob))).toBe('unavailable');
      expect(await faultOf(key.wrap(randomBytes(32)))).toBe('unavailable');
      expect(server.asked).toEqual(['Decrypt', 'Encrypt']);
      expect(visits).toEqual([]);
    });
  });

  it.each(['before its head', 'within its body'])(
    'gives up an answer that stops %s, and closes the connection',
    async (place) => {
      const { server, open, openBounded } = await startKms();
      const key = await openBounded();
      const blob = await key.wrap(randomBytes(32));
      const { promise: closed, resolve } = Promise.withResolvers<void>();
      server.intercept = (_request, response) => {
        response.once('close', resolve);
        if (place === 'within its body') response.writeHead(200, { 'content-length': '100' }).write('{');
      };
      const error = await errorOf(key.unwrap(blob));
      expect(error.fault).toBe('unavailable');
      expect(error.message).toMatch(/no answer/);
      await closed;

      // The request ends with its signal, not at a limit of its own.
      const ended = new AbortController();
      const reason = new Error('the caller gave up');
      server.intercept = (_request, response) => {
        if (place === 'within its body') response.writeHead(200, { 'content-length': '100' }).write('{');
        setImmediate(() => ended.abort(reason));
      };
      const provider = await open();
      await expect(provider.unwrap(blob, ended.signal)).rejects.toMatchObject({ cause: reason });
      server.intercept = undefined;
      expect(await key.unwrap(blob)).toHaveLength(32);
    },
  );

  it('takes a new credential from its file without a restart', async () => {
    const { server, credential, write, openBounded } = await startKms();
    const key = await openBounded();
    const blob = await key.wrap(randomBytes(32));
    const next = server.newCredential();
    credential.isExpired = true;
    expect(await faultOf(key.unwrap(blob))).toBe('unavailable');
    write(`# rotated\r\n[default]\r\nregion = x\r\naws_access_key_id = ${next.accessKeyId}\r\n`);
    expect((await errorOf(key.unwrap(blob))).message).toMatch(/holds no keys of \[default\]/);
    write(`${sectionOf(credential, 'other')}\n${sectionOf(next, 'default')}`);
    expect(await key.unwrap(blob)).toHaveLength(32);
    const named = await openBounded({ profile: 'other' });
    expect((await errorOf(named.unwrap(blob))).message).toContain('ExpiredTokenException');
  });

  it('says unavailable for each bad credential, and no error holds a secret of one', async () => {
    const { server, credential, write, openBounded } = await startKms();
    const { secretAccessKey, sessionToken } = credential;
    const key = await openBounded();
    const blob = await key.wrap(randomBytes(32));
    const wrong = server.newCredential();
    const seen: string[] = [];
    const refusedFor = async (text: string, expected: RegExp) => {
      write(text);
      const { fault, message, all } = await errorOf(key.unwrap(blob));
      expect([fault, message]).toEqual(['unavailable', expect.stringMatching(expected)]);
      seen.push(all);
    };
    const section = sectionOf(credential, 'default');
    await refusedFor(section.replace(secretAccessKey, wrong.secretAccessKey), /InvalidSignatureException/);
    await refusedFor(section.replace(sessionToken, wrong.sessionToken), /UnrecognizedClientException/);
    await refusedFor(section.replace(credential.accessKeyId, 'ASIAUNKNOWN'), /UnrecognizedClientException/);
    await refusedFor(section.replace('[default]', '[another]'), /holds no keys/);
    await refusedFor(section.replace('aws_access_key_id', 'aws_access_key'), /holds no keys/);
    await refusedFor('', /holds no keys/);
    credential.isExpired = true;
    await refusedFor(section, /ExpiredTokenException/);
    credential.isExpired = false;
    // An answer that repeats what was sent, without and with JSON around it.
    for (const around of ['', '{"__type":"KMSInternalException","message":"', '{"Plaintext":"']) {
      server.intercept = (request, response) =>
        response
          .writeHead(around.includes('__type') ? 500 : 200)
          .end(`${around}${request.headers['x-amz-security-token']}`);
      await refusedFor(`${section}\n# ${around}`, /AWS KMS answered/);
    }
    for (const all of seen)
      for (const secret of [secretAccessKey, wrong.secretAccessKey, sessionToken, wrong.sessionToken])
        for (const part of [secret, secret.slice(0, 10), secret.slice(-10)]) expect(all).not.toContain(part);
    const absent = await openBounded({ credentialsFile: '/nonexistent/credentials' });
    expect((await errorOf(absent.unwrap(blob))).message).toMatch(
      /credentials_file: the file \S+ cannot be read/,
    );
  });

  it('trusts only its own authority for a certificate, and needs one', async () => {
    using pki = await TestPki.make();
    const pair = await pki.issue({ names: ['127.0.0.1'] });
    await using server = await AwsKmsServer.start(moto, pair);
    const ours = pki.write('ours', pair).ca?.path;
    const another = pki.write('another', pair, await TestPki.newAuthority()).ca?.path;
    const credentialsFile = join(newFolder(), 'credentials');
    writeFileSync(credentialsFile, sectionOf(server.newCredential(), 'default'));
    const keyArn = await moto.createKey();
    vi.stubEnv('NODE_TLS_REJECT_UNAUTHORIZED', '0');
    for (const [caFile, fault] of [
      [ours, undefined],
      [another, 'unavailable'],
      [undefined, 'unavailable'],
    ] as const) {
      const options = { keyArn, endpoint: server.url, credentialsFile, caFile };
      await using key = new BoundedKey('held', 'aws-kms', await AwsKmsKey.open(options));
      expect(await faultOf(key.wrap(randomBytes(32)))).toBe(fault);
    }
    expect(server.asked).toEqual(['Encrypt']);
  });

  describe('without a file finds a credential', () => {
    const withoutFile = { credentialsFile: undefined };

    it('in variables', async () => {
      const { credential, openBounded } = await startKms();
      vi.stubEnv('AWS_ACCESS_KEY_ID', credential.accessKeyId);
      vi.stubEnv('AWS_SECRET_ACCESS_KEY', credential.secretAccessKey);
      vi.stubEnv('AWS_SESSION_TOKEN', credential.sessionToken);
      await (await openBounded(withoutFile)).check();
    });

    it('in a named profile of the file in the home folder', async () => {
      const { credential, credentialsFile, write, openBounded } = await startKms();
      write(sectionOf(credential, 'kms'));
      vi.stubEnv('AWS_SHARED_CREDENTIALS_FILE', credentialsFile);
      await (await openBounded({ ...withoutFile, profile: 'kms' })).check();
    });

    it('at the endpoint of a container', async () => {
      const { credential, openBounded } = await startKms();
      const url = await listen((_request, response) =>
        response.setHeader('content-type', 'application/json').end(
          JSON.stringify({
            AccessKeyId: credential.accessKeyId,
            SecretAccessKey: credential.secretAccessKey,
            Token: credential.sessionToken,
            Expiration: new Date(Date.now() + 3_600_000).toISOString(),
          }),
        ),
      );
      vi.stubEnv('AWS_CONTAINER_CREDENTIALS_FULL_URI', `${url}/`);
      await (await openBounded(withoutFile)).check();
    });

    it('by a web identity from STS, whose denial is not that of the key', async () => {
      const { server, credential, openBounded } = await startKms();
      const tokenFile = join(newFolder(), 'token');
      writeFileSync(tokenFile, 'header.claims.signature');
      let isAllowed = false;
      const asked: string[] = [];
      const url = await listen(async (request, response) => {
        let text = '';
        for await (const chunk of request) text += String(chunk);
        asked.push(String(new URLSearchParams(text).get('WebIdentityToken')));
        response.writeHead(isAllowed ? 200 : 403, { 'content-type': 'text/xml' });
        response.end(isAllowed ? assumedRole(credential) : STS_DENIAL);
      });
      vi.stubEnv('AWS_ENDPOINT_URL_STS', url);
      vi.stubEnv('AWS_WEB_IDENTITY_TOKEN_FILE', tokenFile);
      vi.stubEnv('AWS_ROLE_ARN', 'arn:aws:iam::123456789012:role/bunkms');
      const key = await openBounded(withoutFile);
      const error = await errorOf(key.wrap(randomBytes(32)));
      expect([error.fault, error.message]).toEqual([
        'unavailable',
        expect.stringMatching(/no credential for AWS/),
      ]);
      expect(error.all).not.toContain('header.claims');
      expect(server.asked).toEqual([]);
      isAllowed = true;
      await key.check();
      expect(new Set(asked)).toEqual(new Set(['header.claims.signature']));
    });

    it('nowhere, and is unavailable', async () => {
      const { openBounded } = await startKms();
      expect(await faultOf((await openBounded(withoutFile)).check())).toBe('unavailable');
    });
  });

  it('is reached where its entry says, whatever the environment says', async () => {
    const { server, open } = await startKms();
    vi.stubEnv('AWS_ENDPOINT_URL', server.url);
    vi.stubEnv('AWS_ENDPOINT_URL_KMS', server.url);
    // A region that does not exist.
    const key = await open({ endpoint: undefined, region: 'nowhere-test-1' });
    expect(await faultOf(new BoundedKey('held', 'aws-kms', key).wrap(randomBytes(32)))).toBe('unavailable');
    expect(server.asked).toEqual([]);
  });

  it('is an entry of the file, whose paths count from its folder, and works from the command line', async () => {
    const { server, keyArn, credential } = await startKms();
    const folder = newFolder();
    const file = join(folder, 'outside.json');
    const entry = {
      kind: 'aws-kms',
      key_arn: keyArn,
      endpoint: server.url,
      credentials_file: 'aws',
      profile: 'x',
    };
    writeFileSync(join(folder, 'aws'), sectionOf(credential, 'x'));
    writeFileSync(file, JSON.stringify({ keys: { cloud: entry } }));
    expect(readEntries(file).get('cloud')).toEqual({ ...entry, credentials_file: join(folder, 'aws') });
    const environment = { BUNKMS_OUTSIDE_KEYS_FILE: file, ...configurationIn(folder) };
    const listed = await bunkms(environment, 'outside', 'list');
    expect(listed.stdout).toContain(keyArn);
    const checked = await bunkms(environment, 'outside', 'check', '--json');
    expect(JSON.parse(checked.stdout)).toMatchObject({
      keys: [{ name: 'cloud', kind: 'aws-kms', works: true }],
    });
    expect(checked.code).toBe(0);
  });
});

describe('an entry for AWS KMS', () => {
  const entry = { kind: 'aws-kms', key_arn: ARN };
  function read(more: object) {
    const file = join(newFolder(), 'outside.json');
    writeFileSync(file, JSON.stringify({ keys: { cloud: { ...entry, ...more } } }));
    return readEntries(file).get('cloud');
  }

  it('needs the ARN of a key alone', () => {
    expect(read({})).toEqual(entry);
    for (const key_arn of [
      'arn:aws-cn:kms:cn-north-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab',
      'arn:aws-us-gov:kms:us-gov-west-1:123456789012:key/mrk-1234abcd12ab34cd56ef1234567890ab',
    ])
      expect(read({ key_arn })).toEqual({ ...entry, key_arn });
  });

  it.each([
    [
      'an alias',
      { key_arn: 'arn:aws:kms:eu-central-1:123456789012:alias/bunkms' },
      /key_arn: must be the ARN of a key/,
    ],
    ['an id alone', { key_arn: '1234abcd-12ab-34cd-56ef-1234567890ab' }, /key_arn/],
    ['another service', { key_arn: 'arn:aws:s3:eu-central-1:123456789012:key/a' }, /key_arn/],
    ['an endpoint without TLS', { endpoint: 'http://kms.example' }, /endpoint: must be https/],
    ['a region that is none', { region: 'a.example#' }, /region: must be a region/],
    ['a secret in the file itself', { aws_secret_access_key: 'x' }, /aws_secret_access_key/],
  ])('may not have %s', (_what, more, fault) => {
    expect(() => read(more)).toThrow(fault);
  });

  it('needs only what the package has, and says how to install it where it is missing', async () => {
    const sdk: KmsSdk = await import('@aws-sdk/client-kms');
    expect(sdk.KMS).toBeTypeOf('function');
    const manifest = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'));
    const folder = newFolder();
    const file = join(folder, 'outside.json');
    writeFileSync(file, JSON.stringify({ keys: { cloud: entry } }));
    const hook = `import { registerHooks } from 'node:module';
      registerHooks({ resolve: (name, context, next) => next(name.replace('@aws-sdk/', '@absent/'), context) });`;
    const { code, stdout } = await bunkmsProcess(
      {
        BUNKMS_OUTSIDE_KEYS_FILE: file,
        ...configurationIn(folder),
        NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(hook)}`,
      },
      ...['outside', 'check', '--json'],
    );
    const range = manifest.peerDependencies['@aws-sdk/client-kms'];
    const remedy = expect.stringContaining(
      `run "npm install @aws-sdk/client-kms@${range}" in the folder of bunkms`,
    );
    expect(JSON.parse(stdout)).toMatchObject({ keys: [{ works: false, fault: 'unavailable', remedy }] });
    expect(code).toBe(1);
    expect(manifest.peerDependenciesMeta['@aws-sdk/client-kms']).toEqual({ optional: true });
  });
});

const STS_DENIAL =
  '<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>Not authorized to perform sts:AssumeRoleWithWebIdentity</Message></Error></ErrorResponse>';

function assumedRole({ accessKeyId, secretAccessKey, sessionToken }: KnownCredential): string {
  const end = new Date(Date.now() + 3_600_000).toISOString();
  return `<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleWithWebIdentityResult>
    <Credentials><AccessKeyId>${accessKeyId}</AccessKeyId><SecretAccessKey>${secretAccessKey}</SecretAccessKey>
    <SessionToken>${sessionToken}</SessionToken><Expiration>${end}</Expiration></Credentials>
    </AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>`;
}
