import { readFileSync } from 'node:fs';
import { AppError } from '@bundoc/shared/contract/app-error';
import { describe, expect, it } from 'vitest';
import { readValue } from '../values/value.ts';
import { requireExactNumbers } from './exact-numbers.ts';
import { compileSchema, SCHEMA_SIZE_MAX } from './json-schema.ts';
import { REFUSED_KEYWORDS } from './schema-keywords.ts';

const faults = (schema: object, text: string) =>
  compileSchema(schema as Record<string, unknown>)(readValue(text), 1_000_000, 20);
/** The verdict on a member `v` of a document. */
const meets = (schema: object, text: string) =>
  faults({ properties: { v: schema } }, `{"v":${text}}`)?.length === 0;
const numbers = (count: number) => Array.from({ length: count }, (_, n) => n);

describe('a schema', () => {
  it('reports each fault with its JSON pointer, at most as many as asked for', () => {
    const schema = {
      type: 'object',
      required: ['title'],
      properties: {
        title: { type: 'string' },
        tags: { type: 'array', items: { type: 'string' } },
        'a/b~c': { type: 'number' },
        u: { anyOf: [{ type: 'number' }, { type: 'null' }] },
      },
      additionalProperties: false,
    };
    const text = '{"tags":["y",1],"a/b~c":"z","x/y":1,"u":"z"}';
    expect(faults(schema, '{"title":"x","tags":["y"],"u":null}')).toEqual([]);
    expect(faults(schema, text)).toEqual([
      { path: '', message: 'must have the member title' },
      { path: '/tags/1', message: 'must be string' },
      { path: '/a~1b~0c', message: 'must be number' },
      { path: '/u', message: 'must be number' },
      { path: '/u', message: 'must be null' },
      { path: '/u', message: 'must meet at least one schema of "anyOf"' },
      { path: '/x~1y', message: 'is not allowed here' },
    ]);
    expect(compileSchema(schema)(readValue(text), 1_000, 2)).toHaveLength(2);
  });

  it('may refer to itself for members and elements', () => {
    const tree = { properties: { below: { items: { $ref: '#' } }, n: { type: 'integer' } } };
    expect(faults(tree, '{"below":[{"n":1,"below":[{"n":2},{"below":[]}]}]}')).toEqual([]);
    expect(faults(tree, '{"below":[{"n":1,"below":[{"n":2},{"n":"x"}]}]}')).toEqual([
      { path: '/below/0/below/1/n', message: 'must be integer' },
    ]);
  });

  it.each([
    [{ required: ['constructor'] }, '{}', false],
    [{ required: ['constructor'] }, '{"constructor":1}', true],
    [{ required: ['__proto__'] }, '{}', false],
    [{ properties: { toString: { type: 'number' } } }, '{}', true],
    [{ properties: { toString: { type: 'number' } } }, '{"toString":"x"}', false],
    [{ dependentRequired: { valueOf: ['a'] } }, '{}', true],
    [{ anyOf: [{ properties: { a: {} } }], unevaluatedProperties: false }, '{"constructor":1}', false],
    [{ const: { valueOf: 1 } }, '{"valueOf":1}', true],
    [{ const: { constructor: {} } }, '{"constructor":{}}', true],
  ])('ignores inherited members: %j says of %s: %s', (schema, text, isMet) => {
    expect(meets(schema, text)).toBe(isMet);
  });

  it('accepts exactly the whole amounts of cents as multiples of 0.01', () => {
    const multiple = { multipleOf: 0.01 };
    for (let cents = 0; cents <= 2_000; cents++) {
      const amount = (cents / 100).toFixed(2);
      const verdicts = [amount, `${amount}0`, `${amount}5`].map((n) => meets(multiple, n));
      expect([amount, ...verdicts]).toEqual([amount, true, true, false]);
    }
    for (const n of ['-19.99', '1e400', '12345678901234567890.12', '7e-2', '-0'])
      expect([n, meets(multiple, n)]).toEqual([n, true]);
    for (const n of ['1e-400', '12345678901234567890.123', '0.0700000000000000000001'])
      expect([n, meets(multiple, n)]).toEqual([n, false]);
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
    [{ multipleOf: 2 ** 49 }, '1e48', false],
    [{ multipleOf: 2 ** 49 }, '1e49', true],
    [{ multipleOf: 2 ** 49 }, '1e99999', true],
    [{ multipleOf: 3e-290 }, '1e99999', false],
  ])('compares numbers beyond double precision exactly: %j says of %s: %s', (schema, number, isMet) => {
    expect(meets(schema, number)).toBe(isMet);
  });

  it('tells long texts apart by all of their characters', () => {
    const [a, b] = ['a', 'b'].map((end) => `"${'x'.repeat(20_000)}${end}"`);
    expect(meets({ uniqueItems: true }, `[${a},${b},"a",1,[${a}],[${b}]]`)).toBe(true);
    expect(meets({ uniqueItems: true }, `[${a},${b},${a}]`)).toBe(false);
    expect(meets({ uniqueItems: true }, `[[${a}],[${b}],[${a}]]`)).toBe(false);
  });

  it('treats a format as an annotation', () => {
    expect(meets({ type: 'string', format: 'date-time' }, '"x"')).toBe(true);
  });
});

