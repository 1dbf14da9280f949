import { globSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { expect, it } from 'vitest';
import { expectOpens } from './support/open-release.ts';

const root = join(import.meta.dirname, '..');
const page = readFileSync(join(root, 'docs/operations/upgrade.md'), 'utf8');
/** The releases on the page, and how an upgrade treats their data. */
const documented = new Map(
  [...page.matchAll(/^\| (\d+\.\d+\.\d+) \| (opens|refused): /gm)].map(([, version = '', fate]) => [
    version,
    fate,
  ]),
);
/** The archives from `npm run release`. */
const archives = globSync('test/releases/*.tar.gz', { cwd: root });
const releases = archives.map((path) => basename(path, '.tar.gz'));

it('the upgrade page says for each release how its data is treated', () => {
  expect(releases.filter((version) => !documented.has(version))).toEqual([]);
});

it.each(releases.filter((version) => documented.get(version) === 'opens'))(
  'data from %s opens unchanged',
  (version) => expectOpens(join(root, 'test', 'releases', `${version}.tar.gz`)),
);

it.each(releases.filter((version) => documented.get(version) === 'refused'))(
  'data from %s is refused with the remedy',
  async (version) => {
    const opening = expectOpens(join(root, 'test', 'releases', `${version}.tar.gz`));
    // The remedy is an export with the release that wrote it, or a migration that the page describes.
    await expect(opening).rejects.toThrow(/bundoc export|docs\/operations\/upgrade\.md/);
  },
);
