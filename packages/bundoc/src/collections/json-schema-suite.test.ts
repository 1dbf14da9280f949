import { AppError } from '@bundoc/shared/contract/app-error';
import { loadJsonSchemaSuite, type SuiteGroup } from '@bundoc/shared/testing/json-schema-suite';
import { needs } from '@bundoc/shared/testing/programs';
import { describe, expect, it } from 'vitest';
import type { Value } from '../values/value.ts';
import { compileSchema, type SchemaCheck } from './json-schema.ts';

const suite = loadJsonSchemaSuite();

/**
 * The keywords for which schemas of the suite may be refused, and their number of cases. docs/collections.md
 * gives the reasons. A schema that is refused for another reason, or no longer, changes one of the numbers.
 */
const REFUSED: ReadonlyMap<string, number> = new Map([
  // Regular expressions.
  ['pattern', 15],
  ['patternProperties', 70],
  // Names of schemas, and references by name or to other documents.
  ['$id', 100],
  ['$dynamicRef', 2],
  ['$ref', 36],
  ['$schema', 2],
]);

/** A definition's schema is an object; the suite also has `true` and `false`. */
function checkOf({ schema }: SuiteGroup): SchemaCheck {
  return compileSchema(
    typeof schema === 'boolean' ? { allOf: [schema] } : (schema as Record<string, unknown>),
  );
}

/** @returns the check, or the keyword for which the schema is refused. */
function checkOrKeyword(group: SuiteGroup): SchemaCheck | string {
  try {
    return checkOf(group);
  } catch (error) {
    const message = error instanceof AppError ? error.errors?.[0]?.message : undefined;
    const keyword = /^(\S+): ./.exec(message ?? '')?.[1];
    if (keyword === undefined) throw error;
    return keyword;
  }
}

describe('the JSON Schema Test Suite, required cases of draft 2020-12', needs('vectors'), () => {
  const accepted: (readonly [SuiteGroup, SchemaCheck])[] = [];
  const refused: (readonly [SuiteGroup, string])[] = [];
  for (const group of suite) {
    const result = checkOrKeyword(group);
    if (typeof result === 'string') refused.push([group, result]);
    else accepted.push([group, result]);
  }
  const casesOf = (groups: readonly SuiteGroup[]) => groups.reduce((sum, { tests }) => sum + tests.length, 0);

  it('runs every one of its cases or refuses it for a keyword', () => {
    expect({ run: casesOf(accepted.map(([group]) => group)), all: casesOf(suite) }).toEqual({
      run: 1_074,
      all: 1_299,
    });
  });

  it('has refused schemas only for listed keywords that the schema contains', () => {
    const counts = new Map<string, number>();
    for (const [{ schema, tests }, keyword] of refused) {
      counts.set(keyword, (counts.get(keyword) ?? 0) + tests.length);
      expect(JSON.stringify(schema)).toContain(`"${keyword}"`);
    }
    expect(counts).toEqual(REFUSED);
  });

  it('gets no wrong verdict', () => {
    const wrong: string[] = [];
    for (const [{ file, description, tests }, check] of accepted)
      for (const { data, valid, description: what } of tests)
        for (const faultsMax of [1, 20])
          if ((check(data as Value, 10_000, faultsMax)?.length === 0) !== valid)
            wrong.push(`${file}: ${description}: ${what}`);
    expect(wrong).toEqual([]);
  });
});
