// Finds long sentences and forbidden phrases in prose.

import { globSync } from 'node:fs';
import { root } from './root.mjs';

/** Maximum words of a sentence: enough for one idea. */
export const SENTENCE_WORDS_MAX = 25;

/** Phrases that are grammatical but not the English of manuals. */
const FORBIDDEN = [
  /\bwho(?:ever|soever)\b/gi,
  /\banew\b/gi,
  /\b(?:is|are|was|were|be|been|being) told\b/gi,
  /\b(?:go(?:es)?|gone) on with\b/gi,
  /\bso that nobody\b/gi,
  /\b(?:of|is|are) (?:no|any) use\b/gi,
  /\bwhat (?:there is|is there) of\b/gi,
  /\bof before\b(?!\))/gi,
  /\b(?:not|no longer) taken here\b/gi,
  /\bso be it\b/gi,
  /\bnothing says\b/gi,
  /\bin vain\b/gi,
];

/** @typedef {{ line: number, text: string }} Remark */

/**
 * The blocks of prose in a page: paragraphs and list items, each with the number of its first line. Code,
 * tables and headings are skipped.
 *
 * @param {string} markdown
 * @returns {Remark[]}
 */
export function proseOf(markdown) {
  /** @type {Remark[]} */
  const blocks = [];
  let isOpen = false;
  let fence = '';
  for (const [index, line] of markdown.split('\n').entries()) {
    const [, mark = ''] = /^\s*(```+|~~~+)/.exec(line) ?? [];
    if (fence !== '') {
      if (mark.startsWith(fence)) fence = '';
      continue;
    }
    if (mark !== '') {
      fence = mark;
      isOpen = false;
    } else if (/^\s*(\||#|<!--|$)/.test(line)) isOpen = false;
    else {
      const item = /^\s*(?:[-*]|\d+\.)\s+(?:\[.\]\s+)?/.exec(line);
      const text = item === null ? line.trim() : line.slice(item[0].length);
      const last = blocks.at(-1);
      if (isOpen && item === null && last !== undefined) last.text += ` ${text}`;
      else blocks.push({ line: index + 1, text });
      isOpen = true;
    }
  }
  return blocks;
}

/**
 * The sentences of a block. A code span counts as one word, and a link as its label.
 *
 * @param {string} text
 * @returns {string[]}
 */
export function sentencesOf(text) {
  const plain = text
    .replaceAll(/``.+?``|`[^`]*`/g, 'code')
    .replaceAll(/!?\[([^\]]*)\]\([^)]*\)/g, '$1')
    .replaceAll(/\*\*|__/g, '');
  return plain
    .split(/(?<=[.!?][)"”]?)\s+(?=[\p{Lu}\p{N}("“…]|code\b)/u)
    .filter((sentence) => sentence !== '');
}

/** @param {string} sentence */
function wordsOf(sentence) {
  return sentence.split(/\s+/).filter((word) => /[\p{L}\p{N}]/u.test(word)).length;
}

/**
 * @param {string} markdown
 * @returns {Remark[]}
 */
export function longSentences(markdown) {
  return proseOf(markdown).flatMap(({ line, text }) =>
    sentencesOf(text)
      .filter((sentence) => wordsOf(sentence) > SENTENCE_WORDS_MAX)
      .map((sentence) => ({ line, text: `${wordsOf(sentence)} words: ${sentence}` })),
  );
}

/**
 * @param {string} text of any kind; code is checked too.
 * @returns {Remark[]}
 */
export function forbiddenPhrases(text) {
  return text.split('\n').flatMap((line, index) =>
    FORBIDDEN.flatMap((phrase) => [...line.matchAll(phrase)]).map(([found]) => ({
      line: index + 1,
      text: `"${found}"`,
    })),
  );
}

/** Pages that people read. */
export function pages() {
  return ['*.md', 'docs/**/*.md', 'packages/*/README.md', '.github/**/*.md']
    .flatMap((pattern) => globSync(pattern, { cwd: root }))
    .sort();
}
