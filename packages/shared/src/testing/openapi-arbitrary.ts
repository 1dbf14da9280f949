import fc from 'fast-check';
import type { Json, OpenapiReader, Operation, Parameter } from './openapi.ts';

/** Longest text and list that is made, whatever a schema allows. */
const LENGTH_MAX = 40;

/** Values that a JSON Schema of a document allows, as far as it says; what only a refinement knows may be broken. */
export function valueAsIn(reader: OpenapiReader, schema: Json): fc.Arbitrary<unknown> {
  const { $ref, enum: options, const: only } = schema;
  const choices = (schema['anyOf'] ?? schema['oneOf']) as Json[] | undefined;
  if (typeof $ref === 'string') return valueAsIn(reader, reader.resolve($ref) as Json);
  if (only !== undefined) return fc.constant(only);
  if (Array.isArray(options)) return fc.constantFrom(...options);
  if (choices !== undefined)
    return fc.oneof(...choices.map((one) => valueAsIn(reader, { ...one, ...typeOf(schema) })));
  const { type } = schema;
  if (Array.isArray(type)) return fc.oneof(...type.map((one) => valueAsIn(reader, { ...schema, type: one })));
  switch (type) {
    case 'string':
      return stringOf(schema);
    case 'integer':
      return fc.integer({
        min: Number(schema['minimum'] ?? Number(schema['exclusiveMinimum'] ?? -1_000) + 1),
        max: Number(schema['maximum'] ?? 1_000_000),
      });
    case 'number':
      return fc.double({ noNaN: true });
    case 'boolean':
      return fc.boolean();
    case 'null':
      return fc.constant(null);
    case 'array':
      return fc.array(valueAsIn(reader, (schema['items'] ?? {}) as Json), {
        minLength: Number(schema['minItems'] ?? 0),
        maxLength: Math.min(Number(schema['maxItems'] ?? 5), 5),
      });
    case 'object':
      return objectOf(reader, schema);
    default:
      return fc.jsonValue({ maxDepth: 3 });
  }
}

function typeOf({ type }: Json): Json {
  return type === undefined ? {} : { type };
}

function stringOf(schema: Json): fc.Arbitrary<string> {
  const { pattern, format } = schema;
  if (format === 'uuid') return fc.uuid();
  if (format === 'date-time')
    return fc
      .date({ min: new Date('1990-01-01'), max: new Date('2090-01-01'), noInvalidDate: true })
      .map((date) => date.toISOString());
  if (schema['contentEncoding'] === 'base64')
    return fc.uint8Array({ maxLength: LENGTH_MAX }).map((bytes) => Buffer.from(bytes).toString('base64'));
  if (typeof pattern === 'string') return fc.stringMatching(new RegExp(pattern));
  return fc.string({
    unit: 'grapheme',
    minLength: Number(schema['minLength'] ?? 0),
    maxLength: Math.min(Number(schema['maxLength'] ?? LENGTH_MAX), LENGTH_MAX),
  });
}

function objectOf(reader: OpenapiReader, schema: Json): fc.Arbitrary<unknown> {
  const properties = Object.entries((schema['properties'] ?? {}) as Record<string, Json>);
  const required = (schema['required'] ?? []) as string[];
  const known = fc.record(Object.fromEntries(properties.map(([name, of]) => [name, valueAsIn(reader, of)])), {
    requiredKeys: required,
  });
  const { additionalProperties } = schema;
  if (additionalProperties === false || additionalProperties === undefined) return known;
  const more = fc.dictionary(
    fc.string({ unit: 'grapheme', maxLength: 10 }).filter((name) => name !== '__proto__'),
    valueAsIn(reader, additionalProperties === true ? {} : (additionalProperties as Json)),
    { maxKeys: 4 },
  );
  return fc.tuple(more, known).map(([others, members]) => ({ ...others, ...members }));
}

