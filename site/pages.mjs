// Makes pages of the site from the Markdown of the repository: routes, links and the navigation.

import { globSync, readFileSync, statSync } from 'node:fs';
import { basename, dirname, join, normalize } from 'node:path';

/** Everything that people read, by its path in the repository. */
export const PATTERNS = ['*.md', 'docs/**/*.md', 'packages/*/README.md'];

/** Where the site has files that pages link to and that are no pages: sources and pictures. */
export const FILES = 'files';

/** @typedef {{ path: string, route: string, title: string, text: string }} SitePage */

/** @param {string} root of the repository @returns {SitePage[]} */
export function sitePages(root) {
  const paths = PATTERNS.flatMap((pattern) => globSync(pattern, { cwd: root })).sort();
  return paths.map((path) => {
    const text = readFileSync(join(root, path), 'utf8');
    const [, title] = /^# (.+)$/m.exec(text) ?? [];
    if (title === undefined) throw new Error(`${path} has no heading of the first level`);
    return { path, route: routeOf(path), title: title.replaceAll('`', ''), text };
  });
}

/**
 * `docs/how-to/proxy.md` is served at `/docs/how-to/proxy/`, the `README.md` of a folder at that path.
 *
 * @param {string} path
 */
function routeOf(path) {
  const folder = basename(path) === 'README.md' ? dirname(path) : path.replace(/\.md$/, '');
  return folder === '.' ? '/' : `/${folder.toLowerCase()}/`;
}

/**
 * The page as Starlight takes it, and the paths of the files that it links to and that are no pages.
 *
 * @param {SitePage} page
 * @param {ReadonlyMap<string, SitePage>} pages by their paths
 * @param {string} root
 */
export function starlightPage(page, pages, root) {
  /** @type {Set<string>} */
  const linked = new Set();
  const target = (/** @type {string} */ link) => {
    if (/^[a-z]+:|^#/.test(link)) return link;
    const [path = '', anchor] = link.split('#');
    const place = normalize(join(dirname(page.path), path)).replace(/\/$/, '');
    const other = pages.get(place);
    if (other !== undefined) return anchor === undefined ? other.route : `${other.route}#${anchor}`;
    linked.add(place);
    return fileRoute(root, place);
  };
  const body = outsideOfCode(page.text.replace(/^# .+$/m, ''), (line) =>
    line.replaceAll(/\]\(([^)\s]+)\)/g, (_, link) => `](${target(link)})`),
  );
  return { text: `---\ntitle: ${JSON.stringify(page.title)}\n---\n${body}`, linked };
}

/** A file is served as text, since browsers would save a source. A folder is a list of its files. */
export function fileRoute(root, place) {
  if (statSync(join(root, place)).isDirectory()) return `/${FILES}/${place}/`;
  return /\.(png|svg)$/.test(place) ? `/${FILES}/${place}` : `/${FILES}/${place}.txt`;
}

/** @param {string} markdown @param {(line: string) => string} change of lines that are in no block of code */
function outsideOfCode(markdown, change) {
  let isCode = false;
  return markdown
    .split('\n')
    .map((line) => {
      if (!/^\s*```/.test(line)) return isCode ? line : change(line);
      isCode = !isCode;
      return line;
    })
    .join('\n');
}

const INDEX = 'docs/README.md';
/** Pages beside those of the index, in groups that begin closed. */
const MORE = [
  ['How the code works', /^(ARCHITECTURE\.md|docs\/architecture\/)/],
  ['Security in detail', /^(SECURITY\.md|docs\/security\/)/],
  ['Formats', /^docs\/formats\//],
  ['Decisions', /^docs\/adr\//],
  ['Packages', /^packages\//],
  ['Project', /^(CHANGELOG|CONTRIBUTING|CODE_OF_CONDUCT)\.md$/],
];

/**
 * The navigation: the groups of the index with the links below them, then everything else.
 *
 * @param {ReadonlyMap<string, SitePage>} pages
 */
export function sidebarOf(pages) {
  const index = pages.get(INDEX)?.text ?? '';
  const groups = index
    .split(/^## /m)
    .slice(1)
    .map((section) => {
      const links = section.matchAll(/\[([^\]]+)\]\(([^)#\s]+)(#[^)\s]+)?\)/g);
      const items = [...links].flatMap(([, label, link, anchor = '']) => {
        const page = pages.get(normalize(join(dirname(INDEX), link)));
        return page === undefined ? [] : { label: capitalised(label), link: `${page.route}${anchor}` };
      });
      return { label: section.split('\n', 1)[0], items };
    });
  const more = MORE.map(([label, pattern]) => ({
    label,
    collapsed: true,
    items: [...pages.values()]
      .filter(({ path }) => pattern.test(path))
      .map(({ title, route }) => ({ label: title, link: route })),
  }));
  return [
    {
      label: 'Start',
      items: [
        { label: 'Bundoc and BunKMS', link: '/' },
        { label: 'All pages', link: '/docs/' },
      ],
    },
    ...groups,
    ...more,
  ];
}

function capitalised(label) {
  const plain = label.replaceAll('`', '');
  return `${plain.charAt(0).toUpperCase()}${plain.slice(1)}`;
}
