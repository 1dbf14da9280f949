import { z } from 'zod';

export type JsonSchema = Readonly<Record<string, unknown>>;

/** By their schemas, which do not change: the listeners of a process describe themselves with the same ones. */
const known = new WeakMap<z.ZodType, JsonSchema>();

/** A zod schema as JSON Schema 2020-12, the dialect of OpenAPI 3.1: what may be sent, before any transformation. */
export function jsonSchemaOf(schema: z.ZodType): JsonSchema {
  let json = known.get(schema);
  if (json === undefined) {
    json = convert(schema);
    known.set(schema, json);
  }
  return json;
}

function convert(schema: z.ZodType): JsonSchema {
  const { $schema: _, ...json } = z.toJSONSchema(schema, {
    io: 'input',
    unrepresentable: 'any',
    override: ({ jsonSchema }) => {
      // Numbers in a path or query are validated as text; `meta` says what they are.
      if (jsonSchema.type === 'integer') delete jsonSchema.pattern;
      // The format says as much, and is shorter.
      if (jsonSchema.format === 'date-time' || jsonSchema.format === 'uuid') delete jsonSchema.pattern;
      // Zod's safe integers.
      if (jsonSchema.maximum === Number.MAX_SAFE_INTEGER) delete jsonSchema.maximum;
      if (jsonSchema.minimum === Number.MIN_SAFE_INTEGER) delete jsonSchema.minimum;
    },
  });
  return json;
}
