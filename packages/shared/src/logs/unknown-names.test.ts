import { describe, expect, it } from 'vitest';
import { describeUnknown, suggestFor } from './unknown-names.ts';

describe('a suggestion', () => {
  const known = ['where', 'orderBy', 'limit', 'cursor', 'fields', 'explain'];

  it.each([
    ['limt', 'limit'],
    ['Limit', 'limit'],
    ['orderby', 'orderBy'],
    ['order', 'orderBy'],
    ['lmiit', 'limit'],
    ['wheer', 'where'],
  ])('for %s is %s', (name, similar) => {
    expect(suggestFor(name, known)).toBe(`${name} (did you mean ${similar}?)`);
  });

  it.each(['skip', 'x', 'owner', 'lim'.repeat(10)])('for %s does not exist', (name) => {
    expect(suggestFor(name, known)).toBe(name);
  });

  it('compares names without their common prefix', () => {
    const variables = ['BUNDOC_HOST', 'BUNDOC_PORT'];
    expect(suggestFor('BUNDOC_PROT', variables, 'BUNDOC_')).toBe('BUNDOC_PROT (did you mean BUNDOC_PORT?)');
    expect(suggestFor('BUNDOC_MAX', variables, 'BUNDOC_')).toBe('BUNDOC_MAX');
  });

  it('takes no time for a long name, nor for many', () => {
    const names = Array.from({ length: 100_000 }, (_, at) => `${'limit'.repeat(200)}${at}`);
    const beganMs = performance.now();
    describeUnknown(names, known);
    expect(performance.now() - beganMs).toBeLessThan(200);
  });
});
