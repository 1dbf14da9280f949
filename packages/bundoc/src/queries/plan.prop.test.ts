import { runs } from '@bundoc/shared/testing/long';
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { indexKeysOf } from '../engine/indexes/index-keys.ts';
import { naiveMatches, naiveOf } from '../testing/naive-query.ts';
import { valueText } from '../testing/query-arbitraries.ts';
import { encodePosition, KEY_PART_MAX } from '../values/key.ts';
import { pathOf } from '../values/path.ts';
import { readValue } from '../values/value.ts';
import { planQuery } from './plan.ts';
import { whereSchema } from './where.ts';

const RUNS = runs(5_000, 200_000);

/** Strings and numbers whose key parts are about as long as a part may be, and agree in most of it. */
const longString = fc
  .tuple(fc.integer({ min: -1, max: 2 }), fc.constantFrom('', 'a', '\0'))
  .map(([more, end]) => 'x'.repeat(KEY_PART_MAX - 3 + more) + end);
const longNumber = fc
  .tuple(fc.integer({ min: -1, max: 1 }), fc.constantFrom('1', '2'), fc.constantFrom('', '-'))
  .map(([more, end, sign]) => `${sign}${'1'.repeat(KEY_PART_MAX - 5 + more)}${end}`);
const longText = fc.oneof(
  longString.map((text) => JSON.stringify(text)),
  longNumber,
);
const scalarText = fc.constantFrom(
  'null',
  'true',
  'false',
  '0',
  '1',
  '1.5',
  '-2',
  '""',
  '"a"',
  '"ab"',
  '"\\u0000"',
);
const value = fc.oneof(
  { weight: 6, arbitrary: scalarText },
  { weight: 2, arbitrary: longText },
  { weight: 1, arbitrary: valueText },
);
const FIELDS = ['a', 'b', 'c', 'c.a'];
const field = fc.constantFrom(...FIELDS);
const document = fc
  .record({ a: value, b: value, c: value }, { requiredKeys: [] })
  .map((members) => `{${Object.entries(members).map(([name, text]) => `"${name}":${text}`)}}`);
const prefix = fc.oneof(fc.constantFrom('', 'a', '\0'), longString);
const test = fc.oneof(
  {
    weight: 4,
    arbitrary: fc
      .tuple(fc.constantFrom('$eq', '$gt', '$gte', '$lt', '$lte'), value)
      .map(([op, operand]) => `{"${op}":${operand}}`),
  },
  fc
    .tuple(fc.constantFrom('$in', '$all'), fc.array(value, { maxLength: 3 }))
    .map(([op, values]) => `{"${op}":[${values}]}`),
  fc
    .tuple(prefix, fc.constantFrom('', '', ',"$options":"i"'))
    .map(([text, more]) => `{"$beginsWith":${JSON.stringify(text)}${more}}`),
  fc.boolean().map((exists) => `{"$exists":${exists}}`),
);
const where = fc
  .array(fc.tuple(field, test), { minLength: 1, maxLength: 2 })
  .map((clauses) => `{"$and":[${clauses.map(([name, tests]) => `{"${name}":${tests}}`)}]}`);

/** The key part of the operand is cut by one unit. That of a larger string has the same start. */
const cut = 'x'.repeat(KEY_PART_MAX - 2);
const cutTexts = [cut.slice(1), cut, `${cut}\0`, `${cut}a`].map((text) => JSON.stringify({ a: text }));
const cutExamples = ['$gt', '$gte', '$lt', '$lte', '$beginsWith'].map((op): [string[], string[], string] => [
  cutTexts,
  ['a'],
  JSON.stringify({ $and: [{ a: { [op]: cut } }] }),
]);

it('the ranges of a plan have every match, and nothing else where the plan is exact', () => {
  const seen = { planned: 0, hits: 0, exact: 0, exactHits: 0 };
  fc.assert(
    fc.property(
      fc.array(document, { minLength: 3, maxLength: 10 }),
      fc.uniqueArray(field, { minLength: 1, maxLength: 3 }),
      where,
      (texts, fields, whereText) => {
        const entries = texts.flatMap((text, at) => {
          const { keys } = indexKeysOf(fields.map(pathOf), readValue(text));
          return keys.map((key) => ({ at, key: key + encodePosition(at + 1) }));
        });
        const index = { name: 'i', fields, isMultiple: entries.length > texts.length };
        const plan = planQuery(whereSchema.parse(readValue(whereText)), [], [index]);
        if (plan === undefined) return;
        const found = entries.filter(({ key }) =>
          plan.ranges.some(({ low, high }) => low <= key && key < high),
        );
        const matches = texts.flatMap((text, at) =>
          naiveMatches(naiveOf(text), naiveOf(whereText)) ? [at] : [],
        );
        expect(found.map(({ at }) => at)).toEqual(expect.arrayContaining(matches));
        seen.planned++;
        if (matches.length > 0) seen.hits++;
        if (!plan.isExact) return;
        expect(found.map(({ at }) => at)).toEqual(matches);
        seen.exact++;
        if (matches.length > 0) seen.exactHits++;
      },
    ),
    { numRuns: RUNS, examples: cutExamples },
  );
  expect(Math.min(...Object.values(seen))).toBeGreaterThan(RUNS / 100);
});
