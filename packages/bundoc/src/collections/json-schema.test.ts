import { describe, expect, it } from 'vitest';
import {
  ALTERNATIVES_MAX,
  compileSchema,
  requireFewAlternatives,
  requireRunnable,
  WORK_MAX,
} from './json-schema.ts';

const faults = (schema: object, document: unknown) =>
  compileSchema(schema as Record<string, unknown>)({ document });

describe('a schema', () => {
  it('reports each fault with its JSON pointer', () => {
    const schema = {
      type: 'object',
      required: ['title'],
      properties: {
        title: { type: 'string' },
        tags: { type: 'array', items: { type: 'string' } },
        'a/b~c': { type: 'number' },
      },
      additionalProperties: false,
    };
    expect(faults(schema, { title: 'x', tags: ['y'] })).toEqual([]);
    expect(
      faults(schema, { tags: ['y', 1], 'a/b~c': 'z', 'x/y': 1 })
        .map(({ path }) => path)
        .sort(),
    ).toEqual(['', '/a~1b~0c', '/tags/1', '/x~1y']);
  });

  it('reports at most 20 faults, and one of a large document', () => {
    const schema = { properties: { n: { items: { type: 'string' } } } };
    expect(faults(schema, { n: Array.from({ length: 100 }, (_, n) => n) })).toHaveLength(20);
    expect(faults(schema, { n: Array.from({ length: 100_000 }, (_, n) => n) })).toHaveLength(1);
  });

  it('supports draft 2020-12 and references into itself', () => {
    const schema = {
      $schema: 'https://json-schema.org/draft/2020-12/schema',
      $defs: { point: { prefixItems: [{ type: 'number' }, { type: 'number' }], items: false } },
      properties: { at: { $ref: '#/$defs/point' }, to: { $ref: '#/$defs/point' } },
    };
    expect(faults(schema, { at: [1, 2] })).toEqual([]);
    expect(faults(schema, { to: [1, 2, 3] }).map(({ path }) => path)).toEqual(['/to']);
  });

  it.each([{ contains: { type: 'null' } }, { contains: { type: 'null' }, unevaluatedItems: false }])(
    'checks the whole of an array that is shorter than its tuple: %o',
    (rest) => {
      const schema = {
        properties: { n: { prefixItems: [{ type: 'number' }, { type: 'number' }], ...rest } },
      };
      for (const n of [[], [1]]) expect(faults(schema, { n })).not.toEqual([]);
      expect(faults({ properties: { n: { not: schema.properties.n } } }, { n: [] })).toEqual([]);
    },
  );

  it('checks uniqueItems in time linear in the number of values', () => {
    const schema = { properties: { n: { uniqueItems: true } } };
    const many = Array.from({ length: 100_000 }, (_, n) => ({ n }));
    expect(faults(schema, { n: many })).toEqual([]);
    expect(faults(schema, { n: [...many, { n: 5 }] })).toHaveLength(1);
    expect(
      faults(schema, {
        n: [
          { a: 1, b: 2 },
          { b: 2, a: 1 },
        ],
      }),
    ).toHaveLength(1);
  });

  it('looks up enum values without a comparison with each', () => {
    const values = [...Array.from({ length: 4_000 }, (_, n) => `v${n}`), 1, null, { a: [1], b: 2 }];
    const schema = { properties: { n: { items: { enum: values } } } };
    // 80 million comparisons, if each were made.
    const many = Array.from({ length: 20_000 }, (_, n) => `v${n % 4_000}`);
    expect(faults(schema, { n: [...many, 1.0, null, { b: 2, a: [1] }] })).toEqual([]);
    for (const other of ['v4000', '1', false, { a: [1] }, [1]])
      expect(faults(schema, { n: [other] })).toEqual([
        { path: '/n/0', message: 'must be equal to one of the allowed values' },
      ]);
  });

  it('lists the members of a constant when it is compiled, not for each value', () => {
    let lists = 0;
    const ownKeys = (members: object) => {
      lists++;
      return Reflect.ownKeys(members);
    };
    const members = Object.fromEntries(Array.from({ length: 2_400 }, (_, n) => [`m${n}`, [n]]));
    const schema = { properties: { n: { contains: { const: new Proxy(members, { ownKeys }) } } } };
    const check = compileSchema(schema);
    const empty = Array.from({ length: 2_000 }, () => ({}));
    const document = { n: empty };
    expect(check({ document })).not.toEqual([]);
    const compiled = lists;
    expect(check({ document })).not.toEqual([]);
    expect(check({ document: { n: [...empty, { ...members, m7: [8] }] } })).not.toEqual([]);
    expect(check({ document: { n: [...empty, structuredClone(members)] } })).toEqual([]);
    expect(lists).toBe(compiled);
  });

  const oneOfMany = (count: number) => ({
    $defs: { one: { anyOf: Array.from({ length: count }, (_, n) => ({ const: n })) } },
    properties: { n: { items: { $ref: '#/$defs/one' } } },
  });

  it('may have few alternatives for each element, counted with references followed', () => {
    expect(() => requireFewAlternatives(oneOfMany(ALTERNATIVES_MAX))).not.toThrow();
    for (const schema of [
      oneOfMany(ALTERNATIVES_MAX + 1),
      { additionalProperties: { properties: { b: { oneOf: Array(101).fill({}) } } } },
      { items: { items: { not: {}, allOf: Array(100).fill({}) } } },
    ])
      expect(() => requireFewAlternatives(schema)).toThrow(
        expect.objectContaining({ code: 'invalid_request' }),
      );
    // On a single value, or named by a property, they are not repeated.
    expect(() =>
      requireFewAlternatives({
        anyOf: Array(200).fill({}),
        properties: { items: { oneOf: Array(200).fill({}) } },
      }),
    ).not.toThrow();
  });

  it('limits the values of documents if it has alternatives for elements', () => {
    const schema = oneOfMany(10);
    // Ten alternatives, the elements, and the one property. The document itself and its array are values as
    // well.
    const most = Math.floor(WORK_MAX / (11 + 1 / 64)) - 2;
    expect(faults(schema, { n: Array(most).fill(3) })).toEqual([]);
    expect(faults(schema, { n: Array(most + 1).fill(3) })).toEqual([
      { path: '', message: expect.stringContaining(`at most ${most + 2} values`) },
    ]);
  });

  const all = (count: number, one: object) => ({ allOf: Array.from({ length: count }, () => one) });
  it.each([
    ['unique items', all(100, { properties: { n: { uniqueItems: true } } }), { n: Array(20_000).fill(0) }],
    ['members', all(100, { additionalProperties: { type: 'number' } }), { n: Array(20_000).fill(0) }],
    ['equality', { properties: { n: all(100, { enum: [1] }) } }, { n: Array(20_000).fill(0) }],
    ['equality with an object', { properties: { n: all(100, { const: {} }) } }, { n: Array(20_000).fill(0) }],
    ['numbers of members', all(100, { minProperties: 1 }), { n: Array(20_000).fill(0) }],
    ['lengths of strings', all(100, { properties: { s: { maxLength: 2e6 } } }), { s: 'x'.repeat(1_000_000) }],
    [
      'elements, references followed',
      { $defs: { a: { items: {} } }, properties: { n: all(100, { $ref: '#/$defs/a' }) } },
      { n: Array(20_000).fill(0) },
    ],
    [
      'elements at every depth',
      { $defs: { a: all(100, { items: {} }) }, properties: { n: { items: { $ref: '#/$defs/a' } } } },
      { n: Array(200).fill(Array(100).fill(0)) },
    ],
    [
      'names within elements',
      { properties: { n: { items: { required: Array.from({ length: 1_600 }, (_, n) => `k${n}`) } } } },
      { n: Array(50_000).fill({}) },
    ],
  ])(
    'accepts only small documents if it visits the same values repeatedly: %s',
    (_what, schema, document) => {
      expect(faults(schema, document)).toEqual([
        { path: '', message: expect.stringContaining('the schema may look at each') },
      ]);
    },
  );

  it.each([1_600, 2_400])(
    'is refused with %i properties, whether it is compiled or run too deep in the stack',
    (count) => {
      const names = Array.from({ length: count }, (_, n) => [`p${n}`, { type: 'string' }]);
      const accept = () => requireRunnable(compileSchema({ properties: Object.fromEntries(names) }));
      expect(accept).toThrow(expect.objectContaining({ code: 'invalid_request' }));
    },
  );

  it('accepts large documents if it visits different places', () => {
    const names = Array.from({ length: 200 }, (_, n) => `p${n}`);
    const properties = Object.fromEntries(
      names.map((name) => [name, { items: { type: 'number' }, uniqueItems: true, maxItems: 5_000 }]),
    );
    const document = Object.fromEntries(
      names.map((name) => [name, Array.from({ length: 500 }, (_, n) => n)]),
    );
    expect(faults({ properties }, document)).toEqual([]);
  });

  it('treats a format as an annotation', () => {
    expect(faults({ properties: { at: { type: 'string', format: 'date-time' } } }, { at: 'x' })).toEqual([]);
  });

  const doubling = Object.fromEntries(
    Array.from({ length: 40 }, (_, n) => [
      `d${n}`,
      { allOf: [{ $ref: `#/$defs/d${n + 1}` }, { $ref: `#/$defs/d${n + 1}` }] },
    ]),
  );
  it.each([
    ['a regular expression', { properties: { a: { pattern: '^(a+)+$' } } }],
    ['regular expressions as names', { patternProperties: { '^(a+)+$': {} } }],
    ['a reference to elsewhere', { $ref: 'https://example.org/schema.json' }],
    ['a reference to a file', { properties: { a: { $ref: 'file:///etc/passwd' } } }],
    ['a reference to nowhere', { $ref: '#/$defs/none' }],
    ['a reference to itself', { $ref: '#/$defs/a', $defs: { a: { $ref: '#/$defs/a' } } }],
    [
      'a reference to what holds it',
      { $defs: { a: { properties: { b: { $ref: '#/$defs/a' } } } }, $ref: '#/$defs/a' },
    ],
    ['references that double each time', { $ref: '#/$defs/d0', $defs: { ...doubling, d40: {} } }],
    ['a reference that the library decodes', { $ref: '#/$defs/d%30', $defs: { d0: {}, 'd%30': {} } }],
    ['a reference that the library cuts off', { $ref: '#/$defs/d0#', $defs: { d0: {}, 'd0#': {} } }],
    ['a name for references', { $id: 'https://example.org/x', type: 'object' }],
    ['a moving reference', { $dynamicRef: '#x' }],
    ['an unknown keyword', { typ: 'object' }],
    ['a keyword of the wrong type', { required: 'title' }],
    ['another draft', { $schema: 'http://json-schema.org/draft-07/schema#' }],
    ['a schema of very many values', { enum: Array.from({ length: 6_000 }, (_, n) => n) }],
  ])('is refused with %s', (_what, schema) => {
    expect(() => compileSchema(schema)).toThrow(expect.objectContaining({ code: 'invalid_request' }));
  });
});
