// Builds the documentation into dist/ and checks it. `--serve` serves it then, on this machine alone.

import { copyFileSync, mkdirSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { siteFaults } from './check.mjs';
import { FILES, fileRoute, sidebarOf, sitePages, starlightPage } from './pages.mjs';

process.env.ASTRO_TELEMETRY_DISABLED = '1';
// Any other has no search.
process.env.NODE_ENV = 'production';
const { build, preview } = await import('astro');
const { default: starlight } = await import('@astrojs/starlight');

const folder = import.meta.dirname;
const root = join(folder, '..');
const content = join(folder, 'src', 'content');
const dist = join(folder, 'dist');
const styles = join(root, 'packages', 'console', 'src', 'styles');

const pages = new Map(sitePages(root).map((page) => [page.path, page]));

/** Files that are no pages, and lists of the files of a folder. */
function copyLinked(places) {
  const copy = (place) => {
    const to = join(dist, fileRoute(root, place));
    mkdirSync(dirname(to), { recursive: true });
    copyFileSync(join(root, place), to);
  };
  for (const place of places) {
    if (statSync(join(root, place)).isFile()) {
      copy(place);
      continue;
    }
    const files = readdirSync(join(root, place), { withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map(({ name }) => `${place}/${name}`)
      .sort();
    files.forEach(copy);
    mkdirSync(join(dist, FILES, place), { recursive: true });
    writeFileSync(join(dist, FILES, place, 'index.html'), listOf(place, files));
  }
}

const listOf = (place, files) => `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="color-scheme" content="light dark">
<title>${place}</title>
<h1>${place}</h1>
<ul>
${files.map((file) => `<li><a href="${fileRoute(root, file)}">${file}</a></li>`).join('\n')}
</ul>
</html>
`;

for (const made of [content, dist]) rmSync(made, { recursive: true, force: true });
const linked = new Set();
for (const page of pages.values()) {
  const made = starlightPage(page, pages, root);
  const file = join(content, 'docs', page.route, 'index.md');
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, made.text);
  for (const place of made.linked) linked.add(place);
}

const config = {
  root: folder,
  configFile: false,
  logLevel: 'error',
  server: { host: '127.0.0.1', port: 4321 },
  integrations: [
    starlight({
      title: 'Bundoc and BunKMS',
      sidebar: sidebarOf(pages),
      credits: false,
      // The variables of the console, then what they are for here.
      customCss: [join(styles, 'theme.css'), join(folder, 'src', 'styles', 'site.css')],
      // Languages without colours of their own.
      expressiveCode: { shiki: { langAlias: { haproxy: 'text' } } },
    }),
  ],
};
await build(config);
copyFileSync(join(styles, 'bundoc.svg'), join(dist, 'favicon.svg'));
copyLinked([...linked].sort());

const faults = siteFaults(dist);
if (faults.length > 0) {
  console.error(`${faults.join('\n')}\nThe site has ${faults.length} faults.`);
  process.exit(1);
}
console.log(`${pages.size} pages are in ${dist}.`);

if (process.argv.includes('--serve')) {
  const { host = '127.0.0.1', port } = await preview(config);
  console.log(`They are served on http://${host}:${port}/. Ctrl-C stops it.`);
}
