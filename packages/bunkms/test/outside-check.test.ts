import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { needs } from '@bundoc/shared/testing/programs';
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { AwsKmsServer, type KnownCredential } from './support/aws-kms-server.ts';
import { bunkms } from './support/command.ts';
import { startKms, type TestKms } from './support/kms.ts';
import { KeyCalls } from './support/lifecycle.ts';
import { MotoServer } from './support/moto-server.ts';
import { buildPkcs11js, PIN, TestToken } from './support/pkcs11/tokens.ts';
import { TestPki } from './support/pki.ts';
import { TransitServer } from './support/transit-server.ts';

/** What changes in an entry that works, what the answer names, and its remedy. */
type Case = readonly [title: string, changes: object | (() => object), named: string, remedy: string];

const ARN = 'arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab';

let folder: string;
/** Nothing of them may be in an answer. */
const secrets = new Set<string>([PIN]);

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'bunkms-check-'));
  mkdirSync(join(folder, 'folder'));
  return () => rmSync(folder, { recursive: true });
});

beforeEach(() => {
  // Nothing of the machine's own configuration.
  for (const name of Object.keys(process.env)) if (name.startsWith('AWS_')) vi.stubEnv(name, undefined);
  vi.stubEnv('AWS_CONFIG_FILE', '/nonexistent');
  vi.stubEnv('AWS_SHARED_CREDENTIALS_FILE', '/nonexistent');
  vi.stubEnv('AWS_EC2_METADATA_DISABLED', 'true');
  return () => vi.unstubAllEnvs();
});

/** A file beside the one with the entries. @returns its name. */
function put(name: string, text: string): string {
  writeFileSync(join(folder, name), text);
  chmodSync(join(folder, name), 0o600);
  return name;
}

/** Plants a secret in a file. */
function plant(name: string, secret: string, text = secret): string {
  secrets.add(secret);
  return put(name, `${text}\n`);
}

