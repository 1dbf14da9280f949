import { readFileSync } from 'node:fs';
import { AppError } from '@bundoc/shared/contract/app-error';
import { type JsonObject, parseTree, treeText } from '@bundoc/shared/json/tree';
import { describe, expect, it } from 'vitest';
import { patched } from '../../testing/patched.ts';
import { readPatch } from './read-patch.ts';
import { updateSchema } from './read-update.ts';

const page = readFileSync(new URL('../../../../../docs/updates.md', import.meta.url), 'utf8');
const rowsOf = (heading: string) =>
  (page.slice(page.indexOf(`\n## ${heading}\n`) + 1).split('\n## ')[0] ?? '')
    .split('\n')
    .filter((line) => line.startsWith('| ') && line.includes('{'))
    .map((line) => line.split(' | '));
const codeOf = (cell = '') => String(/`([^`]+)`/.exec(cell)?.[1]);

/** The document after an update, or the code of the refusal. */
function after(document: string, update: string): string {
  try {
    const own = parseTree(document) as JsonObject;
    return treeText(patched(own, readPatch('update', Buffer.from(update), 1_000), 1_000));
  } catch (error) {
    if (error instanceof AppError) return error.code;
    throw error;
  }
}

describe('docs/updates.md', () => {
  const operators = rowsOf('Operators');
  const differences = rowsOf('Differences from MongoDB');

  it.each(operators)('says what an operator does: %s %s', (_operator, _does, document, update, result) => {
    expect(after(codeOf(document), codeOf(update))).toBe(codeOf(result));
  });

  it.each(differences)('says what differs from MongoDB: %s', (_what, document, update, result) => {
    expect(after(codeOf(document), codeOf(update))).toBe(codeOf(result));
  });

  it('names every operator', () => {
    expect(operators).toHaveLength(14);
    expect(differences).toHaveLength(12);
    for (const name of Object.keys(updateSchema.shape)) expect(page).toContain(`\`${name}\``);
  });
});
