import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { type AddressInfo, connect as connectPlain, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect as connectTls } from 'node:tls';
import { ensureCertificates } from '@bundoc/bunkms/cli/certificates';
import { freeOnceSent } from '@bundoc/shared/http/answer-bytes';
import { createHttpServer } from '@bundoc/shared/http/server';
import { createLogger } from '@bundoc/shared/logs/logger';
import { systemClock } from '@bundoc/shared/runtime/clock';
import { WatchedTls } from '@bundoc/shared/tls/watched-tls';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { call, Installation } from './support/installation.ts';

const PAGE_BYTES = 700_000;

let folder: string;
const certificate = (file: string) => ({ variable: file, path: join(folder, 'server', `${file}.pem`) });
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'bundoc-freed-'));
  const directory = join(folder, 'server');
  await ensureCertificates(join(folder, 'authority'), [{ directory, names: ['server'] }], Date.now());
});
afterAll(() => rmSync(folder, { recursive: true }));

/** More than the system holds for a client that does not read. */
const LARGE = 24;

/** A server whose pages have one repeated byte each, in buffers of their own. */
async function startServer(isTls: boolean) {
  const logger = createLogger({ service: 'bundoc', level: 'fatal' });
  using stack = new DisposableStack();
  const tls = isTls
    ? stack.use(
        new WatchedTls({
          files: { cert: certificate('cert'), key: certificate('key') },
          use: 'public',
          clock: systemClock,
          logger,
        }),
      )
    : undefined;
  const app = createHttpServer({
    logger,
    bodyBytesMax: 1_000,
    closeGraceMs: 0,
    ...(tls === undefined ? {} : { tls: { tls, isMutual: false, onRefused: () => undefined } }),
  });
  const made: Buffer[] = [];
  app.get('/pages/:n', async (request) => {
    const { times = '1' } = request.query as { times?: string };
    const bytes = Number(times) * PAGE_BYTES;
    const page = Buffer.alloc(bytes, Number((request.params as { n: string }).n));
    made.push(page);
    return freeOnceSent(request, page);
  });
  await app.listen({ port: 0, host: '127.0.0.1' });
  const { port } = app.server.address() as AddressInfo;
  const ends = stack.move();
  return {
    unfreed: () => made.filter(({ length }) => length > 0).length,
    open: (): Socket =>
      isTls
        ? connectTls({
            port,
            host: '127.0.0.1',
            servername: 'server',
            ca: readFileSync(certificate('ca').path),
          })
        : connectPlain({ port, host: '127.0.0.1' }),
    async [Symbol.asyncDispose]() {
      await app.close();
      ends.dispose();
    },
  };
}

/** Requests pages one after another on one connection, and reads a piece in each turn of the event loop. */
async function readSlowly(socket: Socket, pages: readonly number[]): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for (const n of pages) {
    socket.write(`GET /pages/${n} HTTP/1.1\r\nHost: x\r\n\r\n`);
    for (let left: number | undefined; left !== 0; ) {
      const chunk = socket.read() as Buffer | null;
      if (chunk === null) await once(socket, 'readable');
      else {
        chunks.push(chunk);
        left = (left ?? PAGE_BYTES + chunk.indexOf('\r\n\r\n') + 4) - chunk.length;
        await new Promise(setImmediate);
      }
    }
  }
  socket.destroy();
  return Buffer.concat(chunks);
}

/** The bytes of each page in a text of several answers. */
function pagesIn(text: Buffer): number[][] {
  const pages: number[][] = [];
  for (let at = 0; at < text.length; at += PAGE_BYTES) {
    at = text.indexOf('\r\n\r\n', at) + 4;
    pages.push([...new Set(text.subarray(at, at + PAGE_BYTES))]);
  }
  return pages;
}

describe.each([
  ['without TLS', false],
  ['over TLS', true],
])('answers %s whose memory is freed early', (_how, isTls) => {
  it('arrive whole at clients that read slowly, many of them on each connection', async () => {
    await using server = await startServer(isTls);
    const ofClients = [1, 2, 3, 4].map((client) => Array.from({ length: 8 }, (_, n) => 10 * client + n));
    const received = await Promise.all(ofClients.map((pages) => readSlowly(server.open(), pages)));
    expect(received.map(pagesIn)).toEqual(ofClients.map((pages) => pages.map((n) => [n])));
    await expect.poll(server.unfreed).toBe(0);
  });

  it('are freed when their client disconnects', async () => {
    await using server = await startServer(isTls);
    const socket = server.open();
    socket.on('error', () => undefined);
    socket.write(`GET /pages/1?times=${LARGE} HTTP/1.1\r\nHost: x\r\n\r\n`);
    await once(socket, 'readable');
    await expect.poll(server.unfreed).toBe(1);
    socket.destroy();
    await expect.poll(server.unfreed).toBe(0);
  });
});

describe('documents that do not fit into the cache together', () => {
  it('are returned whole by concurrent reads, lists, queries and feeds while others replace them', async () => {
    await using installation = await Installation.start({ settings: { cacheBytes: 1_000_000 } });
    const token = await installation.client();
    const collection = '/v1/projects/project-a/collections/large';
    const send = (method: string, path: string, body?: string) =>
      call(installation.url, path, { method, token, ...(body === undefined ? {} : { body }) });
    const write = async (n: number, version: number) => {
      const body = JSON.stringify({ s: String.fromCharCode(97 + version).repeat(150_000 + n) });
      const { status } = await send('PUT', `${collection}/documents/${n}`, body);
      expect([200, 201]).toContain(status);
    };
    const ids = Array.from({ length: 12 }, (_, n) => n);
    for (const n of ids) await write(n, 0);
    interface Read {
      readonly _id: string;
      readonly s: string;
    }
    const seen: Read[] = [];
    for (let version = 1; version <= 5; version++) {
      const reads = [
        ...ids.map(async (n) => [
          (await send('GET', `${collection}/documents/${n}`)).json() as unknown as Read,
        ]),
        ...[`${collection}/documents?limit=100`].map(
          async (path) => (await send('GET', path)).json()['documents'] as Read[],
        ),
        ...['{"orderBy":[{"field":"s"}]}', '{"where":{"s":{"$gt":""}}}'].map(
          async (body) => (await send('POST', `${collection}/query`, body)).json()['documents'] as Read[],
        ),
        (async () => {
          const page = await send('GET', '/v1/projects/project-a/changes?include=doc');
          return (page.json()['changes'] as { readonly doc: Read }[]).map(({ doc }) => doc);
        })(),
      ];
      const writes = ids.filter((n) => n % 3 === version % 3).map((n) => write(n, version));
      seen.push(...(await Promise.all(reads)).flat());
      await Promise.all(writes);
    }
    expect(seen.length).toBeGreaterThanOrEqual(5 * 4 * ids.length);
    for (const { _id, s } of seen) {
      expect(s.length).toBe(150_000 + Number(_id));
      expect(s).toBe((s[0] as string).repeat(s.length));
    }
  });
});
