import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { brotliCompressSync, brotliDecompressSync, gunzipSync, gzipSync } from 'node:zlib';
import type { FastifyInstance } from 'fastify';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createHttpServer, refuseOtherMethods } from '../http/server.ts';
import { createLogger } from '../logs/logger.ts';
import { DOCS_PER_WINDOW_MAX } from '../openapi/docs-bounds.ts';
import { FakeClock } from '../testing/fake-clock.ts';
import { CONSOLE_CSP, registerConsole } from './routes.ts';
import { MANIFEST_FILE, readSite, type Site } from './site.ts';

const PAGE = `<!doctype html><title>Bundoc</title>${' '.repeat(400)}`;
const SCRIPT = `console.log('${'x'.repeat(400)}');`;

let folder: string;
let app: FastifyInstance;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'bundoc-console-'));
  mkdirSync(join(folder, 'assets'));
  const files = [
    { path: 'bundoc.html', contentType: 'text/html; charset=utf-8', content: PAGE },
    { path: 'assets/a-1.js', contentType: 'text/javascript; charset=utf-8', content: SCRIPT },
  ];
  for (const { path, content } of files) {
    writeFileSync(join(folder, path), content);
    writeFileSync(join(folder, `${path}.br`), brotliCompressSync(content));
    writeFileSync(join(folder, `${path}.gz`), gzipSync(content));
  }
  writeFileSync(join(folder, 'secret'), 'not in the manifest');
  writeManifest(files.map(({ path, contentType }) => ({ path, contentType, encodings: ['br', 'gzip'] })));
});
afterEach(async () => {
  await app?.close();
  rmSync(folder, { recursive: true });
});

function writeManifest(files: readonly object[]): void {
  writeFileSync(join(folder, MANIFEST_FILE), JSON.stringify({ files }));
}

async function serve(
  { site }: { readonly site: Site | undefined } = { site: readSite(folder) },
): Promise<void> {
  const clock = new FakeClock();
  app = createHttpServer({
    logger: createLogger({ service: 'bundoc', level: 'silent' }),
    bodyBytesMax: 1_000,
  });
  await registerConsole(app, { service: 'bundoc', version: '1.2.3', site, clock });
  refuseOtherMethods(app);
}

const get = (url: string, headers: Record<string, string> = {}) => app.inject({ url, headers });

describe('the console', () => {
  it('is one page at every path of a view, never cached, with its policy', async () => {
    await serve();
    for (const url of [
      '/console/',
      '/console/projects/acme',
      '/console/projects/a/collections/b/documents/%3Cx%3E',
    ]) {
      const answer = await get(url);
      expect(answer.statusCode).toBe(200);
      expect(answer.body).toBe(PAGE);
      expect(answer.headers).toMatchObject({
        'content-type': 'text/html; charset=utf-8',
        'content-security-policy': CONSOLE_CSP,
        'cache-control': 'no-store',
        'x-content-type-options': 'nosniff',
        'cross-origin-opener-policy': 'same-origin',
        'cross-origin-resource-policy': 'same-origin',
        'referrer-policy': 'no-referrer',
        'x-frame-options': 'DENY',
        vary: 'Accept-Encoding',
      });
    }
  });

  it('has a policy without exceptions', () => {
    expect(CONSOLE_CSP).toContain("default-src 'none'");
    expect(CONSOLE_CSP).toContain("require-trusted-types-for 'script'");
    expect(CONSOLE_CSP).toContain("trusted-types 'none'");
    expect(CONSOLE_CSP).not.toMatch(/unsafe|\*|https?:|data:|blob:|nonce|strict-dynamic/);
  });

  it('sends its files compressed to clients that accept it, and marks them as immutable', async () => {
    await serve();
    const br = await get('/console/assets/a-1.js', { 'accept-encoding': 'gzip, br' });
    expect(brotliDecompressSync(br.rawPayload).toString()).toBe(SCRIPT);
    expect(br.headers).toMatchObject({
      'content-encoding': 'br',
      'content-type': 'text/javascript; charset=utf-8',
      'cache-control': 'public, max-age=31536000, immutable',
      vary: 'Accept-Encoding',
    });
    const gzip = await get('/console/assets/a-1.js', { 'accept-encoding': 'gzip' });
    expect(gunzipSync(gzip.rawPayload).toString()).toBe(SCRIPT);
    const plain = await get('/console/assets/a-1.js');
    expect([plain.body, plain.headers['content-encoding']]).toEqual([SCRIPT, undefined]);
  });

  it.each([
    '/console/assets/none.js',
    '/console/assets/../secret',
    '/console/assets/..%2fsecret',
    '/console/assets/%2e%2e/secret',
    '/console/assets/a-1.js.br',
    '/console/assets/',
  ])('has no file at %s', async (url) => {
    await serve();
    const answer = await get(url);
    expect(answer.body).not.toContain('not in the manifest');
    expect([404, 200]).toContain(answer.statusCode);
    if (answer.statusCode === 200) expect(answer.body).toBe(PAGE);
  });

  it('redirects to its path with a slash, and has no other methods', async () => {
    await serve();
    const moved = await get('/console');
    expect([moved.statusCode, moved.headers.location]).toEqual([308, '/console/']);
    const answer = await app.inject({ url: '/console/', method: 'POST' });
    expect([answer.statusCode, answer.headers.allow]).toEqual([405, 'GET, HEAD']);
  });

  it('limits the rate of requests', async () => {
    await serve();
    for (let at = 0; at < DOCS_PER_WINDOW_MAX; at++) expect((await get('/console/')).statusCode).toBe(200);
    expect((await get('/console/')).statusCode).toBe(429);
  });
});

describe('the root', () => {
  it('is a page for browsers and JSON for all other clients', async () => {
    await serve();
    const browser = await get('/', {
      accept: 'text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8',
    });
    expect([browser.body, browser.headers.vary]).toEqual([PAGE, 'Accept, Accept-Encoding']);
    for (const accept of ['*/*', 'application/json', undefined]) {
      const answer = await get('/', accept === undefined ? {} : { accept });
      expect(answer.json()).toEqual({
        service: 'bundoc',
        version: '1.2.3',
        links: {
          console: '/console/',
          openapi: '/openapi.json',
          reference: '/docs',
          health: '/health',
          ready: '/ready',
        },
      });
      expect(answer.headers.vary).toBe('Accept');
    }
  });

  it('is JSON for all clients when the console is turned off, and the console does not exist', async () => {
    await serve({ site: undefined });
    const answer = await get('/', { accept: 'text/html' });
    expect(answer.json().links).not.toHaveProperty('console');
    expect((await get('/console/')).statusCode).toBe(404);
  });
});

describe('the files of the console', () => {
  it('are undefined when nothing was built', () => {
    rmSync(join(folder, MANIFEST_FILE));
    expect(readSite(folder)).toBeUndefined();
  });

  it.each(['../secret', '/etc/passwd', 'assets/../../x', '.hidden', 'assets//x', ''])(
    'are refused when the manifest names %j',
    (path) => {
      writeManifest([{ path, contentType: 'text/plain', encodings: [] }]);
      expect(() => readSite(folder)).toThrow('Invalid');
    },
  );

  it('are refused when one is missing', () => {
    writeManifest([{ path: 'gone.js', contentType: 'text/javascript', encodings: [] }]);
    expect(() => readSite(folder)).toThrow('ENOENT');
  });
});
