import { existsSync, globSync, readFileSync, statSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { describe, expect, it } from 'vitest';

const root = join(import.meta.dirname, '..');
const pages = ['*.md', 'docs/**/*.md', 'packages/*/README.md'].flatMap((cwd) => globSync(cwd, { cwd: root }));

/** The anchor of a heading, as GitHub generates it. */
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

  it.each(pages)('%s has no broken link', (page) => {
    expect([...brokenLinks(page)]).toEqual([]);
  });

  it.each(pages.filter((page) => page !== 'CHANGELOG.md'))('%s names no missing source file', (page) => {
    const named = [
      ...textOf(page).matchAll(/`((?:packages|scripts|test)\/[\w/.-]+\.(?:ts|mjs|json|bin|sqlite))`/g),
    ];
    expect(named.flatMap(([, path = '']) => (existsSync(join(root, path)) ? [] : path))).toEqual([]);
  });
});

/** The table rows of a page, without headers. */
function rowsOf(page: string): string[] {
  const lines = textOf(page).split('\n');
  return lines.filter((line, index) => line.startsWith('| ') && !/^\|[-| ]+$/.test(lines[index + 1] ?? ''));
}

const isTest = (link: string) => /\.test\.ts$|conformance/.test(link);

describe('the pages on the architecture', () => {
  it.each([
    ['ARCHITECTURE.md', 1_300],
    ['SECURITY.md', 1_300],
  ])('%s has at most %i words', (page, wordsMax) => {
    const words = textOf(page).split(/\s+/).length;
    expect(words).toBeGreaterThan(300);
    expect(words).toBeLessThanOrEqual(wordsMax);
  });

  it.each([
    ['docs/architecture/invariants.md', 50],
    ['docs/architecture/faults.md', 50],
  ])('%s links to a test in each of its rows', (page, rowsMin) => {
    const rows = rowsOf(page);
    expect(rows.length).toBeGreaterThan(rowsMin);
    const links = (row: string) => [...row.matchAll(/\]\(([^)\s]+)\)/g)].map(([, link = '']) => link);
    expect(rows.filter((row) => !links(row).some(isTest))).toEqual([]);
  });

  it('each walk has at most ten steps, each linked to its source', () => {
    const walks = textOf('docs/architecture/walks.md').split(/^## /m).slice(1);
    expect(walks).toHaveLength(6);
    for (const walk of walks) {
      const steps = walk.match(/^\d+\. .+$/gm) ?? [];
      expect(steps.length).toBeLessThanOrEqual(10);
      expect(steps.filter((step) => !step.includes(']('))).toEqual([]);
    }
  });

  it('the page of questions answers some thirty questions, each with a link', () => {
    const questions = textOf('docs/architecture/questions.md').match(/^\d+\. .+$/gm) ?? [];
    expect(questions.length).toBeGreaterThanOrEqual(30);
    expect(questions.filter((question) => !question.includes(']('))).toEqual([]);
  });

  it('the glossary explains some forty words, each once', () => {
    const words = rowsOf('docs/architecture/glossary.md').map((row) => row.split('|')[1]?.trim());
    expect(words.length).toBeGreaterThanOrEqual(40);
    expect(new Set(words).size).toBe(words.length);
  });
});

it('messages and comments name only existing pages', () => {
  const sources = globSync(['packages/*/src/**/*.{ts,tsx}', 'scripts/**/*.mjs'], { cwd: root });
  const missing = sources.flatMap((source) =>
    [...textOf(source).matchAll(/\bdocs\/[a-z0-9/-]+\.md\b/g)].flatMap(([page]) =>
      existsSync(join(root, page)) ? [] : [`${source}: ${page}`],
    ),
  );
  expect(missing).toEqual([]);
});
