import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { WAIT_S_MAX } from '@bundoc/bundoc/http/changes.openapi';
import { HEARTBEAT_MS } from '@bundoc/bundoc/service/change-feed';
import { ensureCertificates } from '@bundoc/bunkms/cli/certificates';
import { KEEP_ALIVE_MS, REQUEST_TIMEOUT_MS } from '@bundoc/shared/http/server';
import { needs } from '@bundoc/shared/testing/programs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Haproxy } from './support/haproxy.ts';
import { Installation } from './support/installation.ts';
import { Nginx } from './support/nginx.ts';

const PAGE = readFileSync(new URL('../docs/how-to/proxy.md', import.meta.url), 'utf8');
const documented = (language: string) =>
  String(new RegExp(`^\`\`\`${language}\\n(.*?)^\`\`\``, 'ms').exec(PAGE)?.[1]);

const MIB = 1_048_576;
const DOCUMENT_BYTES = 16 * MIB;
const PER_ADDRESS = 3;
/** Two clients. The proxy itself connects from 127.0.0.1, which Bundoc trusts. */
const [ONE, OTHER] = ['127.0.0.2', '127.0.0.3'];
const NOTES = '/v1/projects/project-a/collections/notes/documents';
const FEED = '/v1/projects/project-a/changes?since=now';

const PROBLEM = expect.stringContaining('application/problem+json');

interface Sent {
  readonly method?: string;
  readonly body?: string | Buffer;
  readonly from?: string;
  readonly headers?: Record<string, string>;
}

interface Received {
  readonly status: number;
  readonly headers: IncomingMessage['headers'];
  readonly text: string;
}

let folder: string;
let installation: Installation;
let authority: Buffer;
let token: string;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'bundoc-proxies-'));
  await ensureCertificates(join(folder, 'authority'), [{ directory: folder, names: ['127.0.0.1'] }]);
  const [certificate, key] = [join(folder, 'cert.pem'), join(folder, 'key.pem')];
  authority = readFileSync(join(folder, 'ca.pem'));
  copyFileSync(certificate, join(folder, 'bundoc.crt'));
  copyFileSync(key, join(folder, 'bundoc.key'));
  writeFileSync(
    join(folder, 'bundoc.pem'),
    `${readFileSync(certificate, 'utf8')}${readFileSync(key, 'utf8')}`,
  );
  installation = await Installation.start({
    environment: {
      BUNDOC_TRUSTED_PROXIES: '127.0.0.1',
      BUNDOC_CONNECTIONS_PER_ADDRESS: String(PER_ADDRESS),
      BUNDOC_MAX_DOCUMENT_BYTES: String(DOCUMENT_BYTES),
    },
  });
  token = await installation.client(['project-a']);
});
afterAll(async () => {
  await installation?.[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true, force: true });
});

/** Resolves at the head of an answer. The caller reads or destroys its body. */
function open(origin: string, path: string, { method = 'GET', body, from, headers }: Sent = {}) {
  const url = new URL(path, origin);
  const send = url.protocol === 'https:' ? httpsRequest : httpRequest;
  return new Promise<IncomingMessage>((resolve, reject) => {
    const request = send(url, {
      method,
      agent: false,
      ca: authority,
      ...(from === undefined ? {} : { localAddress: from }),
      headers: {
        authorization: `Bearer ${token}`,
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        ...headers,
      },
    });
    request.on('response', resolve);
    request.on('error', reject);
    request.end(body);
  });
}

async function ask(origin: string, path: string, sent?: Sent): Promise<Received> {
  const response = await open(origin, path, sent);
  return { status: Number(response.statusCode), headers: response.headers, text: await text(response) };
}

/** A stream of changes, as soon as its head has arrived. */
const follow = (origin: string, from: string, headers: Record<string, string> = {}) =>
  open(origin, FEED, { from, headers: { accept: 'text/event-stream', ...headers } });

