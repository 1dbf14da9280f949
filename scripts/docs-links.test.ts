import { existsSync, globSync, readFileSync, statSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { describe, expect, it } from 'vitest';

const root = join(import.meta.dirname, '..');
const pages = ['*.md', 'docs/**/*.md', 'packages/*/README.md'].flatMap((cwd) => globSync(cwd, { cwd: root }));

/** The name by which a heading is linked to, as GitHub makes it. */
function anchorOf(heading: string): string {
  return heading
    .toLowerCase()
    .replaceAll(/[^\p{L}\p{N}\s_-]/gu, '')
    .replaceAll(' ', '-');
}

const textOf = (page: string) => readFileSync(join(root, page), 'utf8');
const anchorsOf = (page: string) =>
  [...textOf(page).matchAll(/^#+ (.+)$/gm)].map(([, heading]) => anchorOf(heading ?? ''));

function* brokenLinks(page: string): Iterable<string> {
  for (const [, target = ''] of textOf(page).matchAll(/\]\(([^)\s]+)\)/g)) {
    if (/^[a-z]+:/.test(target)) continue;
    const [path = '', anchor] = target.split('#');
    const place = path === '' ? page : normalize(join(dirname(page), path));
    if (!existsSync(join(root, place))) yield target;
    else if (
      anchor !== undefined &&
      statSync(join(root, place)).isFile() &&
      !anchorsOf(place).includes(anchor)
    )
      yield target;
  }
}

describe('the documentation', () => {
  it('is found', () => {
    expect(pages).toContain('README.md');
    expect(pages.length).toBeGreaterThan(30);
  });

  it.each(pages)('%s has no link that leads nowhere', (page) => {
    expect([...brokenLinks(page)]).toEqual([]);
  });
});