/** The first fault of a new schema. */
function faultOf(schema: object) {
  try {
    compileSchema(schema as Record<string, unknown>);
  } catch (error) {
    if (error instanceof AppError && error.code === 'invalid_request') return error.errors?.[0];
    throw error;
  }
  return undefined;
}

describe('the check of a new schema', () => {
  it.each([
    [{ properties: { a: { pattern: '^(a+)+$' } } }, 'pattern: regular expressions are not', '.properties.a'],
    [{ $defs: { x: { patternProperties: {} } } }, 'patternProperties: regular expressions', '.$defs.x'],
    [{ anyOf: [{ $id: 'https://example.org/x' }] }, '$id: names of schemas are not supported', '.anyOf.0'],
    [{ typ: 'object' }, 'typ: unknown keyword', ''],
    [{ if: {}, else: { dependencies: {} } }, 'dependencies: is no keyword of draft 2020-12', '.else'],
    [{ $schema: 'http://json-schema.org/draft-07/schema#' }, '$schema: must be https://json-schema.org', ''],
    [{ items: { required: 'title' } }, 'required: must be an array of different strings', '.items'],
    [{ required: ['a', 'a'] }, 'required: must be an array of different strings', ''],
    [{ type: 'text' }, 'type: must be one of null, boolean', ''],
    [{ type: [] }, 'type: must be one of null, boolean', ''],
    [{ enum: 1 }, 'enum: must be an array', ''],
    [{ maximum: '1' }, 'maximum: must be a number', ''],
    [{ multipleOf: 0 }, 'multipleOf: must be a number above 0', ''],
    [{ minLength: 0.5 }, 'minLength: must be an integer from 0 to 9007199254740991', ''],
    [{ maxContains: -1 }, 'maxContains: must be an integer from 0 to 9007199254740991', ''],
    [{ uniqueItems: 1 }, 'uniqueItems: must be a boolean', ''],
    [{ title: 1 }, 'title: must be a string', ''],
    [{ anyOf: [] }, 'anyOf: must be an array of at least one schema', ''],
    [{ properties: [] }, 'properties: must be an object', ''],
    [{ properties: { a: 1 } }, 'must be a schema: an object or a boolean', '.properties.a'],
    [{ not: [] }, 'must be a schema: an object or a boolean', '.not'],
  ])('names the keyword and its place in %j', (schema, message, place) => {
    expect(faultOf(schema)).toEqual({
      path: `body.schema${place}`,
      message: expect.stringContaining(message),
    });
  });

  it.each([
    ['#', true],
    ['#/$defs/yes', true],
    ['#/$defs/list/anyOf/0', true],
    ['#/%24defs/list/not', true],
    ['#/$defs/a~1b', true],
    ['#/$defs/none', false],
    ['#/$defs/toString', false],
    ['#/$defs/list/anyOf', false],
    ['#/$defs/list/anyOf/length', false],
    ['#/$defs/list/anyOf/00', false],
    ['#/$defs/list/const/a', false],
    ['#/$defs/%', false],
    ['#/', false],
    ['#name', false],
    ['#/$defs/yes#', false],
    ['https://example.org/schema.json', false],
    ['file:///etc/passwd', false],
  ])('accepts the reference %s only if it leads to a schema in it: %s', ($ref, isSchema) => {
    const list = { anyOf: [{}], not: false, const: { a: 1 } };
    const fault = faultOf({ items: { $ref }, $defs: { yes: true, list, 'a/b': {} } });
    expect(fault?.message).toEqual(isSchema ? undefined : expect.stringMatching(/^\$ref: must /));
  });

  const twice = (n: number) => ({ allOf: [{ $ref: `#/$defs/d${n}` }, { $ref: `#/$defs/d${n}` }] });
  it.each([
    ['a reference to itself', { $ref: '#' }],
    ['references in a circle', { not: { $ref: '#/$defs/a' }, $defs: { a: { anyOf: [{ $ref: '#' }] } } }],
    [
      'references that double each time',
      {
        $ref: '#/$defs/d0',
        $defs: { d40: {}, ...Object.fromEntries(numbers(40).map((n) => [`d${n}`, twice(n + 1)])) },
      },
    ],
  ])('refuses %s', (_what, schema) => {
    expect(faultOf(schema)?.message).toContain('must not lead back to itself for the same value');
  });

  it(`accepts up to ${SCHEMA_SIZE_MAX} values, and no more`, () => {
    // The schema and its list count as well.
    expect(faultOf({ enum: numbers(SCHEMA_SIZE_MAX - 2) })).toBeUndefined();
    expect(faultOf({ enum: numbers(SCHEMA_SIZE_MAX - 1) })?.message).toContain(`at most ${SCHEMA_SIZE_MAX}`);
  });

  it('refuses exactly the keywords that docs/collections.md lists', () => {
    const page = readFileSync(new URL('../../../../docs/collections.md', import.meta.url), 'utf8');
    const section = page.slice(page.indexOf('### Refused keywords')).split('\n#')[0] ?? '';
    const cells = [...section.matchAll(/^\| (`.*?) \|/gm)].map(([, cell]) => String(cell));
    const documented = cells.flatMap((cell) => [...cell.matchAll(/`([^`]+)`/g)].map(([, name]) => name));
    expect(new Set(documented)).toEqual(new Set([...REFUSED_KEYWORDS.keys(), '$ref', '$schema']));
    for (const keyword of REFUSED_KEYWORDS.keys())
      expect(faultOf({ [keyword]: {} })?.message).toMatch(`${keyword}: `);
  });

  it.each(['9007199254740991', '-9007199254740991', '9007199254740991.0', '1234567890123456e0'])(
    'keeps the whole number %s as it is',
    (number) => {
      expect(() => requireExactNumbers(`{"schema":{"maximum":${number}}}`)).not.toThrow();
      const schema = JSON.parse(`{"maximum":${number}}`);
      expect(faultOf(schema)).toBeUndefined();
      expect(BigInt(schema.maximum)).toBe(BigInt(number.replace(/\.0|e0/, '')));
    },
  );

  it.each([
    '9007199254740992',
    '9007199254740993',
    '-9007199254740993',
    '1234567890123456.5',
    '12345678901234567890',
    '0.1000000000000000055',
    '1e400',
    '1e-300',
  ])('refuses the number %s, which a definition would change', (number) => {
    expect(() => requireExactNumbers(`{"schema":{"properties":{"n":{"maximum":${number}}}}}`)).toThrow(
      expect.objectContaining({
        code: 'invalid_request',
        errors: [expect.objectContaining({ path: 'body.schema.properties.n.maximum' })],
      }),
    );
    expect(() => requireExactNumbers(`{"schema":{"maximum":0.1},"ttl":{"seconds":${number}}}`)).not.toThrow();
  });
});
