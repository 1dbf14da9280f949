import { mkdtempSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { AwsV4Signer } from 'aws4fetch';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openObjectStorage } from '../src/object-storage/open.ts';
import { systemClock } from '../src/runtime/clock.ts';
import { type MotoProcess, startMoto } from '../src/testing/moto-process.ts';
import { needs } from '../src/testing/programs.ts';
import { canonicalRequest, sha256, signatureOf } from '../src/testing/sigv4.ts';
import { conformsToPort, errorOf, keysOf } from './object-storage-conformance.ts';
import { answeringAs, type KnownCredential, REGION, S3Server } from './s3-server.ts';

const options = { variable: 'BUNDOC_ARCHIVE', environment: {}, clock: systemClock };

function sectionOf({ accessKeyId, secretAccessKey, sessionToken }: KnownCredential): string {
  const token = sessionToken === '' ? '' : `\naws_session_token = ${sessionToken}`;
  return `[default]\naws_access_key_id = ${accessKeyId}\naws_secret_access_key=${secretAccessKey}${token}\n`;
}

conformsToPort('of a folder', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'object-storage-'));
  return {
    open: (place) => openObjectStorage(place === 'absent' ? join(folder, 'none') : folder, options),
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true }),
  };
});

describe('signatures of S3', () => {
  // "Examples: Signature Calculations" of the Amazon S3 API Reference.
  const secretAccessKey = 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY';
  const time = '20130524T000000Z';
  const host = 'examplebucket.s3.amazonaws.com';
  const date = { date: 'Fri, 24 May 2013 00:00:00 GMT', 'x-amz-storage-class': 'REDUCED_REDUNDANCY' };
  it.each([
    [
      'GET',
      '/test.txt',
      '',
      { range: 'bytes=0-9' },
      '',
      'f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41',
    ],
    [
      'PUT',
      '/test%24file.text',
      '',
      date,
      'Welcome to Amazon S3.',
      '98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd',
    ],
    [
      'GET',
      '/',
      'max-keys=2&prefix=J',
      {},
      '',
      '34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7',
    ],
  ])(
    'are made and verified as AWS publishes them: %s %s',
    async (method, path, query, more, text, expected) => {
      const body = Buffer.from(text);
      const headers: Record<string, string> = {
        ...more,
        'x-amz-content-sha256': sha256(body),
        'x-amz-date': time,
      };
      const names = [...Object.keys(headers), 'host'].sort();
      const canonical = canonicalRequest({ method, path, query, headers: { ...headers, host }, body }, names);
      const scope = ['20130524', 'us-east-1', 's3', 'aws4_request'] as const;
      expect(signatureOf(canonical, { scope }, time, secretAccessKey)).toBe(expected);
      const signer = new AwsV4Signer({
        url: `https://${host}${path}?${query}`,
        method,
        headers,
        accessKeyId: 'AKIAIOSFODNN7EXAMPLE',
        secretAccessKey,
        service: 's3',
        region: 'us-east-1',
        datetime: time,
        allHeaders: true,
      });
      expect(await signer.signature()).toBe(expected);
    },
  );
});

describe('a bucket', needs('moto'), () => {
  let moto: MotoProcess;
  let buckets = 0;
  beforeAll(async () => {
    moto = await startMoto();
  });
  afterAll(async () => {
    await moto[Symbol.asyncDispose]();
  });

  /** A new bucket behind a server that verifies signatures, and a credential in a file. */
  async function startBucket() {
    const server = await S3Server.start(answeringAs(moto.url));
    buckets += 1;
    const bucket = `bucket-${buckets}`;
    expect((await fetch(`${moto.url}/${bucket}`, { method: 'PUT' })).status).toBe(200);
    const folder = mkdtempSync(join(tmpdir(), 'object-storage-'));
    const credentialsFile = join(folder, 'credentials');
    const credential = server.newCredential();
    writeFileSync(credentialsFile, sectionOf(credential));
    const open = (name = bucket, environment?: Record<string, string>) => {
      const file = environment === undefined ? `&credentials=${credentialsFile}` : '';
      const setting = `s3://${name}/archive/one?endpoint=${server.url}&region=${REGION}${file}`;
      return openObjectStorage(setting, { ...options, pageKeys: 4, environment: environment ?? {} });
    };
    return {
      server,
      bucket,
      credential,
      credentialsFile,
      open,
      async [Symbol.asyncDispose]() {
        await server[Symbol.asyncDispose]();
        rmSync(folder, { recursive: true });
      },
    };
  }

  conformsToPort('of a bucket, by moto', async () => {
    const bucket = await startBucket();
    return {
      open: (place) => bucket.open(place === 'absent' ? 'bucket-none' : undefined),
      [Symbol.asyncDispose]: () => bucket[Symbol.asyncDispose](),
    };
  });

  it('is asked for nothing but PUT, GET, ListObjectsV2 and DELETE below its prefix', async () => {
    await using bucket = await startBucket();
    await using storage = bucket.open();
    await storage.put('p/one', Buffer.from('1'));
    await storage.get('p/one', { maxBytes: 1 });
    expect(await keysOf(storage, 'p/')).toEqual(['p/one']);
    await storage.delete('p/one');
    const object = `/${bucket.bucket}/archive/one/p/one`;
    const list = `/${bucket.bucket}/?list-type=2&encoding-type=url&max-keys=4&prefix=archive%2Fone%2Fp%2F`;
    expect(bucket.server.requests.map(({ method, url }) => [method, url])).toEqual([
      ...[
        ['PUT', object],
        ['GET', object],
        ['GET', list],
        ['DELETE', object],
      ],
    ]);
    expect(bucket.server.requests[0]?.headers).toMatchObject({
      'content-md5': 'xMpCOKC5I4INzFCab3WEmw==',
      'x-amz-content-sha256': sha256('1'),
      'if-none-match': '*',
    });
  });

  it('is used with a new credential as soon as its file has one', async () => {
    await using bucket = await startBucket();
    await using storage = bucket.open();
    await storage.put('one', Buffer.from('1'));
    bucket.credential.isExpired = true;
    const expired = await errorOf(storage.put('two', Buffer.from('2')));
    expect([expired.kind, expired.code]).toEqual(['denied', 'ExpiredToken']);
    const next = bucket.server.newCredential({ isTemporary: false });
    writeFileSync(bucket.credentialsFile, sectionOf(next));
    utimesSync(bucket.credentialsFile, 1, 1);
    await storage.put('two', Buffer.from('2'));
    expect(bucket.server.requests.at(-1)?.headers.authorization).toContain(next.accessKeyId);
  });

  it('is used with the credential in the usual variables', async () => {
    await using bucket = await startBucket();
    const { accessKeyId, secretAccessKey, sessionToken } = bucket.credential;
    const environment = {
      AWS_ACCESS_KEY_ID: accessKeyId,
      AWS_SECRET_ACCESS_KEY: secretAccessKey,
      AWS_SESSION_TOKEN: sessionToken,
    };
    await using storage = bucket.open(undefined, environment);
    await storage.put('one', Buffer.from('1'));
    expect(bucket.server.requests).toHaveLength(1);
  });
});
