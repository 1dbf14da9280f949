import { createHash } from 'node:crypto';
import { once } from 'node:events';
import type { ServerResponse } from 'node:http';
import { inspect } from 'node:util';
import { describe, expect, it, onTestFinished } from 'vitest';
import { type OpenOptions, openObjectStorage } from '../src/object-storage/open.ts';
import type { ObjectStorage } from '../src/object-storage/port.ts';
import { systemClock } from '../src/runtime/clock.ts';
import { errorOf, keysOf } from './object-storage-conformance.ts';
import { type Answering, error, REGION, type S3Reply, type S3Request, S3Server } from './s3-server.ts';

const BODY = Buffer.from('sealed');
const etagOf = (body: Uint8Array) => `"${createHash('md5').update(body).digest('hex')}"`;
const STORED = { status: 200, headers: { etag: etagOf(BODY) } };

/** A storage on a server that answers as a test wants. No wait between attempts takes time. */
async function setUp(answer: Answering, more: Partial<OpenOptions> = {}) {
  const server = await S3Server.start(answer);
  const { accessKeyId, secretAccessKey, sessionToken } = server.newCredential();
  const waits: number[] = [];
  const storage = openObjectStorage(`s3://bucket/a?endpoint=${server.url}&region=${REGION}`, {
    variable: 'BUNDOC_ARCHIVE',
    environment: {
      AWS_ACCESS_KEY_ID: accessKeyId,
      AWS_SECRET_ACCESS_KEY: secretAccessKey,
      AWS_SESSION_TOKEN: sessionToken,
    },
    clock: systemClock,
    random: () => 1,
    sleep: async (ms) => {
      waits.push(ms);
    },
    ...more,
  });
  onTestFinished(async () => {
    await storage[Symbol.asyncDispose]();
    await server[Symbol.asyncDispose]();
  });
  const methods = () => server.requests.map(({ method }) => method).join(' ');
  return { server, storage, waits, methods, secrets: [secretAccessKey, sessionToken] };
}

/** Answers one request after another; the last one answers all further ones. */
function inTurn(...replies: readonly (S3Reply | Answering)[]): Answering {
  let asked = 0;
  return (request, response) => {
    const reply = replies[Math.min(asked, replies.length - 1)];
    asked += 1;
    return typeof reply === 'function' ? reply(request, response) : reply;
  };
}

const cut: Answering = (_request, response) => {
  response.destroy();
  return undefined;
};

const cutBody: Answering = (_request, response) => {
  response.writeHead(200, { 'content-length': '6' });
  response.write('sea', () => response.destroy());
  return undefined;
};

const silent: Answering = () => undefined;

/** A body without an end, for as long as it is read. */
function endless(status: number, begin: string, headers: Record<string, string> = {}): Answering {
  return (_request, response) => {
    response.writeHead(status, headers);
    response.write(begin);
    const more = () => {
      while (!response.destroyed && response.write('x'.repeat(65_536)));
    };
    response.on('drain', more).on('error', () => undefined);
    more();
    return undefined;
  };
}

const get = (storage: ObjectStorage) => storage.get('one', { maxBytes: 6 });
const put = (storage: ObjectStorage) => storage.put('one', BODY);
const list = (storage: ObjectStorage) => keysOf(storage, 'p/');

