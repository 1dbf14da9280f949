import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { naiveOf } from '../testing/naive-query.ts';
import { naiveMeets } from '../testing/naive-schema.ts';
import { readValue } from '../values/value.ts';
import { compileSchema } from './json-schema.ts';

/** Includes names that JavaScript objects inherit. */
const name = fc.constantFrom('a', 'b', 'c', 'constructor', 'toString', 'valueOf');
/** Different spellings: some are the same number, some are not doubles. */
const numberText = fc.oneof(
  fc.constantFrom('0', '-0', '1', '1.0', '10e-1', '2', '0.07', '1.5', '12345678901234567890', '1e400'),
  fc.constantFrom('12345678901234567891', '1.0000000000000000001', '0.99999999999999999999', '-1e30'),
  fc.integer({ min: 0, max: 2_000 }).map((cents) => `${cents / 100}`),
);
const { value: valueText } = fc.letrec<{ value: string }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 3, depthSize: 'small' },
    fc.constantFrom('null', 'true', 'false', '"a"', '"b"'),
    numberText,
    fc.array(tie('value'), { maxLength: 4 }).map((elements) => `[${elements.join(',')}]`),
    fc
      .dictionary(name, tie('value'), { maxKeys: 4, noNullPrototype: true })
      .map(
        (members) => `{${Object.entries(members).map(([key, text]) => `${JSON.stringify(key)}:${text}`)}}`,
      ),
  ),
}));
const documentText = fc
  .dictionary(name, valueText, { maxKeys: 4, noNullPrototype: true })
  .map((members) => `{${Object.entries(members).map(([key, text]) => `${JSON.stringify(key)}:${text}`)}}`);

const limit = fc.constantFrom(0, 1, 1.5, 2, 20, 0.07);
const constant = fc.constantFrom<unknown>(
  null,
  true,
  'a',
  0,
  1,
  1.5,
  [],
  {},
  [1],
  { a: 1 },
  { constructor: 1 },
);
const type = fc.constantFrom('null', 'boolean', 'number', 'integer', 'string', 'array', 'object');

const { schema } = fc.letrec<{ schema: unknown; keywords: Record<string, unknown> }>((tie) => {
  const one = tie('schema');
  const some = fc.array(one, { minLength: 1, maxLength: 3 });
  const named = fc.dictionary(name, one, { maxKeys: 3, noNullPrototype: true });
  const keyword = (key: string, value: fc.Arbitrary<unknown>) => value.map((it) => ({ [key]: it }));
  const anyKeyword = fc.oneof(
    ...[keyword('type', type), keyword('type', fc.uniqueArray(type, { minLength: 1, maxLength: 3 }))],
    ...[keyword('const', constant), keyword('enum', fc.array(constant, { minLength: 1, maxLength: 3 }))],
    ...['minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum'].map((key) => keyword(key, limit)),
    keyword('multipleOf', fc.constantFrom(1, 2, 0.01, 0.07, 1.5)),
    ...['allOf', 'anyOf', 'oneOf', 'anyOf', 'prefixItems'].map((key) => keyword(key, some)),
    ...['not', 'items', 'additionalProperties', 'propertyNames'].map((key) => keyword(key, one)),
    ...['properties', 'properties', 'dependentSchemas'].map((key) => keyword(key, named)),
    ...['unevaluatedItems', 'unevaluatedProperties'].map((key) =>
      keyword(key, fc.oneof(fc.constant(false), one)),
    ),
    fc
      .tuple(one, one, one, fc.constantFrom(['then'], ['else'], ['then', 'else']))
      .map(([condition, ...rest]) => {
        const branches = rest[2].map((branch, at) => [branch, rest[at]]);
        return { if: condition, ...(Object.fromEntries(branches) as object) };
      }),
    fc.tuple(one, fc.constantFrom({}, { minContains: 2 }, { maxContains: 1 })).map(([contains, bounds]) => ({
      contains,
      ...bounds,
    })),
    keyword('required', fc.uniqueArray(name, { maxLength: 2 })),
    keyword('dependentRequired', fc.dictionary(name, fc.uniqueArray(name, { maxLength: 2 }), { maxKeys: 2 })),
    ...[
      keyword('uniqueItems', fc.boolean()),
      keyword('minItems', fc.nat(2)),
      keyword('maxProperties', fc.nat(3)),
    ],
    fc.constantFrom({ $ref: '#/$defs/x' }, { $ref: '#/$defs/y' }),
  );
  return {
    schema: fc.oneof({ maxDepth: 4, depthSize: 'small' }, fc.boolean(), tie('keywords'), tie('keywords')),
    keywords: fc
      .array(anyKeyword, { minLength: 1, maxLength: 4 })
      .map((parts) => Object.assign({}, ...parts) as Record<string, unknown>),
  };
});

/** Removes references, so that no schema refers to itself. */
function withoutReferences(node: unknown): unknown {
  if (typeof node !== 'object' || node === null) return node;
  if (Array.isArray(node)) return node.map(withoutReferences);
  const entries = Object.entries(node).filter(([key]) => key !== '$ref');
  return Object.fromEntries(entries.map(([key, member]) => [key, withoutReferences(member)]));
}

/** Half of them have unevaluated keywords for the document or its member `a`. */
const rootSchema = fc
  .tuple(schema, schema, schema, fc.constantFrom('plain', 'plain', 'members', 'elements'))
  .map(([one, x, y, kind]) => {
    const root = typeof one === 'object' ? (one as object) : { allOf: [one] };
    const $defs = { x: withoutReferences(x), y: withoutReferences(y) };
    if (kind === 'members') return { ...root, unevaluatedProperties: false, $defs };
    if (kind === 'elements') return { properties: { a: { ...root, unevaluatedItems: false } }, $defs };
    return { ...root, $defs };
  });

describe('the verdict on a document', () => {
  it('equals that of a second evaluator for every schema', () => {
    let met = 0;
    fc.assert(
      fc.property(rootSchema, fc.array(documentText, { minLength: 10, maxLength: 10 }), (root, texts) => {
        const plain = JSON.parse(JSON.stringify(root)) as Record<string, unknown>;
        const check = compileSchema(plain);
        for (const text of texts) {
          const isMet = naiveMeets(plain, naiveOf(text));
          if (isMet) met++;
          const verdict = (stepsMax: number) => check(readValue(text), stepsMax, 20)?.length === 0;
          expect([text, verdict(1_000_000)]).toEqual([text, isMet]);
          // Too few steps give no verdict, and never another one.
          const short = check(readValue(text), 40, 20);
          expect([text, short === undefined || short.length === 0]).toEqual([
            text,
            short === undefined || isMet,
          ]);
        }
      }),
      { numRuns: Number(process.env['SCHEMA_RUNS'] ?? 400) },
    );
    expect(met).toBeGreaterThan(100);
  });
});
