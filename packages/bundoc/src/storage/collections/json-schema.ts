import type { FieldFault } from '@bundoc/shared/contract/problem';
import { AppError } from '@bundoc/shared/errors';
import { Ajv2020, type ErrorObject, type ValidateFunction } from 'ajv/dist/2020.js';
import { encodeExactly } from '../../query/key.ts';
import type { Value } from '../../query/value.ts';
import { hasMoreValuesThan, repeatedAlternatives, resolvePointer, walksOverOneValue } from './schema-work.ts';

/** Finds what is wrong with a document's value; nothing is an empty list. */
export type SchemaCheck = (document: unknown) => readonly FieldFault[];

/**
 * Keywords that are refused. A pattern is a regular expression, whose running time somebody else's text would decide; the others name schemas by
 * what cannot be bounded before it is resolved.
 */
const REFUSED_KEYWORDS = [
  'pattern',
  'patternProperties',
  '$id',
  '$anchor',
  '$dynamicRef',
  '$dynamicAnchor',
  '$recursiveRef',
  '$recursiveAnchor',
];
/** Values in a schema, those that its references lead to counted each time: bounds what one document is checked against. */
export const SCHEMA_SIZE_MAX = 5_000;
/** Alternatives that a new schema may try on each element of an array or member of an object, in all. */
export const ALTERNATIVES_MAX = 100;
/** Looks at values of a document that one check may come to: each may take microseconds. */
export const WORK_MAX = 1_000_000;
/** Faults that one answer lists, and bytes of a document up to which more than the first one is looked for. */
const FAULTS_MAX = 20;
const ALL_FAULTS_BYTES_MAX = 65_536;

/**
 * Makes a check of a JSON Schema (draft 2020-12, strict mode of Ajv, nothing fetched).
 *
 * @throws AppError `invalid_request` for a schema that is not accepted.
 */
export function compileSchema(schema: Readonly<Record<string, unknown>>): SchemaCheck {
  const fault = faultOfReferences(schema) ?? faultOfForm(schema);
  if (fault !== undefined) throw refused(fault);
  const first = compile(schema, false);
  let all: ValidateFunction | undefined;
  const looks = repeatedAlternatives(schema) + walksOverOneValue(schema);
  const valuesMax = Math.floor(WORK_MAX / looks);
  return (document) => {
    if (looks > 0 && hasMoreValuesThan(document, valuesMax))
      return [
        {
          path: '',
          message: `must have at most ${valuesMax} values: the schema may look at each ${Math.ceil(looks)} times`,
        },
      ];
    if (first(document)) return [];
    if (JSON.stringify(document).length > ALL_FAULTS_BYTES_MAX) return faultsOf(first.errors);
    // Compiled once a document is refused: most collections never need it.
    all ??= compile(schema, true);
    all(document);
    return faultsOf(all.errors ?? first.errors);
  };
}

/** Of a schema that somebody wants to define. One that was defined before stays what it is. @throws AppError `invalid_request`. */
export function requireFewAlternatives(schema: Readonly<Record<string, unknown>>): void {
  if (repeatedAlternatives(schema) > ALTERNATIVES_MAX)
    throw refused(
      `must try at most ${ALTERNATIVES_MAX} alternatives on elements and members, references followed`,
    );
}

/** Calls in one another that a write may be deep in when it runs a check. */
const DEPTH_OF_A_WRITE = 200;
const TOO_MANY_KEYWORDS = 'has too many keywords';

/**
 * Of a schema that somebody wants to define: its check runs. V8 compiles it when it is first run, not when Ajv has made it, and needs stack for
 * each keyword; without this every write would meet what the definition did not.
 *
 * @throws AppError `invalid_request`.
 */
export function requireRunnable(check: SchemaCheck): void {
  try {
    runDeeper(DEPTH_OF_A_WRITE, () => check({}));
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw refused(TOO_MANY_KEYWORDS, error);
  }
}

function runDeeper(calls: number, run: () => unknown): void {
  if (calls === 0) run();
  else runDeeper(calls - 1, run);
}

const DRAFT = 'https://json-schema.org/draft/2020-12/schema';
/** Holds schemas against the schema of schemas, which needs all keywords itself. */
const metaSchemas = new Ajv2020({ strict: true, logger: false, validateFormats: false });