describe('a bucket that fails', () => {
  it.each<[string, S3Reply | Answering]>([
    ['503 SlowDown', error(503, 'SlowDown')],
    ['500 without a document', { status: 500 }],
    ['429 of a proxy', { status: 429, body: 'calm down' }],
    ['400 RequestTimeout', error(400, 'RequestTimeout')],
    ['400 BadDigest', error(400, 'BadDigest')],
    ['409 ConditionalRequestConflict', error(409, 'ConditionalRequestConflict')],
    ['200 with an error inside', error(200, 'InternalError')],
    ['a closed connection', cut],
  ])('gets the same bytes again after %s', async (_title, failure) => {
    const { server, storage, waits } = await setUp(inTurn(failure, failure, STORED));
    await put(storage);
    expect(server.requests.map(({ body }) => body)).toEqual([BODY, BODY, BODY]);
    expect(waits).toEqual([200, 400]);
  });

  it('is asked five times at most, with waits that have full jitter and a bound', async () => {
    const { storage, waits, methods } = await setUp(inTurn(error(503, 'SlowDown')), { random: () => 0.5 });
    const failed = await errorOf(put(storage));
    expect([failed.kind, failed.code]).toEqual(['unavailable', 'SlowDown']);
    expect(methods()).toBe('PUT PUT PUT PUT PUT');
    expect(waits).toEqual([100, 200, 400, 800]);
  });

  it.each([
    [403, 'AccessDenied', 'denied'],
    [403, 'SignatureDoesNotMatch', 'denied'],
    [400, 'ExpiredToken', 'denied'],
    [404, 'NoSuchBucket', 'missing'],
    [403, 'RequestTimeTooSkewed', 'clock'],
    [400, 'InvalidRequest', 'wrong'],
    [404, 'NoSuchUpload', 'wrong'],
    [501, 'NotImplemented', 'wrong'],
  ])('is asked once when it answers %i %s, which is %s', async (status, code, kind) => {
    const calls = [get, list, (storage: ObjectStorage) => storage.delete('one')];
    for (const call of calls) {
      const { storage, server } = await setUp(inTurn(error(status, code)));
      const refused = await errorOf(call(storage));
      expect([refused.kind, refused.code]).toEqual([kind, code]);
      expect(server.requests).toHaveLength(1);
    }
  });

  it('reads an object again whose body was cut', async () => {
    const whole = { status: 200, body: BODY };
    const { storage, methods } = await setUp(inTurn(cutBody, cut, whole));
    expect(await get(storage)).toEqual(BODY);
    expect(methods()).toBe('GET GET GET');
  });

  it('is given up when it sends no head', async () => {
    const { storage } = await setUp(silent, { bounds: { attempts: 1, headersMs: 50 } });
    const failed = await errorOf(get(storage));
    expect([failed.kind, failed.code]).toEqual(['unavailable', 'UND_ERR_HEADERS_TIMEOUT']);
  });

  it('is given up when the body of its answer does not end, and the connection is closed', async () => {
    let open: ServerResponse | undefined;
    const stalled: Answering = (_request, response) => {
      open = response;
      response.writeHead(200, { 'content-length': '6' }).write('sea');
      return undefined;
    };
    const { storage } = await setUp(stalled, { bounds: { attempts: 1, attemptMs: 100 } });
    const failed = await errorOf(get(storage));
    expect([failed.kind, failed.code]).toEqual(['unavailable', 'TimeoutError']);
    if (open?.closed === false) await once(open, 'close');
  });

  it('says how far the clock of this machine is ahead or behind', async () => {
    const date = new Date(Date.now() - 3_600_000).toUTCString();
    const { storage } = await setUp(inTurn({ ...error(403, 'RequestTimeTooSkewed'), headers: { date } }));
    expect((await errorOf(put(storage))).message).toMatch(
      /clock of this machine, which is 3(?:599|600|601) s ahead/,
    );
  });

  it('has four connections at most, and closing ends what waits for an answer or for a retry', async () => {
    const responses: ServerResponse[] = [];
    const { promise: isBusy, resolve } = Promise.withResolvers<void>();
    const { storage } = await setUp((_request, response) => {
      if (responses.push(response) === 4) resolve();
      return undefined;
    });
    const calls = Array.from({ length: 10 }, () => errorOf(get(storage)));
    await isBusy;
    await storage[Symbol.asyncDispose]();
    for (const failed of await Promise.all(calls)) expect(failed.kind).toBe('unavailable');
    expect(responses).toHaveLength(4);
    const { promise: isWaiting, resolve: wait } = Promise.withResolvers<void>();
    const waiting = await setUp(cut, {
      sleep: async (_ms, signal) => {
        wait();
        await once(signal, 'abort');
      },
    });
    const call = errorOf(put(waiting.storage));
    await isWaiting;
    await waiting.storage[Symbol.asyncDispose]();
    expect((await call).message).toContain('closed');
  });
});