/** Runs the command on a file with this text. No answer holds a secret, a stack or a second line. */
async function check(text: string | undefined) {
  const file = join(folder, 'outside-keys.json');
  rmSync(file, { force: true });
  if (text !== undefined) put('outside-keys.json', text);
  const settings = { BUNKMS_DATA_DIR: join(folder, 'kms'), BUNKMS_KEK_FILE: join(folder, 'kek') };
  const { code, stdout, stderr } = await bunkms(
    { ...settings, BUNKMS_OUTSIDE_KEYS_FILE: file },
    ...['outside', 'check'],
  );
  const answer = (stdout + stderr).trim();
  for (const secret of secrets) expect(answer).not.toContain(secret);
  expect(answer).not.toMatch(/\n|\bat \S+:\d+|\.[jt]s:\d+|\[object|undefined/);
  return { code, answer };
}

/** Each change of a working entry is answered by what it names, and by what to do. */
function answers(working: () => object, cases: readonly Case[]): void {
  it('works', async () => {
    const { code, answer } = await check(JSON.stringify({ keys: { held: working() } }));
    expect([code, answer]).toEqual([0, expect.stringMatching(/^held: works; .* take \d+ ms$/)]);
  });
  it.each(cases)('says what is wrong, and what to do: %s', async (_title, changes, named, remedy) => {
    const changed = typeof changes === 'function' ? changes() : changes;
    const { code, answer } = await check(JSON.stringify({ keys: { held: { ...working(), ...changed } } }));
    const isOfFile = code === 2;
    expect(answer).toMatch(
      isOfFile ? /^bunkms: .*BUNKMS_OUTSIDE_KEYS_FILE: keys\.held/ : /^held: (denied|unavailable): /,
    );
    expect([code, answer]).toEqual([isOfFile ? 2 : 1, expect.stringContaining(named)]);
    expect(answer).toContain(remedy);
  });
}

describe('bunkms outside check of a file', () => {
  it.each([
    ['that is missing', undefined, 'outside-keys.json cannot be read (ENOENT)', 'write it as docs/how-to/'],
    ['that is empty', ' \n', 'the file is empty', 'it needs {"keys": {…}}'],
    ['that is no JSON', '{"keys": {"held": }}', 'the file is not valid JSON', 'line 1, column 19'],
    ['with a list', '[]', 'the file is not valid JSON', 'not a JSON object'],
    ['with a name twice', '{"keys": {"a": {}, "a": {}}}', 'a name occurs twice', 'line 1, column 20'],
    ['without keys', '{"held": {}}', 'keys: is required', 'held: unknown; known are keys'],
    ['with a list of keys', '{"keys": []}', 'keys: ', 'must be an object'],
    [
      'with a wrong name',
      '{"keys": {"My_Key": {"kind": "x"}}}',
      'keys.My_Key: ',
      'lower-case letters, digits',
    ],
    ['with a text as entry', '{"keys": {"held": "transit"}}', 'keys.held: ', 'must be an object'],
    ['without a kind', '{"keys": {"held": {}}}', 'keys.held.kind: ', 'must be one of "transit", "bunkms"'],
    [
      'of an unknown kind',
      '{"keys": {"held": {"kind": "vault"}}}',
      'keys.held.kind: ',
      'must be one of "transit"',
    ],
  ])('%s names the fault and the remedy', async (_title, text, named, remedy) => {
    const { code, answer } = await check(text);
    expect(answer).toMatch(/^bunkms: the configuration is not valid: BUNKMS_OUTSIDE_KEYS_FILE: /);
    expect([code, answer]).toEqual([2, expect.stringContaining(named)]);
    expect(answer).toContain(remedy);
  });

  it('without entries says so', async () => {
    expect(await check('{"keys": {}}')).toEqual({ code: 0, answer: 'the file has no entry' });
  });
});

describe('bunkms outside check of OpenBao', () => {
  let server: TransitServer;
  let secure: Server;
  beforeAll(async () => {
    server = await TransitServer.start();
    using pki = await TestPki.make();
    const { cert, key } = await pki.issue({ names: ['127.0.0.1'] });
    secure = createServer({ cert, key });
    await once(secure.listen(0, '127.0.0.1'), 'listening');
    server.keys.set('held', randomBytes(32));
    const token = server.newToken();
    plant('token', token);
    plant('two', token, `${token} ${token}`);
    plant('json', token, JSON.stringify({ auth: { client_token: token } }));
    plant('other-token', server.newToken({ mayUse: false }));
    plant('expired', server.newToken({ isValid: false }));
    plant('wrong', 'hvs.never-issued-by-anyone');
    put('empty', '\n');
    put('no-ca', 'no certificate');
  });
  afterAll(async () => {
    secure.close();
    await server[Symbol.asyncDispose]();
  });
  const answering = (status: number, text: string) => () => {
    server.intercept = (_request, response) => {
      response.writeHead(status, { 'content-type': 'application/json' }).end(text);
    };
    return {};
  };
  beforeEach(() => {
    server.intercept = undefined;
  });

  answers(
    () => ({ kind: 'transit', url: server.url, key: 'held', token_file: 'token' }),
    [
      [
        'an unknown member',
        { token_fil: 'x' },
        'token_fil (did you mean token_file?): unknown',
        'known are kind',
      ],
      ['the token itself', { token: 'x' }, 'token: unknown', 'token_file'],
      [
        'the token as a path',
        { token_file: 'hvs.CAESIJ0123456789abcdefgh' },
        'token_file: ',
        'the path of a file',
      ],
      ['no scheme', { url: '127.0.0.1:8200' }, 'url: ', 'such as "https://bao.example:8200"'],
      ['another scheme', { url: 'bao:8200' }, 'url: ', 'such as "https://bao.example:8200"'],
      ['http to another machine', { url: 'http://bao.example:8200' }, 'url: ', 'must be https'],
      ['a credential in the URL', { url: 'https://me:pw@bao.example' }, 'url: ', 'must have no credential'],
      ['a mount with slashes', { mount: '/transit/' }, 'mount: ', 'such as "transit"'],
      ['no token file', { token_file: 'absent' }, 'absent cannot be read (ENOENT)', 'put the file there'],
      [
        'a folder as token file',
        { token_file: 'folder' },
        'folder is a folder: name a file',
        'correct token_file',
      ],
      ['an empty token file', { token_file: 'empty' }, 'empty holds no token', 'put the token into it'],
      ['two tokens', { token_file: 'two' }, 'two holds no token', 'nothing else'],
      ['JSON in the token file', { token_file: 'json' }, 'json holds no token', 'nothing else'],
      [
        'a wrong token',
        { token_file: 'wrong' },
        'token does not work',
        'put a token that works into token_file',
      ],
      ['an expired token', { token_file: 'expired' }, 'token does not work', 'put a token that works'],
      [
        'a token without the right',
        { token_file: 'other-token' },
        'permission denied',
        'update transit/encrypt/held',
      ],
      [
        'no such key',
        { key: 'absent' },
        'encryption key not found',
        'make transit/keys/absent, or correct key',
      ],
      ['no such mount', { mount: 'other' }, 'no handler for route', 'mount in the entry'],
      ['/v1 in the URL', () => ({ url: `${server.url}/v1` }), 'no handler', 'url (without /v1)'],
      [
        'https to http',
        () => ({ url: server.url.replace('http:', 'https:') }),
        'wrong version',
        'correct scheme',
      ],
      [
        'nothing there',
        { url: 'http://127.0.0.1:1' },
        'no answer of http://127.0.0.1:1',
        'see that the service runs',
      ],
      ['an unknown host', { url: 'https://bao.invalid' }, 'no answer of https://bao.invalid', 'in the entry'],
      [
        'an unknown authority',
        () => ({ url: `https://127.0.0.1:${(secure.address() as AddressInfo).port}` }),
        'no answer of https:',
        'into ca_file',
      ],
      ['no file of authorities', { ca_file: 'absent' }, 'ca_file: the file', 'correct ca_file'],
      ['a file without authorities', { ca_file: 'no-ca' }, 'no-ca holds no certificate', 'correct ca_file'],
      [
        'a sealed one',
        answering(503, '{"errors":["Vault is sealed"]}'),
        'Vault is sealed',
        'unseal the service',
      ],
      ['a proxy', answering(502, '<html>'), 'it answered 502', 'must lead to OpenBao or Vault itself'],
      ['a page', answering(200, '<html>'), 'it answered 200', 'must lead to OpenBao or Vault itself'],
      ['a redirect', answering(307, ''), 'it answered 307', 'must lead to OpenBao or Vault itself'],
    ],
  );

  it('warns of a file with a secret that others may read', async () => {
    chmodSync(join(folder, 'token'), 0o640);
    const entry = { kind: 'transit', url: server.url, key: 'held', token_file: 'token' };
    put('outside-keys.json', JSON.stringify({ keys: { held: entry } }));
    const { code, stdout } = await bunkms(
      {
        BUNKMS_DATA_DIR: join(folder, 'kms'),
        BUNKMS_KEK_FILE: join(folder, 'kek'),
        BUNKMS_OUTSIDE_KEYS_FILE: join(folder, 'outside-keys.json'),
      },
      ...['outside', 'check'],
    );
    chmodSync(join(folder, 'token'), 0o600);
    const [first, second] = stdout.trim().split('\n');
    expect([code, first]).toEqual([0, expect.stringMatching(/^held: works/)]);
    expect(second).toMatch(/^held: token_file: \S+ is open to its group or to others: run "chmod 600 \S+"/);
  });
});

describe('bunkms outside check of another BunKMS', () => {
  let kms: TestKms;
  beforeAll(async () => {
    kms = await startKms();
    const keys = await KeyCalls.of(kms);
    for (const name of ['root', 'off']) await keys.create(name, { exportable: false });
    await keys.post('off', 'disable');
    const issue = async (file: string, scope: ('kms:encrypt' | 'kms:decrypt')[], names: string[]) =>
      plant(file, (await kms.issue({ scope, keys: names })).token);
    await issue('seal', ['kms:encrypt', 'kms:decrypt'], ['*']);
    await issue('half', ['kms:encrypt'], ['root']);
    await issue('elsewhere', ['kms:encrypt', 'kms:decrypt'], ['other']);
    plant('unknown', 'eyJhbGciOiJFZERTQSJ9.e30.c2lnbmF0dXJl');
  });
  afterAll(() => kms[Symbol.asyncDispose]());

  answers(
    () => ({ kind: 'bunkms', url: kms.running.apiUrl, key: 'root', token_file: 'seal' }),
    [
      ['a wrong name', { key: 'My Key!' }, 'key: ', 'must be 1 to 128 of a-z'],
      ['a member of OpenBao', { mount: 'transit' }, 'mount: unknown', 'known are kind, url, key, token_file'],
      ['no such key', { key: 'absent' }, 'key_not_found', 'make the key there, or correct key'],
      ['a disabled key', { key: 'off' }, 'key_disabled', 'enable the key there'],
      ['half of the scopes', { token_file: 'half' }, 'forbidden', 'kms:encrypt and kms:decrypt'],
      ['a token for another key', { token_file: 'elsewhere' }, 'forbidden', 'for this key'],
      ['an unknown token', { token_file: 'unknown' }, 'unauthenticated', 'put a token that works'],
      ['no token file', { token_file: 'absent' }, 'absent cannot be read', 'put the file there'],
      ['another service', () => ({ url: `${kms.running.apiUrl}/elsewhere` }), 'answer', 'correct url'],
      [
        'nothing there',
        { url: 'http://127.0.0.1:1' },
        'no answer of http://127.0.0.1:1',
        'see that the service',
      ],
    ],
  );
});

describe('bunkms outside check of AWS KMS', needs('moto'), () => {
  let moto: MotoServer;
  let server: AwsKmsServer;
  let keyArn: string;
  let disabledArn: string;
  const sectionOf = (credential: KnownCredential, changes: object = {}) =>
    Object.entries({
      aws_access_key_id: credential.accessKeyId,
      aws_secret_access_key: credential.secretAccessKey,
      aws_session_token: credential.sessionToken,
      ...changes,
    }).reduce((text, [name, value]) => `${text}\n${name} = ${value}`, '[default]');
  beforeAll(async () => {
    moto = await MotoServer.start();
    server = await AwsKmsServer.start(moto);
    keyArn = await moto.createKey();
    disabledArn = await moto.createKey();
    await moto.call('DisableKey', { KeyId: String(disabledArn.split('/')[1]) });
    const [credential, expired] = [server.newCredential(), server.newCredential()];
    expired.isExpired = true;
    plant('credentials', credential.secretAccessKey, sectionOf(credential));
    secrets.add(credential.sessionToken);
    plant('expired', expired.secretAccessKey, sectionOf(expired));
    const wrong = 'wrong/secret+access+key';
    plant('wrong-secret', wrong, sectionOf(credential, { aws_secret_access_key: wrong }));
    put('wrong-id', sectionOf(credential, { aws_access_key_id: 'AKIAUNKNOWN' }));
    put('empty', '\n');
    put('no-ca', 'no certificate');
  });
  afterAll(async () => {
    await server[Symbol.asyncDispose]();
    await moto[Symbol.asyncDispose]();
  });

  answers(
    () => ({ kind: 'aws-kms', key_arn: keyArn, endpoint: server.url, credentials_file: 'credentials' }),
    [
      ['an alias', { key_arn: ARN.replace(/key.*/, 'alias/held') }, 'key_arn: ', 'an alias is not'],
      ['an id', { key_arn: ARN.split('/')[1] }, 'key_arn: ', 'must be the ARN of a key'],
      ['a name of a region', { region: 'Frankfurt' }, 'region: ', 'such as "eu-central-1"'],
      ['another region', { region: 'us-east-1' }, 'region: ', 'must be that of key_arn, or be left out'],
      ['the secret itself', { secret_access_key: 'x' }, 'secret_access_key: unknown', 'credentials_file'],
      ['http to another machine', { endpoint: 'http://kms.example' }, 'endpoint: ', 'must be https'],
      ['no such key', { key_arn: ARN }, 'NotFoundException', 'correct key_arn'],
      ['a disabled key', () => ({ key_arn: disabledArn }), 'DisabledException', 'enable the key'],
      ['no file', { credentials_file: 'absent' }, 'absent cannot be read', 'correct credentials_file'],
      ['an empty file', { credentials_file: 'empty' }, 'holds no keys of [default]', 'put aws_access_key_id'],
      ['no such profile', { profile: 'prod' }, 'holds no keys of [prod]', 'correct profile'],
      ['no credential', { credentials_file: undefined }, 'no credential for AWS', 'name a credentials_file'],
      ['a wrong secret', { credentials_file: 'wrong-secret' }, 'InvalidSignature', 'access key that works'],
      ['a wrong id', { credentials_file: 'wrong-id' }, 'UnrecognizedClient', 'access key that works'],
      ['an expired credential', { credentials_file: 'expired' }, 'ExpiredToken', 'access key that works'],
      [
        'nothing there',
        { endpoint: 'http://127.0.0.1:1' },
        'no answer of http://127.0.0.1:1',
        'the service runs',
      ],
      ['a file without authorities', { ca_file: 'no-ca' }, 'no-ca holds no', 'correct ca_file'],
    ],
  );
});

describe('bunkms outside check of a PKCS#11 token', needs('softhsm'), () => {
  let token: TestToken;
  beforeAll(async () => {
    buildPkcs11js();
    token = await TestToken.soft(
      ...(['held', 'twice', 'twice', 'forbidden'] as const).map((label) => ({
        order: 'aes' as const,
        label,
      })),
      { order: 'aes', label: 'short', bytes: 16 },
      { order: 'aes', label: 'open', extractable: true },
      { order: 'rsa', label: 'weak', bits: 1_024 },
      { order: 'rsa', label: 'rsa', bits: 2_048 },
      { order: 'allow', label: 'forbidden', value: false },
    );
    put('pin', `${PIN}\n`);
    plant('wrong-pin', '998877');
    put('empty', '\n');
  }, 120_000);
  afterAll(() => token[Symbol.asyncDispose]());
  beforeEach(() => {
    vi.stubEnv('SOFTHSM2_CONF', token.environment['SOFTHSM2_CONF']);
  });

  const withoutConfiguration = () => {
    vi.stubEnv('SOFTHSM2_CONF', '/nonexistent');
    return {};
  };

  answers(
    () => ({ kind: 'pkcs11', module: token.module, token: token.label, key: 'held', pin_file: 'pin' }),
    [
      ['the PIN itself', { pin: '998877' }, 'pin: unknown', 'pin_file'],
      ['the PIN as a path', { pin_file: '998877' }, 'pin_file: ', 'must be the path of a file'],
      ['another hash', { oaep_hash: 'SHA256' }, 'oaep_hash: ', 'must be one of "sha256", "sha1"'],
      ['no module', { module: '/usr/lib/absent.so' }, '/usr/lib/absent.so', 'correct module in the entry'],
      [
        'a name of a module',
        { module: 'libsofthsm2.so' },
        'libsofthsm2.so',
        'the path of the PKCS#11 library',
      ],
      ['a file that is no module', { module: 'pin' }, 'cannot be loaded', 'correct module in the entry'],
      [
        'another token',
        { token: 'Held' },
        'no token has the label "Held"',
        'the module shows "held" (serial ',
      ],
      ['another serial', { serial: '1234' }, 'the serial 1234', 'the module shows "held" (serial '],
      ['no such key', { key: 'absent' }, 'no key of the token has the label "absent"', 'make that key'],
      ['two such keys', { key: 'twice' }, 'several keys', 'a label of its own'],
      ['a short key', { key: 'short' }, 'must have 256 bits', 'make another key'],
      ['a weak key', { key: 'weak' }, 'the RSA key has 1024 bits', 'make another key'],
      ['a key that can be read', { key: 'open' }, 'can be read out', 'CKA_EXTRACTABLE false'],
      ['a key that is forbidden', { key: 'forbidden' }, 'NOT_PERMITTED', 'set CKA_ENCRYPT and CKA_DECRYPT'],
      ['a hash that it refuses', { key: 'rsa' }, 'refuses RSA-OAEP with sha256', 'another oaep_hash'],
      ['no PIN file', { pin_file: 'absent' }, 'absent cannot be read', 'correct pin_file'],
      ['an empty PIN file', { pin_file: 'empty' }, 'empty holds no PIN', 'put the PIN into it'],
      ['a wrong PIN', { pin_file: 'wrong-pin' }, 'CKR_PIN_INCORRECT', 'put the PIN of the user into it'],
      [
        ...(['no configuration', withoutConfiguration] as const),
        ...(['the module does not start', 'see its own configuration'] as const),
      ],
    ],
  );
});