function faultOfForm(schema: Readonly<Record<string, unknown>>): string | undefined {
  const { $schema = DRAFT } = schema;
  if ($schema !== DRAFT) return `"$schema" must be ${DRAFT}, or absent`;
  if (metaSchemas.validateSchema(schema) === true) return undefined;
  const [first] = metaSchemas.errors ?? [];
  return `is no JSON Schema: ${first?.instancePath ?? ''} ${first?.message ?? ''}`;
}

function compile(schema: Readonly<Record<string, unknown>>, allErrors: boolean): ValidateFunction {
  const ajv = new Ajv2020({
    strict: true,
    strictTypes: false,
    strictTuples: false,
    strictRequired: false,
    // An annotation, as the draft has it: the checks of formats are regular expressions.
    validateFormats: false,
    validateSchema: false,
    addUsedSchema: false,
    logger: false,
    allErrors,
    // It takes time by the square of the schema's size: 6 s for 1,600 properties, and half a second without it.
    code: { optimize: false },
  });
  for (const keyword of REFUSED_KEYWORDS) ajv.removeKeyword(keyword);
  // The library's own compares with one after the other.
  ajv.removeKeyword('enum');
  ajv.addKeyword({
    keyword: 'enum',
    schemaType: 'array',
    compile: (values: readonly Value[]) => {
      const wanted = new Set(values.map(encodeExactly));
      return (value: Value) => wanted.has(encodeExactly(value));
    },
    error: { message: 'must be equal to one of the allowed values' },
  });
  // The library's own compares every pair; this one takes time in proportion to the array, and numbers are told apart as queries do.
  ajv.removeKeyword('uniqueItems');
  ajv.addKeyword({
    keyword: 'uniqueItems',
    type: 'array',
    schemaType: 'boolean',
    validate: (wanted: boolean, items: readonly Value[]) =>
      !wanted || new Set(items.map(encodeExactly)).size === items.length,
    error: { message: 'must not have duplicate items' },
  });
  try {
    return ajv.compile(schema);
  } catch (error) {
    if (error instanceof RangeError) throw refused(TOO_MANY_KEYWORDS, error);
    throw refused(error instanceof Error ? error.message.slice(0, 200) : 'is no JSON Schema', error);
  }
}

/**
 * Pointers that lead Ajv to where {@link resolvePointer} leads. Ajv reads a reference as an address first: percent-encoded names are decoded, an
 * empty end and `#` are cut off, line separators are in none. What was counted here would not be what is compiled.
 */
const POINTER = /^#\/[^%#\u2028\u2029]+$/;

/**
 * Walks the schema with what its references lead to. Without this, one that leads back to itself could go on for ever, and a few that each name
 * the next twice could take exponential time.
 */
function faultOfReferences(schema: Readonly<Record<string, unknown>>): string | undefined {
  const following = new Set<string>();
  let size = 0;
  const visit = (node: unknown): string | undefined => {
    size++;
    if (size > SCHEMA_SIZE_MAX) return `must have at most ${SCHEMA_SIZE_MAX} values, references followed`;
    if (typeof node !== 'object' || node === null) return undefined;
    for (const [name, member] of Object.entries(node)) {
      const fault = name === '$ref' && typeof member === 'string' ? follow(member) : visit(member);
      if (fault !== undefined) return fault;
    }
    return undefined;
  };
  const follow = (pointer: string): string | undefined => {
    if (!POINTER.test(pointer))
      return '"$ref" must be a pointer into the schema, "#/$defs/…", without "%" and another "#"';
    if (following.has(pointer)) return '"$ref" must not lead back to itself';
    const target = resolvePointer(schema, pointer);
    if (target === undefined) return '"$ref" leads nowhere';
    following.add(pointer);
    const fault = visit(target);
    following.delete(pointer);
    return fault;
  };
  return visit(schema);
}

function faultsOf(errors: readonly ErrorObject[] | null | undefined): FieldFault[] {
  return (errors ?? [])
    .slice(0, FAULTS_MAX)
    .map(({ instancePath, keyword, params, message = 'is not valid' }) => ({
      path:
        keyword === 'additionalProperties'
          ? `${instancePath}/${pointerPart(params['additionalProperty'])}`
          : instancePath,
      message: keyword === 'additionalProperties' ? 'is not allowed here' : message,
    }));
}

function pointerPart(name: unknown): string {
  return String(name).replaceAll('~', '~0').replaceAll('/', '~1');
}

function refused(message: string, cause?: unknown): AppError {
  return new AppError('invalid_request', { errors: [{ path: 'body.schema', message }], cause });
}