describe('a put', () => {
  it('whose answer was lost resolves when the bucket has the same bytes, and conflicts with others', async () => {
    const exists = error(412, 'PreconditionFailed');
    const same = await setUp(inTurn(cut, exists, { status: 200, body: BODY }));
    await put(same.storage);
    expect(same.methods()).toBe('PUT PUT GET');
    const other = await setUp(inTurn(cut, exists, { status: 200, body: 'others' }));
    expect((await errorOf(put(other.storage))).kind).toBe('conflict');
    const longer = await setUp(inTurn(exists, { status: 200, body: 'sealed and more' }));
    expect((await errorOf(put(longer.storage))).kind).toBe('conflict');
  });

  it.each<[string, S3Reply]>([
    ['the ETag of other bytes', { status: 200, headers: { etag: etagOf(Buffer.from('other')) } }],
    ['no ETag, as of a proxy that answers everything', { status: 200, body: '<html>Welcome</html>' }],
  ])('whose answer has %s resolves only when the bucket gives the bytes back', async (_title, lie) => {
    const right = await setUp(inTurn(lie, { status: 200, body: BODY }));
    await put(right.storage);
    const other = await setUp(inTurn(lie, { status: 200, body: 'sealex' }));
    expect((await errorOf(put(other.storage))).kind).toBe('wrong');
    const none = await setUp(inTurn(lie, error(404, 'NoSuchKey')));
    expect((await errorOf(put(none.storage))).kind).toBe('wrong');
    expect(none.methods()).toBe('PUT GET');
  });

  it.each([
    { 'x-amz-server-side-encryption': 'aws:kms', etag: `"${'0'.repeat(32)}"` },
    { 'x-amz-server-side-encryption-customer-algorithm': 'AES256', etag: `"${'0'.repeat(32)}"` },
    { 'x-amz-server-side-encryption': 'AES256', etag: etagOf(BODY) },
    { etag: `"${'0'.repeat(32)}-1"` },
    { etag: 'W/"of another kind"' },
  ])('accepts an ETag that S3 does not promise to be an MD5: %j', async (headers) => {
    const { storage, methods } = await setUp(inTurn({ status: 200, headers }));
    await put(storage);
    expect(methods()).toBe('PUT');
  });

  it('is sent without a condition to a service that knows none, from then on', async () => {
    const { server, storage } = await setUp(inTurn(error(501, 'NotImplemented'), STORED));
    await put(storage);
    await put(storage);
    expect(server.requests.map(({ headers }) => headers['if-none-match'])).toEqual([
      '*',
      undefined,
      undefined,
    ]);
  });
});

describe('a get', () => {
  it.each<[string, S3Reply | Answering, string]>([
    ['more bytes than are accepted', { status: 200, body: 'sealed and more' }, 'too-large'],
    ['endlessly many bytes', endless(200, ''), 'wrong'],
    ['a length that is no number', { status: 200, headers: { 'content-length': '6, 6' } }, 'unavailable'],
    ['an error without an end', endless(403, '<Error>'), 'denied'],
    ['the 404 of a proxy', { status: 404, body: '<html>nothing here</html>' }, 'wrong'],
    ['204', { status: 204 }, 'wrong'],
  ])('refuses an answer with %s', async (_title, answer, kind) => {
    const { storage } = await setUp(inTurn(answer));
    expect((await errorOf(get(storage))).kind).toBe(kind);
  });

  it.each<[string, S3Reply]>([
    ['the whole object', { status: 200, body: BODY }],
    ['no range', { status: 206, body: 'al' }],
    ['another range', { status: 206, headers: { 'content-range': 'bytes 1-2/6' }, body: 'ea' }],
    ['a shorter range', { status: 206, headers: { 'content-range': 'bytes 2-2/6' }, body: 'a' }],
    ['other bytes than it says', { status: 206, headers: { 'content-range': 'bytes 2-3/6' }, body: 'a' }],
  ])('of a range refuses an answer with %s', async (_title, answer) => {
    const { storage } = await setUp(inTurn(answer));
    const call = storage.get('one', { range: { at: 2, bytes: 2 }, maxBytes: 6 });
    expect((await errorOf(call)).kind).toBe('wrong');
  });
});

const entry = (key: string, size = '1') => `<Contents><Key>${key}</Key><Size>${size}</Size></Contents>`;
const page = (entries: string, next?: string): S3Reply => ({
  status: 200,
  body: `<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><EncodingType>url</EncodingType><IsTruncated>${next !== undefined}</IsTruncated>${
    next === undefined ? '' : `<NextContinuationToken>${next}</NextContinuationToken>`
  }${entries}</ListBucketResult>`,
});
const LAUGHS = `<!DOCTYPE l [<!ENTITY a "ha">${Array.from({ length: 20 }, (_, at) => {
  const [name, of] = [String.fromCharCode(98 + at), String.fromCharCode(97 + at)];
  return `<!ENTITY ${name} "${`&${of};`.repeat(10)}">`;
}).join('')}]>`;

