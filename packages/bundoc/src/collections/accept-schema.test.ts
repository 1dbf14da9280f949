import { readFileSync } from 'node:fs';
import { AppError } from '@bundoc/shared/contract/app-error';
import { describe, expect, it, vi } from 'vitest';
import { acceptSchema, checkOf as checkOfStored, requireExactNumbers } from './definition-schema.ts';
import { readForSchema } from './exact-numbers.ts';
import { compileSchema, PLACES_MAX, requireKeywords, SCHEMA_SIZE_MAX } from './json-schema.ts';
import { faultOfKeywords, REFUSED_KEYWORDS } from './schema-keywords.ts';

const checkOf = (schema: object) => {
  const check = acceptSchema(schema as Record<string, unknown>);
  return (text: string) => check(readForSchema(text)).length === 0;
};

describe('an accepted schema', () => {
  it.each([
    [{ required: ['constructor'] }, '{}', false],
    [{ required: ['constructor'] }, '{"constructor":1}', true],
    [{ required: ['__proto__'] }, '{}', false],
    [{ properties: { toString: { type: 'number' } } }, '{}', true],
    [{ properties: { toString: { type: 'number' } } }, '{"toString":"x"}', false],
    [{ dependentRequired: { valueOf: ['a'] } }, '{}', true],
    [{ anyOf: [{ properties: { a: {} } }], unevaluatedProperties: false }, '{"constructor":1}', false],
    [{ properties: { a: { const: { valueOf: 1 } } } }, '{"a":{"valueOf":1}}', true],
    [{ properties: { a: { const: { constructor: {} } } } }, '{"a":{"constructor":{}}}', true],
  ])('ignores inherited members: %j says of %s: %s', (schema, text, isMet) => {
    expect(checkOf(schema)(text)).toBe(isMet);
  });

  it('accepts exactly the whole amounts of cents as multiples of 0.01', () => {
    const meets = checkOf({ properties: { n: { multipleOf: 0.01 } } });
    for (let cents = 0; cents <= 2_000; cents++) {
      const amount = (cents / 100).toFixed(2);
      const verdicts = [amount, `${amount}0`, `${amount}5`].map((n) => meets(`{"n":${n}}`));
      expect([amount, ...verdicts]).toEqual([amount, true, true, false]);
    }
    for (const n of ['-19.99', '1e400', '12345678901234567890.12', '7e-2', '-0'])
      expect([n, meets(`{"n":${n}}`)]).toEqual([n, true]);
    for (const n of ['1e-400', '12345678901234567890.123', '0.0700000000000000000001'])
      expect([n, meets(`{"n":${n}}`)]).toEqual([n, false]);
  });

  const LARGE = '12345678901234567891';
  it.each([
    [{ minimum: 1 }, '0.99999999999999999999', false],
    [{ minimum: 1 }, '1.00000000000000000001', true],
    [{ maximum: 1 }, '1.00000000000000000001', false],
    [{ exclusiveMinimum: 1 }, '1.00000000000000000001', true],
    [{ exclusiveMinimum: 0 }, '1e-400', true],
    [{ exclusiveMaximum: 1 }, '0.99999999999999999999', true],
    [{ exclusiveMaximum: 1 }, '1', false],
    [{ maximum: 1e15 }, '1e400', false],
    [{ type: 'number' }, '1e400', true],
    [{ type: 'integer' }, LARGE, true],
    [{ type: ['integer', 'null'] }, '1.00000000000000000001', false],
    [{ type: 'integer' }, '9007199254740993.5', false],
    [{ const: 1 }, '1.00000000000000000001', false],
    [{ enum: [[1]] }, '[1.00000000000000000001]', false],
    [{ uniqueItems: true }, `[${LARGE},12345678901234567890]`, true],
    [{ uniqueItems: true }, `[${LARGE},12345678901234567891.0]`, false],
    [{ contains: { type: 'integer' } }, `["",${LARGE}]`, true],
    [{ multipleOf: 3 }, '12345678901234567890', true],
    [{ multipleOf: 3 }, LARGE, false],
  ])('compares numbers beyond double precision exactly: %j says of %s: %s', (schema, number, isMet) => {
    expect(checkOf({ properties: { n: schema } })(`{"n":${number}}`)).toBe(isMet);
  });

  it('reports faults of exact numbers like all others', () => {
    const schema = { properties: { n: { type: 'integer' }, m: { items: { minimum: 1, multipleOf: 2 } } } };
    const text = '{"n":1.00000000000000000001,"m":[2,0.99999999999999999999]}';
    expect(compileSchema(schema)(readForSchema(text))).toEqual([
      { path: '/n', message: 'must be integer' },
      { path: '/m/1', message: 'must be multiple of 2' },
      { path: '/m/1', message: 'must be >= 1' },
    ]);
  });

  it('accepts a document with long numbers only if they have few digits when it visits them repeatedly', () => {
    const schema = { properties: { n: { allOf: Array(100).fill({ multipleOf: 0.01 }) } } };
    const meets = checkOf(schema);
    expect(meets(`{"n":${'1'.repeat(100_000)}}`)).toBe(true);
    expect(meets(`{"n":${'1'.repeat(900_000)}}`)).toBe(false);
  });

  it.each([
    [{ anyOf: [true, { items: { type: 'string' } }], unevaluatedItems: { type: 'boolean' } }, '["x"]', true],
    [{ if: { properties: { a: { const: 1 } } }, else: true, unevaluatedProperties: false }, '{"a":2}', false],
    [{ if: { properties: { a: { const: 1 } } }, else: true, unevaluatedProperties: false }, '{"a":1}', true],
    [
      { allOf: [{ properties: { a: {} } }], anyOf: [{ required: ['b'] }, {}], unevaluatedProperties: false },
      '{"a":1}',
      true,
    ],
  ])('finds unevaluated members and items: %j says of %s: %s', (schema, value, isMet) => {
    expect(checkOf({ properties: { v: schema } })(`{"v":${value}}`)).toBe(isMet);
  });
});

