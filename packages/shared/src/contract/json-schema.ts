import { z } from 'zod';

export type JsonSchema = Readonly<Record<string, unknown>>;

const COMPONENTS = '#/components/schemas/';

/** What API documents show for schemas that check only a part of the input. Other code checks the rest. */
const shown = new WeakMap<z.core.$ZodType, z.ZodType | JsonSchema>();

/**
 * Makes a schema appear in documents as another one.
 *
 * @param as a zod schema, by its name where it has one, or a JSON Schema that refers to named ones by
 *   {@link named}.
 * @returns the schema.
 */
export function showAs<Schema extends z.ZodType>(schema: Schema, as: z.ZodType | JsonSchema): Schema {
  shown.set(schema, as);
  return schema;
}

/** A reference to a schema of the document by its name. */
export function named(name: string): JsonSchema {
  return { $ref: `${COMPONENTS}${name}` };
}

/**
 * Zod schemas as JSON Schema 2020-12, the dialect of OpenAPI 3.1. They describe the input, before any
 * transformation. Named schemas are referenced everywhere, also within others.
 */
export class DocumentSchemas {
  readonly #names = new Map<z.core.$ZodType, string>();
  readonly #registry: NamesRegistry;
  readonly #json = new Map<z.core.$ZodType, JsonSchema>();

  constructor(schemas: Readonly<Record<string, z.ZodType>>) {
    for (const [name, schema] of Object.entries(schemas)) this.#names.set(schema, name);
    this.#registry = new NamesRegistry(this.#names);
  }

  /** Gives a name to a schema that has none. @throws Error when another schema has the name. */
  name(schema: z.ZodType, name: string): void {
    if (this.#names.has(schema)) return;
    if ([...this.#names.values()].includes(name)) throw new Error(`two schemas are called ${name}`);
    this.#names.set(schema, name);
  }

  /** A reference, for a schema with a name. */
  refer(schema: z.ZodType): JsonSchema {
    const name = this.#names.get(schema);
    return name === undefined ? this.define(schema) : named(name);
  }

  /** The schema itself, even if it has a name. */
  define(schema: z.core.$ZodType): JsonSchema {
    let json = this.#json.get(schema);
    if (json === undefined) {
      json = this.#convert(schema);
      this.#json.set(schema, json);
    }
    return json;
  }

  /** Every schema with a name. */
  components(): Record<string, JsonSchema> {
    return Object.fromEntries([...this.#names].map(([schema, name]) => [name, this.define(schema)]));
  }

  #convert(schema: z.core.$ZodType): JsonSchema {
    const as = shown.get(schema);
    if (as !== undefined) return as instanceof z.ZodType ? this.refer(as) : as;
    const json = z.toJSONSchema(schema, {
      io: 'input',
      unrepresentable: 'any',
      metadata: this.#registry,
      override: ({ zodSchema, jsonSchema }) => this.#amend(zodSchema, jsonSchema),
    });
    const { $schema: _, $defs = {}, ...rest } = json as Record<string, unknown>;
    // Zod puts a named schema among the definitions, even if it is the root.
    const name = this.#names.get(schema);
    const whole = name === undefined ? rest : (($defs as Record<string, unknown>)[name] ?? rest);
    return relocated(whole) as JsonSchema;
  }

  #amend(schema: z.core.$ZodType, json: Record<string, unknown>): void {
    if (json['id'] === this.#names.get(schema)) delete json['id'];
    const as = shown.get(schema);
    if (as !== undefined && json['$ref'] === undefined) {
      for (const keyword of Object.keys(json)) delete json[keyword];
      Object.assign(json, as instanceof z.ZodType ? this.refer(as) : as);
    }
    tellDefault(json);
    // Numbers in a path or query are validated as text; `meta` says what they are.
    if (json['type'] === 'integer') delete json['pattern'];
    // The format implies the pattern.
    if (json['format'] === 'date-time' || json['format'] === 'uuid') delete json['pattern'];
    // Zod's default for safe integers.
    if (json['maximum'] === Number.MAX_SAFE_INTEGER) delete json['maximum'];
    if (json['minimum'] === Number.MIN_SAFE_INTEGER) delete json['minimum'];
  }
}

/**
 * Describes the default of an optional member in words. For client generators, `default` means that the
 * member is always there, so that callers must give it.
 */
function tellDefault(json: Record<string, unknown>): void {
  const { default: value, description } = json;
  if (value === undefined) return;
  delete json['default'];
  json['description'] = [description, `${JSON.stringify(value)} unless given`].filter(Boolean).join('; ');
}

/** Zod's metadata of schemas, with their names: a schema with an `id` is referenced. */
class NamesRegistry extends z.core.$ZodRegistry<Record<string, unknown>> {
  readonly #names: ReadonlyMap<z.core.$ZodType, string>;

  constructor(names: ReadonlyMap<z.core.$ZodType, string>) {
    super();
    this.#names = names;
  }

  override get(schema: z.core.$ZodType) {
    const id = this.#names.get(schema);
    const meta = z.globalRegistry.get(schema) as Record<string, unknown> | undefined;
    return id === undefined ? meta : { ...meta, id };
  }
}

/** Rewrites references to where the document has its named schemas. */
function relocated(node: unknown): unknown {
  if (Array.isArray(node)) return node.map(relocated);
  if (typeof node !== 'object' || node === null) return node;
  return Object.fromEntries(
    Object.entries(node).map(([name, member]) => [
      name,
      name === '$ref' && typeof member === 'string'
        ? member.replace('#/$defs/', COMPONENTS)
        : relocated(member),
    ]),
  );
}
