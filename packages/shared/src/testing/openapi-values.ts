import fc from 'fast-check';
import { defined } from '../contract/defined.ts';
import type { Json, OpenapiReader } from './openapi.ts';

/** Maximum length of generated texts and lists, whatever a schema allows. */
const LENGTH_MAX = 40;

/** Values that match a JSON Schema of a document. They may violate rules that only a refinement checks. */
export function valueAsIn(
  reader: OpenapiReader,
  schema: Json,
  followed: readonly string[] = [],
): fc.Arbitrary<unknown> {
  const { $ref, enum: options, const: only } = schema;
  const choices = (schema['anyOf'] ?? schema['oneOf']) as Json[] | undefined;
  if (typeof $ref === 'string') {
    // A schema may be recursive.
    if (followed.filter((one) => one === $ref).length > 1) return fc.constant({});
    return valueAsIn(reader, reader.resolve($ref) as Json, [...followed, $ref]);
  }
  if (only !== undefined) return fc.constant(only);
  if (Array.isArray(options)) return fc.constantFrom(...options);
  if (choices !== undefined)
    return fc.oneof(...choices.map((one) => valueAsIn(reader, { ...one, ...typeOf(schema) }, followed)));
  const { type } = schema;
  if (Array.isArray(type))
    return fc.oneof(...type.map((one) => valueAsIn(reader, { ...schema, type: one }, followed)));
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
      return fc.array(valueAsIn(reader, (schema['items'] ?? {}) as Json, followed), {
        minLength: Number(schema['minItems'] ?? 0),
        maxLength: Math.min(Number(schema['maxItems'] ?? 5), 5),
      });
    case 'object':
      return objectOf(reader, schema, followed);
    default:
      return fc.jsonValue({ maxDepth: 3 });
  }
}

function typeOf({ type }: Json): Json {
  return defined({ type });
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

function objectOf(reader: OpenapiReader, schema: Json, followed: readonly string[]): fc.Arbitrary<unknown> {
  const properties = Object.entries((schema['properties'] ?? {}) as Record<string, Json>);
  const required = (schema['required'] ?? []) as string[];
  const known = fc.record(
    Object.fromEntries(properties.map(([name, of]) => [name, valueAsIn(reader, of, followed)])),
    {
      requiredKeys: required,
    },
  );
  const { additionalProperties } = schema;
  if (additionalProperties === false || additionalProperties === undefined) return known;
  const more = fc.dictionary(
    fc.string({ unit: 'grapheme', maxLength: 10 }).filter((name) => name !== '__proto__'),
    valueAsIn(reader, additionalProperties === true ? {} : (additionalProperties as Json), followed),
    { maxKeys: 4 },
  );
  return fc.tuple(more, known).map(([others, members]) => ({ ...others, ...members }));
}