/** What nobody should send. */
const HOSTILE_TEXTS = [
  ...['', ' ', '.', '..', '../..', '*', '%', '%00', '\0', '\u202e', '\ufeff', '\u212a', 'null', '__proto__'],
  ...['-1', '0', '1e9', '1.5', '99999999999999999999', 'NaN', "' OR 1=1 --", '<script>', 'a'.repeat(600)],
  ...[
    'ä'.repeat(300),
    '💥',
    'a,b',
    '"',
    '\\',
    '\r\n\t',
    'constructor',
    'hasOwnProperty',
    'W/"x"',
    'sha256:00',
  ],
];
export const hostileText = fc.oneof(
  fc.constantFrom(...HOSTILE_TEXTS),
  fc.string({ unit: 'binary', maxLength: LENGTH_MAX }).map((text) => text.toWellFormed()),
);
/** Parts of a path as they go over the wire, some of which are no percent-encoding. */
const HOSTILE_SEGMENTS = [
  '',
  '.',
  '..',
  '%',
  '%zz',
  '%00',
  '%2e%2e',
  '%2F',
  '%c3%28',
  '%ff',
  '~',
  '!',
  ';a=b',
  '%25',
];

const nested = (depth: number) => `${'['.repeat(depth)}${']'.repeat(depth)}`;
const HOSTILE_BODIES = [
  ...[
    '',
    '{',
    '{}',
    '[]',
    'null',
    '0',
    '""',
    '{"a":1,"a":2}',
    '{"__proto__":{}}',
    '{"\\u005f\\u005fproto__":1}',
  ],
  ...[
    '\ufeff{}',
    '{"a":01}',
    '{"a":1e999}',
    `{"n":${'9'.repeat(400)}}`,
    '{"a":"\\ud800"}',
    '{"a":"\0"}',
    '{,}',
    "{'a':1}",
  ],
  ...[
    nested(99),
    nested(101),
    nested(20_000),
    `{"a":${nested(150)}}`,
    '{"constructor":{"prototype":{}}}',
    '{"items":[]}',
  ],
  ...[
    `{"items":[${'{},'.repeat(100)}{}]}`,
    `{"name":"${'a'.repeat(5_000)}"}`,
    '{"name":{}}',
    '{"_id":1}',
    '{"_rev":{}}',
  ],
].map((text) => Buffer.from(text));
const hostileBody = fc.oneof(
  fc.constantFrom(
    ...HOSTILE_BODIES,
    Buffer.from([0xff, 0xfe, 0x7b, 0x7d]),
    Buffer.from([0x7b, 0xc3, 0x28, 0x7d]),
  ),
  fc.uint8Array({ maxLength: LENGTH_MAX }).map((bytes) => Buffer.from(bytes)),
  fc.jsonValue({ maxDepth: 4 }).map((value) => Buffer.from(JSON.stringify(value))),
);

/** A request that may be anything from what the document asks for to nonsense. */
export interface FuzzRequest {
  readonly method: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer | undefined;
  /** Which of the caller's tokens goes with it; `good` mostly. */
  readonly token: 'good' | 'none' | 'foreign' | 'garbage';
}

/** Requests for an operation: each part an example, or as its schema says, or hostile. */
export function requestOf(reader: OpenapiReader, operation: Operation): fc.Arbitrary<FuzzRequest> {
  const of = (place: Parameter['in']) => operation.parameters.filter((parameter) => parameter.in === place);
  return fc
    .record({
      segments: fc.record(
        Object.fromEntries(of('path').map((parameter) => [parameter.name, segmentOf(reader, parameter)])),
      ),
      query: given(of('query'), (parameter) =>
        soundOr(reader, parameter, hostileText).map((value) => encodeURIComponent(value)),
      ),
      unknownQuery: rarely(
        fc.constantFrom('x=1', '__proto__=1', 'limit=1&limit=2', '=', '%=%', 'constructor'),
      ),
      headers: given(of('header'), (parameter) => soundOr(reader, parameter, hostileText).map(toHeader)),
      unknownHeaders: rarely(
        fc.constantFrom(
          { 'content-encoding': 'gzip' },
          { expect: '100-continue' },
          { 'x-http-method-override': 'DELETE' },
          { accept: 'text/html' },
          { 'if-match': '*' },
          { 'if-none-match': '*' },
        ),
      ),
      content: contentOf(reader, operation),
      token: fc.oneof(
        { weight: 20, arbitrary: fc.constant('good' as const) },
        { weight: 1, arbitrary: fc.constantFrom('none' as const, 'foreign' as const, 'garbage' as const) },
      ),
    })
    .map(({ segments, query, unknownQuery, headers, unknownHeaders, content, token }) => {
      const path = operation.path.replace(/\{(\w+)\}/g, (_, name: string) => String(segments[name]));
      const pairs = [
        ...Object.entries(query).map(([name, value]) => `${name}=${value}`),
        ...list(unknownQuery),
      ];
      return {
        method: operation.method,
        path: pairs.length === 0 ? path : `${path}?${pairs.join('&')}`,
        headers: { ...headers, ...unknownHeaders, ...content.headers },
        body: content.body,
        token,
      };
    });
}

