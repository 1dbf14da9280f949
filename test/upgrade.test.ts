import { globSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { expect, it } from 'vitest';
import { expectOpens } from './support/open-release.ts';

const root = join(import.meta.dirname, '..');
const page = readFileSync(join(root, 'docs/operations/upgrade.md'), 'utf8');
/** The releases that the page names, and what becomes of their data. */
const documented = new Map(
  [...page.matchAll(/^\| (\d+\.\d+\.\d+) \| (opens|refused): /gm)].map(([, version = '', fate]) => [
    version,
    fate,
  ]),
);
/** What `npm run release` has kept. */
const archives = globSync('test/releases/*.tar.gz', { cwd: root });
const releases = archives.map((path) => basename(path, '.tar.gz'));

it('the page of upgrades says of each release what becomes of its data', () => {
  expect(releases.filter((version) => !documented.has(version))).toEqual([]);
});

it.each(releases.filter((version) => documented.get(version) === 'opens'))(
  'data that %s has written opens, and is what it was',
  (version) => expectOpens(join(root, 'test', 'releases', `${version}.tar.gz`)),
);

it.each(releases.filter((version) => documented.get(version) === 'refused'))(
  'data that %s has written is refused with the remedy',
  async (version) => {
    const opening = expectOpens(join(root, 'test', 'releases', `${version}.tar.gz`));
    // The remedy is an export with the release that wrote it, or a migration that the page describes.
    await expect(opening).rejects.toThrow(/bundoc export|docs\/operations\/upgrade\.md/);
  },
);