/** The behaviour that every proxy must have. */
function behaves(start: () => Promise<AsyncDisposable & { readonly url: string }>): void {
  let proxy: AsyncDisposable & { readonly url: string };
  beforeAll(async () => {
    proxy = await start();
  });
  afterAll(() => proxy?.[Symbol.asyncDispose]());

  it('forwards requests once Bundoc is ready', async () => {
    await expect.poll(async () => (await ask(proxy.url, '/ready')).status).toBe(200);
  });

  it('forwards writes and reads, and changes no header that Bundoc sets', async () => {
    const document = '{"text":"exact: 1.10"}';
    const written = await ask(proxy.url, `${NOTES}/ordinary`, { method: 'PUT', body: document });
    expect([written.status, written.headers.etag]).toEqual([
      expect.toBeOneOf([200, 201]),
      expect.any(String),
    ]);
    const [through, direct] = [
      await ask(proxy.url, `${NOTES}/ordinary`),
      await ask(installation.url, `${NOTES}/ordinary`),
    ];
    expect(through.text).toBe(direct.text);
    expect(through.text).toContain('1.10');
    const { date: _, connection: __, 'keep-alive': ___, ...set } = direct.headers;
    expect(through.headers).toMatchObject(set);
  });

  it('forwards refusals with their problem document', async () => {
    const refusal = await ask(proxy.url, `${NOTES}/absent`);
    expect([refusal.status, refusal.headers['content-type']]).toEqual([404, PROBLEM]);
    expect(JSON.parse(refusal.text)).toMatchObject({ code: 'document_not_found' });
  });

  it('forwards each change at once while the stream stays open', async () => {
    const stream = await follow(proxy.url, ONE);
    let received = '';
    stream.on('data', (chunk: Buffer) => {
      received += chunk.toString();
    });
    // Each write waits for the event of the previous one, so a proxy that buffers events never gets the next.
    const written = async (id: string) => {
      await ask(installation.url, `${NOTES}/${id}`, { method: 'PUT', body: '{}' });
      while (!received.includes(`"_id":"${id}"`)) await once(stream, 'data');
    };
    for (const id of ['first', 'second', 'third']) await written(id);
    expect(stream.readableEnded).toBe(false);
    stream.destroy();
  });

  it('frees the stream of a reader that leaves, before a heartbeat finds that it has left', async () => {
    await expect.poll(() => installation.held()).toEqual({});
    const stream = await follow(proxy.url, ONE);
    await expect.poll(() => installation.held()).toMatchObject({ streams: expect.any(Number) });
    stream.destroy();
    await expect.poll(() => installation.held(), { timeout: HEARTBEAT_MS * 0.8 }).toEqual({});
  });

  it('answers a long poll as soon as the change arrives', async () => {
    const { since } = JSON.parse((await ask(proxy.url, FEED)).text) as { since: string };
    const path = `/v1/projects/project-a/changes?since=${since}&wait=${WAIT_S_MAX}`;
    const poll = ask(proxy.url, path);
    await expect.poll(() => installation.held()).toMatchObject({ streams: expect.any(Number) });
    await ask(installation.url, `${NOTES}/awaited`, { method: 'PUT', body: '{}' });
    expect((await poll).text).toContain('"_id":"awaited"');
  });

  it('forwards a body of 16 MiB in both directions, byte for byte', async () => {
    const [begin, end] = ['{"bytes":"', '"}'];
    const filling = randomBytes(DOCUMENT_BYTES / 2).toString('hex');
    const document = `${begin}${filling.slice(begin.length + end.length)}${end}`;
    expect(Buffer.byteLength(document)).toBe(DOCUMENT_BYTES);
    const written = await ask(proxy.url, `${NOTES}/large`, { method: 'PUT', body: document });
    expect([written.status, written.text.slice(0, 300)]).toEqual([
      expect.toBeOneOf([200, 201]),
      expect.any(String),
    ]);
    const read = await ask(proxy.url, `${NOTES}/large`);
    expect(read.status).toBe(200);
    expect(read.text).toContain(filling.slice(begin.length + end.length));
    const hash = ({ text: whole }: Received) => createHash('sha256').update(whole).digest('hex');
    expect(hash(read)).toBe(hash(await ask(installation.url, `${NOTES}/large`)));
    await ask(installation.url, `${NOTES}/large`, { method: 'DELETE' });
  });

  it.each([17 * MIB, 40 * MIB])('answers a body of %i bytes as Bundoc itself does', async (bytes) => {
    const body = Buffer.alloc(bytes, ' ');
    const [through, direct] = [
      await ask(proxy.url, `${NOTES}/too-large`, { method: 'PUT', body }),
      await ask(installation.url, `${NOTES}/too-large`, { method: 'PUT', body }),
    ];
    expect([through.status, through.headers['content-type']]).toEqual([413, PROBLEM]);
    expect({ ...JSON.parse(through.text), request_id: '' }).toEqual({
      ...JSON.parse(direct.text),
      request_id: '',
    });
  });

  it('lets Bundoc count clients by their own address, which a client cannot forge', async () => {
    const streams: IncomingMessage[] = [];
    try {
      for (let count = 0; count < PER_ADDRESS; count++) streams.push(await follow(proxy.url, ONE));
      expect(streams.map(({ statusCode }) => statusCode)).toEqual(streams.map(() => 200));
      const oneMore = await follow(proxy.url, ONE);
      expect([oneMore.statusCode, JSON.parse(await text(oneMore))]).toEqual([
        429,
        expect.objectContaining({ code: 'rate_limited' }),
      ]);
      const forged = await follow(proxy.url, ONE, { 'x-forwarded-for': '192.0.2.1' });
      expect(forged.statusCode).toBe(429);
      forged.destroy();
      const ofOther = await follow(proxy.url, OTHER);
      streams.push(ofOther);
      expect(ofOther.statusCode).toBe(200);
    } finally {
      for (const stream of streams) stream.destroy();
    }
    await expect.poll(() => installation.held()).toEqual({});
  });
}

/** The seconds of a setting in the page. */
function secondsOf(language: string, setting: string): number {
  const [, seconds] = new RegExp(`^ +${setting} +(\\d+)s\\b`, 'm').exec(documented(language)) ?? [];
  return Number(seconds);
}

describe('the timeouts of the page', () => {
  it.each([
    ['nginx', 'proxy_read_timeout'],
    ['haproxy', 'timeout client'],
    ['haproxy', 'timeout server'],
  ])(
    'the timeout of %s exceeds the silence of Bundoc and the time that a request may take to arrive: %s',
    (of, setting) => {
      const silentMs = Math.max(WAIT_S_MAX * 1_000, HEARTBEAT_MS, REQUEST_TIMEOUT_MS);
      expect(secondsOf(of, setting) * 1_000).toBeGreaterThan(silentMs);
    },
  );

  it('nginx closes an idle connection before Bundoc does', () => {
    expect(secondsOf('nginx', 'keepalive_timeout') * 1_000).toBeLessThan(KEEP_ALIVE_MS);
  });
});

describe('nginx with the configuration of the page', needs('nginx'), () => {
  behaves(() => Nginx.start(folder, documented('nginx'), new URL(installation.url).host));
});

describe('HAProxy with the configuration of the page', needs('haproxy'), () => {
  behaves(() => Haproxy.start(folder, documented('haproxy'), [new URL(installation.url).host]));
});