function soundOr(
  reader: OpenapiReader,
  { schema, examples = {} }: Parameter,
  hostile: fc.Arbitrary<string>,
): fc.Arbitrary<string> {
  const shown = Object.values(examples).map(({ value }) => value);
  return fc.oneof(
    ...(shown.length === 0 ? [] : [{ weight: 6, arbitrary: fc.constantFrom(...shown) }]),
    { weight: 3, arbitrary: valueAsIn(reader, schema).map(String) },
    { weight: 1, arbitrary: hostile },
  );
}

function segmentOf(reader: OpenapiReader, parameter: Parameter): fc.Arbitrary<string> {
  const encoded = soundOr(reader, parameter, hostileText).map((text) =>
    encodeURIComponent(text.toWellFormed()),
  );
  return fc.oneof(
    { weight: 19, arbitrary: encoded },
    { weight: 1, arbitrary: fc.constantFrom(...HOSTILE_SEGMENTS) },
  );
}

function given(
  parameters: readonly Parameter[],
  of: (parameter: Parameter) => fc.Arbitrary<string>,
): fc.Arbitrary<Record<string, string>> {
  const required = parameters.filter((parameter) => parameter.required).map(({ name }) => name);
  return fc.record(Object.fromEntries(parameters.map((parameter) => [parameter.name, of(parameter)])), {
    requiredKeys: required,
  }) as fc.Arbitrary<Record<string, string>>;
}

/** What Node lets a client send. */
function toHeader(text: string): string {
  return text.replace(/[^\t\x20-\x7e\x80-\xff]/g, '?');
}

function rarely<T>(arbitrary: fc.Arbitrary<T>): fc.Arbitrary<T | undefined> {
  return fc.oneof({ weight: 9, arbitrary: fc.constant(undefined) }, { weight: 1, arbitrary });
}

function list<T>(value: T | undefined): T[] {
  return value === undefined ? [] : [value];
}

interface FuzzContent {
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer | undefined;
}

const WRONG_TYPES = [
  'text/plain',
  'application/xml',
  'application/json; charset=latin1',
  'nonsense',
  'application/JSON',
];

function contentOf(reader: OpenapiReader, operation: Operation): fc.Arbitrary<FuzzContent> {
  const none = fc.constant<FuzzContent>({ headers: {}, body: undefined });
  const contents = Object.entries(operation.requestBody?.content ?? {});
  const hostile = fc
    .tuple(
      hostileBody,
      fc.constantFrom(...contents.map(([type]) => type), 'application/json', ...WRONG_TYPES),
    )
    .map(([body, type]): FuzzContent => ({ headers: { 'content-type': type }, body }));
  if (operation.method === 'GET' || operation.method === 'HEAD') return none;
  if (contents.length === 0)
    return fc.oneof({ weight: 9, arbitrary: none }, { weight: 1, arbitrary: hostile });
  const sound = contents.map(([type, { schema, examples = {} }]) => {
    const shown = Object.values(examples).map(({ value }) => value);
    const value = fc.oneof(
      ...(shown.length === 0 ? [] : [{ weight: 2, arbitrary: fc.constantFrom(...shown) }]),
      { weight: 3, arbitrary: valueAsIn(reader, schema) },
    );
    const bytes = fc.tuple(value, fc.nat({ max: 20 })).map(([body, cut]) => {
      const text = JSON.stringify(body);
      // Now and then the end is missing.
      return Buffer.from(cut === 0 ? text.slice(0, text.length / 2) : text);
    });
    return bytes.map((body): FuzzContent => ({ headers: { 'content-type': type }, body }));
  });
  return fc.oneof(
    { weight: 8, arbitrary: fc.oneof(...sound) },
    { weight: 3, arbitrary: hostile },
    { weight: 1, arbitrary: none },
  );
}