describe('a list', () => {
  it.each<[string, S3Reply | Answering]>([
    ['a key outside the prefix', page(entry('a/p/1') + entry('a/q'))],
    ['keys that are not sorted', page(entry('a/p/2') + entry('a/p/1'))],
    ['a key twice', page(entry('a/p/1') + entry('a/p/1'))],
    ['a key twice, in two pages', inTurn(page(entry('a/p/1'), 'next'), page(entry('a/p/1')))],
    ['the same token again', inTurn(page(entry('a/p/1'), 'next'), page(entry('a/p/2'), 'next'))],
    ['empty pages without an end', ({ url }) => page('', `${url.length}`)],
    ['foreign keys without an end', ({ url }) => page(entry('a/p/%20'), String(url.length + Math.random()))],
    ['a next page without a token', page('<IsTruncated>true</IsTruncated>', '')],
    ['no word on further pages', { status: 200, body: '<ListBucketResult/>' }],
    ['a size that is no number', page(entry('a/p/1', '-1'))],
    ['no key', page('<Contents><Size>1</Size></Contents>')],
    ['a key that is wrongly encoded', page(entry('a/p/%E0%A4%A'))],
    ['another document', { status: 200, body: '<ListAllMyBucketsResult/>' }],
    ['no document', { status: 200, body: '<html><p>Welcome</html>' }],
    ['nothing', { status: 200 }],
    ['bytes that are no text', { status: 200, body: Buffer.from([0x3c, 0xff, 0xfe]) }],
    ['entities that multiply', { status: 200, body: `${LAUGHS}<ListBucketResult>&t;</ListBucketResult>` }],
    ['too many elements', page(entry('a/p/1') + '<Owner/>'.repeat(20_001))],
    ['elements too deep', page(`${'<a>'.repeat(5_000)}${'</a>'.repeat(5_000)}`)],
    ['a document without an end', endless(200, '<ListBucketResult><Contents><Key>')],
  ])('refuses an answer with %s', async (_title, answer) => {
    const { storage } = await setUp(typeof answer === 'function' ? answer : inTurn(answer));
    expect((await errorOf(list(storage))).kind).toBe('wrong');
  });

  it('asks again for the page that failed, not for the whole list', async () => {
    const { server, storage } = await setUp(
      inTurn(page(entry('a/p/1'), 'n+/='), error(503, 'SlowDown'), cut, page(entry('a/p/2'))),
    );
    expect(await list(storage)).toEqual(['p/1', 'p/2']);
    const tokens = server.requests.map(({ url }) => /continuation-token=([^&]*)/.exec(url)?.[1]);
    expect(tokens).toEqual([undefined, ...Array.from({ length: 3 }, () => 'n%2B%2F%3D')]);
  });

  it('leaves out what is no key, and what the service lists although it is not after the given key', async () => {
    const entries = [
      'a/p/',
      'a/p/%20',
      'a/p/%C3%A4',
      'a/p/1',
      'a/p/2',
      'a/p/3+4',
      'a/p/4%2B',
      'a/p/5',
      'a/p/5//6',
    ];
    const { storage } = await setUp(inTurn(page(entries.map((key) => entry(key)).join(''))));
    expect(await keysOf(storage, 'p/', 'p/1')).toEqual(['p/2', 'p/5']);
  });
});

describe('a bucket elsewhere', () => {
  it.each([301, 302, 307, 308])('is named, but not followed to, after status %i', async (status) => {
    const elsewhere = await setUp(inTurn(STORED));
    const headers = { location: `${elsewhere.server.url}/bucket/a/one`, 'x-amz-bucket-region': 'eu-north-1' };
    const { storage, methods } = await setUp(inTurn({ ...error(status, 'PermanentRedirect'), headers }));
    const failed = await errorOf(put(storage));
    expect(failed.kind).toBe('wrong');
    expect(failed.message).toContain('the bucket is in the region eu-north-1: correct region, or endpoint');
    expect([methods(), elsewhere.methods()]).toEqual(['PUT', '']);
  });

  it('is named when the service says that another region was signed', async () => {
    const malformed = error(400, 'AuthorizationHeaderMalformed', '', 'eu-north-1');
    const { storage } = await setUp(inTurn(malformed));
    expect((await errorOf(get(storage))).message).toContain('is in the region eu-north-1');
  });
});