/** The first fault of a new schema. */
function faultOf(schema: object) {
  try {
    acceptSchema(schema as Record<string, unknown>);
  } catch (error) {
    if (error instanceof AppError) return error.errors?.[0];
  }
  return undefined;
}

const page = readFileSync(new URL('../../../../docs/collections.md', import.meta.url), 'utf8');
/** The first cells of the rows in the tables under a heading. */
const rowsUnder = (heading: string) => {
  const section = page.slice(page.indexOf(heading)).split('\n#')[0] ?? '';
  return [...section.matchAll(/^\| (`.*?) \|/gm)].map(([, cell]) => String(cell));
};
const keywordsIn = (cell: string) => [...cell.matchAll(/`([^`]+)`/g)].map(([, keyword]) => String(keyword));

describe('the check of a new schema', () => {
  it.each([
    [
      { properties: { a: { pattern: '^a' } } },
      'pattern: regular expressions are not supported',
      '.properties.a',
    ],
    [
      { $defs: { x: { patternProperties: {} } } },
      'patternProperties: regular expressions are not',
      '.$defs.x',
    ],
    [{ anyOf: [{ $id: 'https://example.org/x' }] }, '$id: names of schemas are not supported', '.anyOf.0'],
    [{ typ: 'object' }, 'typ: unknown keyword', ''],
    [{ dependencies: { a: ['b'] } }, 'dependencies: is no keyword of draft 2020-12', ''],
    [{ $ref: '#/enum/0', enum: [{}] }, '$ref: must lead to a schema', ''],
  ])('names the refused keyword in %j', (schema, message, place) => {
    expect(faultOf(schema)).toEqual({
      path: `body.schema${place}`,
      message: expect.stringContaining(message),
    });
  });

  it.each([
    ['#/$defs/yes', true],
    ['#/$defs/list/anyOf/0', true],
    ['#/$defs/list/not', true],
    ['#/$defs/list/anyOf', false],
    ['#/$defs/list/anyOf/length', false],
    ['#/$defs/list/anyOf/00', false],
    ['#/$defs', false],
    ['#/$defs/list/const', false],
    ['#/$defs/list/const/not', false],
    ['#/$defs/list/const/a', false],
    ['#/$defs/toString', false],
    ['#/', false],
  ])('accepts the reference %s only if it leads to a schema: %s', ($ref, isSchema) => {
    const list = { anyOf: [{}], not: false, const: { not: {}, a: true } };
    const fault = faultOfKeywords({ $ref, $defs: { yes: true, list } });
    expect(fault?.message).toBe(isSchema ? undefined : '$ref: must lead to a schema');
  });

  const belowLongName = (length: number, count: number) => ({
    properties: { ['n'.repeat(length)]: { anyOf: Array.from({ length: count }, () => ({})) } },
  });

  it(`accepts up to ${SCHEMA_SIZE_MAX} values, and no more`, () => {
    // The schema and its list count as well.
    const listOf = (count: number) => ({ enum: Array.from({ length: count }, (_, n) => n) });
    expect(faultOf(listOf(SCHEMA_SIZE_MAX - 2))).toBeUndefined();
    expect(faultOf(listOf(SCHEMA_SIZE_MAX - 1))?.message).toContain(`at most ${SCHEMA_SIZE_MAX} values`);
  });

  it('checks the size before anything else', () => {
    const { properties } = belowLongName(20_000, SCHEMA_SIZE_MAX);
    expect(faultOf({ typ: 1, properties })?.message).toContain(`at most ${SCHEMA_SIZE_MAX} values`);
  });

  it('refuses pointers that are too long in total, counting each name for every schema below it', () => {
    expect(faultOf(belowLongName(20_000, 3_500))?.message).toContain(`at most ${PLACES_MAX} characters`);
    expect(() => requireKeywords(belowLongName(20_000, 190))).not.toThrow();
    expect(() => requireKeywords(belowLongName(20, 3_500))).not.toThrow();
  });

  it('refuses pointers that are too long in total without compiling, even in a stored schema', () => {
    expect(() => checkOfStored(belowLongName(20_000, 3_500))).toThrow(
      expect.objectContaining({
        code: 'invalid_request',
        errors: [
          expect.objectContaining({ message: expect.stringContaining(`at most ${PLACES_MAX} characters`) }),
        ],
      }),
    );
  });

  it('finds faults without listing the pointers of all schemas', () => {
    const schema = belowLongName(20_000, 3_500);
    const spies = [vi.spyOn(JSON, 'stringify'), vi.spyOn(Array.prototype, 'join')];
    try {
      expect(faultOfKeywords(schema)).toBeUndefined();
      expect(spies.map(({ mock }) => mock.calls.length)).toEqual([0, 0]);
    } finally {
      for (const spy of spies) spy.mockRestore();
    }
  });

  it('refuses exactly the keywords that docs/collections.md lists', () => {
    const documented = rowsUnder('### Refused keywords').flatMap(keywordsIn);
    expect(new Set(documented)).toEqual(new Set([...REFUSED_KEYWORDS.keys(), '$ref', '$schema']));
    for (const keyword of REFUSED_KEYWORDS.keys())
      expect(faultOf({ [keyword]: VALUES[keyword] })?.message).toMatch(`${keyword}: `);
  });

  it.each([
    ['{"if":{}}', 'if'],
    ['{"then":{}}', 'then'],
    ['{"else":{}}', 'else'],
    ['{"minContains":1}', 'minContains'],
    ['{"maxContains":1}', 'maxContains'],
    ['{"contains":{},"minContains":0}', 'minContains'],
    ['{"contains":{},"minContains":2,"maxContains":1}', 'minContains'],
    ['{"contains":{},"maxContains":0}', 'minContains'],
    ['{"unevaluatedItems":false,"contains":{}}', 'unevaluatedItems'],
    [
      '{"unevaluatedItems":false,"anyOf":[{"$ref":"#/$defs/x"}],"$defs":{"x":{"contains":{}}}}',
      'unevaluatedItems',
    ],
  ])('refuses the combination %s, which docs/collections.md lists', (text, keyword) => {
    expect(faultOf(JSON.parse(text) as object)?.message).toMatch(`${keyword}: `);
    expect(rowsUnder('### Refused combinations').flatMap(keywordsIn)).toContain(keyword);
  });

  it.each(['12345678901234567890', '0.1000000000000000055', '1e400', '1e-300'])(
    'refuses the number %s, which a definition would change',
    (number) => {
      expect(() => requireExactNumbers(`{"schema":{"properties":{"n":{"maximum":${number}}}}}`)).toThrow(
        expect.objectContaining({
          code: 'invalid_request',
          errors: [expect.objectContaining({ path: 'body.schema.properties.n.maximum' })],
        }),
      );
      expect(() =>
        requireExactNumbers(`{"schema":{"maximum":0.1},"ttl":{"seconds":${number}}}`),
      ).not.toThrow();
    },
  );
});

/** A valid value for each refused keyword. */
const VALUES: Readonly<Record<string, unknown>> = {
  ...{ pattern: 'a', patternProperties: {}, $id: 'https://example.org/x', $anchor: 'x', id: 'x' },
  ...{ $dynamicRef: '#x', $dynamicAnchor: 'x', $recursiveRef: '#', $recursiveAnchor: 'x', $vocabulary: {} },
  ...{ additionalItems: {}, dependencies: {}, nullable: true },
};

describe('a schema that an earlier version accepted', () => {
  it('still checks documents with keywords that new schemas must not have', () => {
    const schema = {
      properties: { n: { type: 'integer', nullable: true }, a: { dependencies: { b: ['c'] } } },
    };
    const check = compileSchema(schema);
    expect(check(readForSchema('{"n":null}'))).toEqual([]);
    expect(check(readForSchema('{"n":null,"m":12345678901234567890}'))).toEqual([]);
    expect(check(readForSchema('{"n":1.5,"m":12345678901234567890}'))).toHaveLength(1);
    expect(check(readForSchema('{"a":{"b":1}}'))).toHaveLength(1);
  });
});
