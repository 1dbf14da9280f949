import { globSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { expect, it } from 'vitest';
import { expectOpens } from './support/open-release.ts';

const root = join(import.meta.dirname, '..');
const page = readFileSync(join(root, 'docs/operations/upgrade.md'), 'utf8');

it('data of each release opens, or is refused with the remedy, as the upgrade page says', async () => {
  // The archives from `npm run release`.
  for (const archive of globSync('test/releases/*.tar.gz', { cwd: root })) {
    const release = basename(archive, '.tar.gz');
    const row = page.split('\n').find((line) => line.startsWith(`| ${release} | `));
    const opening = expectOpens(join(root, archive));
    if (row?.startsWith(`| ${release} | opens`)) await opening;
    else await expect(opening, `${release}: ${row}`).rejects.toThrow(/bundoc export/);
  }
});