describe('a credential', () => {
  const echoing = (
    write: (request: S3Request, response: ServerResponse, text: string) => S3Reply | undefined,
  ) =>
    ((request, response) =>
      write(request, response, JSON.stringify(request.headers).replaceAll('<', ''))) satisfies Answering;
  it.each<[string, Answering]>([
    ['a document', echoing((_request, _response, text) => error(403, 'AccessDenied', text))],
    ['a code', echoing((_request, _response, text) => error(400, text))],
    ['a region', echoing((_request, _response, text) => error(400, 'PermanentRedirect', '', text))],
    ['a body', echoing((_request, _response, text) => ({ status: 200, body: text }))],
    [
      'headers',
      echoing(({ headers }) => ({
        status: 301,
        headers: {
          'x-amz-bucket-region': String(headers['x-amz-security-token']),
          date: String(headers.authorization),
        },
      })),
    ],
    [
      'what is no HTTP',
      echoing((_request, response, text) => {
        response.socket?.end(`HTTP/1.1 200 OK\r\n${text}\r\n\r\n`);
        return undefined;
      }),
    ],
  ])('is in no error, although the service repeats it in %s', async (_title, answer) => {
    const { storage, server, secrets } = await setUp(answer, { bounds: { attempts: 2 } });
    for (const call of [get, put, list]) {
      const shown = inspect(await errorOf(call(storage)), {
        depth: 20,
        showHidden: true,
        maxStringLength: null,
      });
      const signature = String(server.requests.at(-1)?.headers.authorization).slice(-64);
      for (const secret of [...secrets, signature]) expect(shown).not.toContain(secret);
    }
    expect(inspect(storage.name)).not.toContain(secrets[0]);
  });

  it.each([
    ['wrong', { AWS_SECRET_ACCESS_KEY: 'planted' }, 'SignatureDoesNotMatch'],
    ['unknown', { AWS_ACCESS_KEY_ID: 'planted' }, 'InvalidAccessKeyId'],
    ['cut', { AWS_SESSION_TOKEN: 'planted' }, 'InvalidToken'],
    ['absent', {}, 'there is no credential: name a file with credentials='],
    [
      'not fit for a header',
      { AWS_ACCESS_KEY_ID: 'planted\r\n', AWS_SECRET_ACCESS_KEY: 'planted' },
      'there is no credential',
    ],
  ])('that is %s is denied, and is not in the error', async (_title, changed, said) => {
    const { server, storage } = await setUp(inTurn(STORED));
    await storage[Symbol.asyncDispose]();
    const { accessKeyId, secretAccessKey, sessionToken } = server.newCredential();
    const right = {
      AWS_ACCESS_KEY_ID: accessKeyId,
      AWS_SECRET_ACCESS_KEY: secretAccessKey,
      AWS_SESSION_TOKEN: sessionToken,
    };
    const environment = Object.keys(changed).length === 1 ? { ...right, ...changed } : changed;
    const options = { variable: 'BUNDOC_ARCHIVE', environment, clock: systemClock };
    await using other = openObjectStorage(`s3://bucket?endpoint=${server.url}&region=${REGION}`, options);
    const failed = await errorOf(put(other));
    expect(failed.kind).toBe('denied');
    expect(failed.message).toContain(said);
    expect(inspect(failed, { depth: 20, showHidden: true })).not.toMatch(/planted|AKIA|ASIA/);
  });

  it('in a file that cannot be read, or holds no key, is denied by the name of the parameter', async () => {
    const { server } = await setUp(inTurn(STORED));
    for (const file of ['/nonexistent/file', import.meta.filename, import.meta.dirname]) {
      const setting = `s3://bucket?endpoint=${server.url}&credentials=${file}`;
      const options = { variable: 'BUNDOC_ARCHIVE', environment: {}, clock: systemClock };
      await using storage = openObjectStorage(setting, options);
      const failed = await errorOf(put(storage));
      expect(failed.kind).toBe('denied');
      expect(failed.message).toContain('credentials: ');
    }
    expect(server.requests).toEqual([]);
  });
});
