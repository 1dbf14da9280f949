import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { extname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { needs } from '@bundoc/shared/testing/programs';
import type { Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { siteFaults } from '../site/check.mjs';
import { sitePages } from '../site/pages.mjs';
import { TestBrowser, type Theme, type Visitor, type VisitorOptions } from './support/browser.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
const dist = join(root, 'site/dist');
const TYPES: Readonly<Record<string, string>> = {
  '.css': 'text/css',
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript',
  '.png': 'image/png',
  '.svg': 'image/svg+xml',
  '.txt': 'text/plain; charset=utf-8',
  '.wasm': 'application/wasm',
};

beforeAll(async () => {
  // Vitest's DEV and MODE would affect the build of the site.
  const { PATH = '', HOME = '', NODE_COMPILE_CACHE = '' } = process.env;
  const npm = Object.entries(process.env).filter(([name]) => /^npm_config_|_proxy$|CERT/i.test(name));
  await promisify(execFile)(process.execPath, [join(root, 'scripts/docs.mjs')], {
    cwd: root,
    env: { ...Object.fromEntries(npm), PATH, HOME, NODE_COMPILE_CACHE },
  });
});

// Code for the page is text, because the tests do not have the types of a page.
const COLOURS = `({
  ground: getComputedStyle(document.body).backgroundColor,
  link: getComputedStyle(document.querySelector('.sl-markdown-content a')).color,
  font: getComputedStyle(document.body).fontFamily,
})`;
/** The width of each table, and of its column. */
const TABLES = `[...document.querySelectorAll('.sl-markdown-content table')].map((table) =>
  [table.scrollWidth, table.parentElement.clientWidth])`;
/** The distance from each button to the text of the first line below it. */
const GAPS = `[...document.querySelectorAll('.expressive-code .frame')].map((frame) =>
  frame.querySelector('.code').getBoundingClientRect().top -
  frame.querySelector('.copy button').getBoundingClientRect().bottom)`;

/** A colour of the console, as browsers write it. */
function colourOf(name: string, theme: Theme): string {
  const styles = readFileSync(join(root, 'packages/console/src/styles/theme.css'), 'utf8');
  const [, light = '', dark = ''] =
    new RegExp(`--${name}: light-dark\\(#(\\w{6}), #(\\w{6})\\)`).exec(styles) ?? [];
  const bytes = [...Buffer.from(theme === 'light' ? light : dark, 'hex')];
  return `rgb(${bytes.join(', ')})`;
}

const fileOf = (route: string) => join(dist, route, route.endsWith('/') ? 'index.html' : '');

describe('the site that npm run docs builds', needs('registry'), () => {
  const pages = sitePages(root);

  it('has every page of the documentation, with its text', () => {
    expect(pages.length).toBeGreaterThan(100);
    for (const path of ['README.md', 'SECURITY.md', 'docs/adr/0001-codes-and-contracts-in-shared.md'])
      expect(pages.map((page) => page.path)).toContain(path);
    expect(pages.filter(({ route }) => !existsSync(fileOf(route)))).toEqual([]);
    const tutorial = readFileSync(fileOf('/docs/tutorial/'), 'utf8');
    expect(tutorial).toContain('The first write creates the project and its key');
  });

  it('links to every page from its navigation', () => {
    const home = readFileSync(fileOf('/'), 'utf8');
    expect(pages.filter(({ route }) => !home.includes(`href="${route}"`)).map(({ path }) => path)).toEqual(
      [],
    );
  });

  it('has no broken link, and loads nothing from other hosts', () => {
    expect(siteFaults(dist)).toEqual([]);
  });

  it('links to source files that it includes as text', () => {
    const walks = readFileSync(fileOf('/docs/architecture/walks/'), 'utf8');
    const sources = [...walks.matchAll(/href="(\/files\/[^"#]+\.ts\.txt)"/g)].map(([, path = '']) => path);
    expect(sources.length).toBeGreaterThan(20);
    for (const path of sources)
      expect(readFileSync(join(dist, path))).toEqual(
        readFileSync(join(root, path.replace('/files/', '').replace(/\.txt$/, ''))),
      );
  });
});

describe('the site in a browser', needs('registry', 'chromium'), () => {
  let server: Server;
  let browser: TestBrowser;
  let origin: string;
  beforeAll(async () => {
    server = createServer((request, response) => {
      const { pathname } = new URL(String(request.url), 'http://site');
      const file = fileOf(decodeURIComponent(pathname));
      if (!existsSync(file) || !statSync(file).isFile()) {
        response.writeHead(404).end();
        return;
      }
      response.setHeader('content-type', TYPES[extname(file)] ?? 'application/octet-stream');
      response.end(readFileSync(file));
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    browser = await TestBrowser.launch();
  });
  afterAll(async () => {
    await browser?.[Symbol.asyncDispose]();
    server?.closeAllConnections();
    server?.close();
  });

  let visitor: Visitor;
  let urls: string[];
  afterEach(() => visitor?.page.context().close());

  /** Opens a page and records its requests. */
  async function visit(path: string, options: VisitorOptions = {}): Promise<Page> {
    visitor = await browser.visit(options);
    urls = [];
    visitor.page.context().on('request', (request) => urls.push(request.url()));
    await visitor.page.goto(`${origin}${path}`);
    return visitor.page;
  }

  it.each(['light', 'dark'] as const)(
    'follows the colour scheme of the browser: %s, with the colours and the fonts of the console',
    async (theme) => {
      const page = await visit('/docs/configuration/', { theme });
      expect(await page.evaluate<string>('document.documentElement.dataset.theme')).toBe(theme);
      const used = await page.evaluate<Readonly<Record<string, string>>>(COLOURS);
      expect(used).toMatchObject({ ground: colourOf('ground', theme), link: colourOf('accent', theme) });
      expect(used['font']).toContain('system-ui');
      expect(colourOf('ground', 'light')).not.toBe(colourOf('ground', 'dark'));
    },
  );

  it.each(['/', '/docs/configuration/', '/docs/documents/', '/docs/errors/', '/docs/scopes/'])(
    'is no wider than a window of 1,360 or 390 pixels, and in the wider one all tables fit, with code that breaks: %s',
    async (path) => {
      const page = await visit(path, { width: 1_360 });
      const widths = await page.evaluate<[number, number][]>(TABLES);
      if (path !== '/') expect(widths.length).toBeGreaterThan(0);
      expect(widths.filter(([table, column]) => table > column)).toEqual([]);
      await visitor.expectNoOverflow();
      await page.setViewportSize({ width: 390, height: 900 });
      await visitor.expectNoOverflow();
    },
  );

  it('has the button to copy code above its first line', async () => {
    const page = await visit('/');
    const gaps = await page.evaluate<number[]>(GAPS);
    expect(gaps.length).toBeGreaterThan(1);
    for (const gap of gaps) expect(gap).toBeGreaterThanOrEqual(0);
  });

  it('finds a word with a search in the browser, and sends no request to other hosts', async () => {
    const page = await visit('/');
    await page.getByRole('button', { name: 'Search' }).click();
    await page.getByPlaceholder('Search').fill('issue_client');
    const results = page.getByRole('dialog');
    await results.getByRole('link', { name: 'Tokens for your application', exact: true }).first().click();
    await page.waitForURL('**/docs/how-to/tokens-for-your-application/**');
    expect(urls.filter((url) => url.includes('/pagefind/')).length).toBeGreaterThan(2);
    expect(urls.filter((url) => !url.startsWith(`${origin}/`))).toEqual([]);
  });
});
