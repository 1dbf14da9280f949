import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  forbiddenPhrases,
  longSentences,
  pages,
  proseOf,
  SENTENCE_WORDS_MAX,
  sentencesOf,
} from './lib/prose.mjs';

const root = join(import.meta.dirname, '..');
const textOf = (path: string) => readFileSync(join(root, path), 'utf8');
const listed = (path: string, remarks: { line: number; text: string }[]) =>
  remarks.map(({ line, text }) => `${path}:${line}: ${text}`);

describe('the prose of the documentation', () => {
  it('covers many pages', () => {
    expect(pages()).toContain('README.md');
    expect(pages().length).toBeGreaterThan(60);
  });

  it.each(pages())(`%s has no sentence of more than ${SENTENCE_WORDS_MAX} words`, (page) => {
    expect(listed(page, longSentences(textOf(page)))).toEqual([]);
  });

  it.each(pages())('%s has no forbidden phrase', (page) => {
    expect(listed(page, forbiddenPhrases(textOf(page)))).toEqual([]);
  });
});

describe('the sources of the packages', () => {
  const sources = globSync('packages/*/src/**/*.{ts,tsx}', { cwd: root });

  it('have no forbidden phrase in comments or messages', () => {
    expect(sources.length).toBeGreaterThan(400);
    expect(sources.flatMap((path) => listed(path, forbiddenPhrases(textOf(path))))).toEqual([]);
  });
});

describe('the search for long sentences', () => {
  it('skips code, tables and headings, and treats each list item separately', () => {
    const page = [
      '# A heading',
      '```sh',
      'code code',
      '```',
      '| a | table |',
      'One line',
      'and another.',
      '- an item',
    ];
    expect(proseOf(page.join('\n')).map(({ text }) => text)).toEqual(['One line and another.', 'an item']);
  });

  it('ends a sentence at a full stop before a capital letter, but not at an abbreviation or within code', () => {
    expect(sentencesOf('Run `a. B c` first. Then, e.g. today, [read on](x.md). Done.')).toEqual([
      'Run code first.',
      'Then, e.g. today, read on.',
      'Done.',
    ]);
  });

  it('finds a planted sentence and a planted phrase', () => {
    expect(longSentences(`${'word '.repeat(SENTENCE_WORDS_MAX)}end.`)).toHaveLength(1);
    expect(longSentences(`${'word '.repeat(SENTENCE_WORDS_MAX - 1)}end.`)).toEqual([]);
    expect(forbiddenPhrases('The caller is told it.\nWhoever asks begins anew.')).toEqual([
      { line: 1, text: '"is told"' },
      { line: 2, text: '"Whoever"' },
      { line: 2, text: '"anew"' },
    ]);
  });
});

describe('the decisions', () => {
  const decisions = globSync('docs/adr/0*.md', { cwd: root }).sort();

  it('have a status, a date and the same headings', () => {
    expect(decisions.length).toBeGreaterThan(30);
    for (const path of decisions) {
      const text = textOf(path);
      expect(text, path).toMatch(/^# \d+\. .+\n\n- Status: .+\n- Date: \d{4}-\d{2}-\d{2}\n\n## Context\n/);
      expect([...text.matchAll(/^## (.+)$/gm)].map(([, heading]) => heading).slice(0, 4), path).toEqual([
        'Context',
        'Decision',
        'Consequences',
        'Alternatives',
      ]);
    }
  });

  it('are all listed in their index', () => {
    const index = textOf('docs/adr/README.md');
    expect(decisions.filter((path) => !index.includes(`(${path.replace('docs/adr/', '')})`))).toEqual([]);
  });
});
