import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { siteFaults } from '../site/check.mjs';
import { sidebarOf, sitePages, starlightPage } from '../site/pages.mjs';

const root = join(import.meta.dirname, '..');

describe('the pages of the site', () => {
  const pages = new Map(sitePages(root).map((page) => [page.path, page]));
  const made = (path: string, text: string) =>
    starlightPage({ path, route: '/x/', title: 'A title', text }, pages, root);

  it('have routes from their paths; a README has that of its folder', () => {
    const routes = ['README.md', 'SECURITY.md', 'docs/README.md', 'docs/how-to/proxy.md'].map(
      (path) => pages.get(path)?.route,
    );
    expect(routes).toEqual(['/', '/security/', '/docs/', '/docs/how-to/proxy/']);
  });

  it('link to other pages and folders, show sources as text, and do not change code', () => {
    const page = made(
      'docs/how-to/x.md',
      [
        '# A title',
        '[a](proxy.md#x) [b](../../README.md) [c](../../test/tls.test.ts) [d](#here) [e](https://example.org)',
        '![f](../images/console-audit.png) [g](../../test)',
        '```md',
        '[a](proxy.md)',
        '```',
      ].join('\n'),
    );
    expect(page.text.split('\n').slice(4)).toEqual([
      '[a](/docs/how-to/proxy/#x) [b](/) [c](/files/test/tls.test.ts.txt) [d](#here) [e](https://example.org)',
      '![f](/files/docs/images/console-audit.png) [g](/files/test/)',
      '```md',
      '[a](proxy.md)',
      '```',
    ]);
    expect([...page.linked]).toEqual(['test/tls.test.ts', 'docs/images/console-audit.png', 'test']);
  });

  it('are all in the navigation, with the groups of the index first', () => {
    const groups = sidebarOf(pages);
    expect(groups.slice(1, 5).map(({ label }) => label)).toEqual([
      'Tutorial',
      'How-to guides',
      'Reference',
      'Explanation',
    ]);
    const links = new Set(groups.flatMap(({ items }) => items.map(({ link }) => link.replace(/#.*/, ''))));
    expect([...pages.values()].filter(({ route }) => !links.has(route))).toEqual([]);
  });
});

describe('the check of the site', () => {
  let dist: string;
  beforeEach(() => {
    dist = mkdtempSync(join(tmpdir(), 'bundoc-site-'));
  });
  afterEach(() => rmSync(dist, { recursive: true }));
  const write = (path: string, text: string) => {
    mkdirSync(dirname(join(dist, path)), { recursive: true });
    writeFileSync(join(dist, path), text);
  };

  it('accepts links to pages, headings and other sites', () => {
    write('a/index.html', '<h1 id="top">A</h1><a href="/a/#top">a</a><a class="x" href="#top">b</a>');
    write('x.png', '');
    write('index.html', '<a href="https://example.org/">c</a><a href="/a/">d</a><img src="/x.png">');
    expect(siteFaults(dist)).toEqual([]);
  });

  it.each([
    ['<a href="/gone/">x</a>', 'there is no such page'],
    ['<a class="x" href="/#gone">x</a>', 'there is no such heading'],
    ['<a href="a.md">x</a>', 'it is relative'],
    ['<link rel="icon" href="/icon.svg">', 'loads /icon.svg, which is not there'],
    ['<script type="module" src="https://cdn.example/x.js"></script>', 'loads https://cdn.example/x.js'],
    ['<link rel="stylesheet" href="//fonts.example/x.css">', 'loads //fonts.example/x.css'],
    ['<style>@font-face { src: url("https://fonts.example/x") }</style>', 'loads https://fonts.example/x'],
  ])('finds %s', (html, fault) => {
    write('index.html', html);
    expect(siteFaults(dist)).toEqual([expect.stringContaining(fault)]);
  });

  it('finds a style sheet that loads from another site', () => {
    write('x.css', '@import "https://fonts.example/x.css";');
    expect(siteFaults(dist)).toEqual(['x.css loads https://fonts.example/x.css']);
  });
});

it('the dependencies of the site are in no manifest or lockfile of the services', () => {
  for (const file of ['package.json', 'pnpm-lock.yaml', 'pnpm-workspace.yaml'])
    expect(readFileSync(join(root, file), 'utf8')).not.toMatch(/astro|starlight|^ +- site$/m);
});
