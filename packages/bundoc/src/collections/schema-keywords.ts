import type { FieldFault } from '@bundoc/shared/contract/problem';
import { pointerParts, resolvePointer } from './schema-work.ts';

/** Keywords whose value is one schema. */
const ONE_SCHEMA: ReadonlySet<string> = new Set([
  ...['items', 'contains', 'additionalProperties', 'propertyNames', 'unevaluatedItems'],
  ...['unevaluatedProperties', 'not', 'if', 'then', 'else', 'contentSchema'],
]);
/** Keywords whose value is a list of schemas. */
const SCHEMA_LISTS: ReadonlySet<string> = new Set(['allOf', 'anyOf', 'oneOf', 'prefixItems']);
/** Keywords whose value is an object of schemas by name. */
const SCHEMA_MAPS: ReadonlySet<string> = new Set([
  ...['properties', 'dependentSchemas', '$defs', 'definitions'],
]);
/** Keywords whose value contains no schema. */
const PLAIN: ReadonlySet<string> = new Set([
  ...['$schema', '$ref', '$comment', 'title', 'description', 'default', 'examples', 'deprecated'],
  ...['readOnly', 'writeOnly', 'format', 'contentEncoding', 'contentMediaType', 'type', 'enum', 'const'],
  ...['multipleOf', 'minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum', 'minLength', 'maxLength'],
  ...['minItems', 'maxItems', 'uniqueItems', 'minContains', 'maxContains', 'minProperties', 'maxProperties'],
  ...['required', 'dependentRequired'],
]);

const NO_EXPRESSIONS = 'regular expressions are not supported';
const NO_NAMES = 'names of schemas are not supported; refer to a place, "$ref": "#/$defs/…"';
const NO_DYNAMIC = 'dynamic references are not supported; use "$ref": "#/$defs/…"';
/** Refused keywords, with the reason. docs/collections.md gives the reasons; a test keeps the two equal. */
export const REFUSED_KEYWORDS: ReadonlyMap<string, string> = new Map([
  // The text of a document would decide how long an expression runs.
  ['pattern', NO_EXPRESSIONS],
  ['patternProperties', NO_EXPRESSIONS],
  // Keywords that identify schemas by names that cannot be bounded before resolution.
  ['$id', NO_NAMES],
  ['$anchor', NO_NAMES],
  ['$dynamicRef', NO_DYNAMIC],
  ['$dynamicAnchor', NO_DYNAMIC],
  ['$recursiveRef', NO_DYNAMIC],
  ['$recursiveAnchor', NO_DYNAMIC],
  ['$vocabulary', 'other vocabularies than those of draft 2020-12 are not supported'],
  // Keywords of earlier drafts and of OpenAPI 3.0.
  ['id', 'is no keyword of draft 2020-12; names of schemas are not supported'],
  ['additionalItems', 'is no keyword of draft 2020-12; use "items" beside "prefixItems"'],
  ['dependencies', 'is no keyword of draft 2020-12; use "dependentRequired" or "dependentSchemas"'],
  ['nullable', 'is no keyword of JSON Schema; add "null" to "type"'],
]);

type Node = Readonly<Record<string, unknown>>;

function isNode(value: unknown): value is Node {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The schemas in a keyword's value, each with its pointer. */
function schemasOf(
  keyword: string,
  value: unknown,
): (readonly [place: readonly string[], schema: unknown])[] {
  if (ONE_SCHEMA.has(keyword)) return [[[], value]];
  if (SCHEMA_LISTS.has(keyword) && Array.isArray(value))
    return value.map((schema, at) => [[String(at)], schema]);
  if (SCHEMA_MAPS.has(keyword) && isNode(value))
    return Object.entries(value).map(([name, schema]) => [[name], schema]);
  return [];
}

/**
 * Calls back for the schema and every subschema; references are not followed.
 *
 * @param place the same array in each call, valid during the call: copy it to keep it.
 */
export function walkSchemas(
  schema: unknown,
  visit: (schema: unknown, place: readonly string[]) => void,
  place: string[] = [],
): void {
  visit(schema, place);
  if (!isNode(schema)) return;
  const { length } = place;
  for (const [keyword, value] of Object.entries(schema))
    for (const [at, one] of schemasOf(keyword, value)) {
      place.push(keyword, ...at);
      walkSchemas(one, visit, place);
      place.length = length;
    }
}

/** Total length of the pointers to all subschemas, which Ajv writes down one by one. */
export function lengthOfPlaces(schema: Node): number {
  let length = 0;
  walkSchemas(schema, (_one, place) => {
    for (const part of place) length += part.length + 1;
  });
  return length;
}

/**
 * Finds a keyword that is refused or unknown, or a reference to something other than a schema. The form of
 * the schema was checked before.
 */
export function faultOfKeywords(schema: Node): FieldFault | undefined {
  return firstFault(schema, (one) => faultOfNames(one) ?? faultOfTarget(one, schema));
}

/** Finds keywords that conflict. The schema's references end and resolve. */
export function faultOfCombinations(schema: Node): FieldFault | undefined {
  return firstFault(schema, (one) => faultOfCombination(one, schema));
}

function firstFault(schema: Node, faultOf: (one: Node) => string | undefined): FieldFault | undefined {
  let fault: FieldFault | undefined;
  walkSchemas(schema, (one, place) => {
    const message = fault === undefined && isNode(one) ? faultOf(one) : undefined;
    if (message !== undefined) fault = { path: ['body.schema', ...place].join('.'), message };
  });
  return fault;
}

function faultOfNames(schema: Node): string | undefined {
  for (const keyword of Object.keys(schema)) {
    const reason = REFUSED_KEYWORDS.get(keyword);
    if (reason !== undefined) return `${keyword}: ${reason}`;
    const sets = [PLAIN, ONE_SCHEMA, SCHEMA_LISTS, SCHEMA_MAPS];
    if (!sets.some((known) => known.has(keyword))) return `${keyword}: unknown keyword`;
    if (SCHEMA_MAPS.has(keyword) && Object.hasOwn(schema[keyword] as object, '__proto__'))
      return `${keyword}: must not name "__proto__", which no document has`;
  }
  return undefined;
}

/**
 * Keywords that have no effect without another one. A schema with one of them alone is a mistake of its
 * author.
 */
const COMPANIONS: readonly (readonly [keyword: string, ...companions: string[]])[] = [
  ['if', 'then', 'else'],
  ['then', 'if'],
  ['else', 'if'],
  ['minContains', 'contains'],
  ['maxContains', 'contains'],
];

function faultOfCombination(schema: Node, root: Node): string | undefined {
  for (const [keyword, ...companions] of COMPANIONS)
    if (keyword in schema && !companions.some((companion) => companion in schema))
      return `${keyword}: has no effect without ${companions.map((name) => `"${name}"`).join(' or ')}`;
  const { minContains, maxContains } = schema;
  if (minContains === 0 && maxContains === undefined)
    return 'minContains: 0 without "maxContains" leaves "contains" without effect';
  if (Number(minContains ?? 1) > Number(maxContains)) return 'minContains: is more than "maxContains"';
  if ('unevaluatedItems' in schema && appliesContains(schema, root))
    return 'unevaluatedItems: is not supported beside "contains" for the same array';
  return undefined;
}

/** Keywords whose schemas apply to the same value and pass on which parts they have evaluated. */
const IN_PLACE = ['allOf', 'anyOf', 'oneOf', 'if', 'then', 'else', 'dependentSchemas'] as const;

/** Whether `contains` applies to the schema's own value, references followed. */
function appliesContains(schema: unknown, root: Node): boolean {
  if (!isNode(schema)) return false;
  if ('contains' in schema) return true;
  const { $ref } = schema;
  if (typeof $ref === 'string' && appliesContains(resolvePointer(root, $ref), root)) return true;
  return IN_PLACE.some((keyword) =>
    schemasOf(keyword, schema[keyword]).some(([, one]) => appliesContains(one, root)),
  );
}

/** Ignores pointers that leave the schema or do not resolve: the walk along references finds those. */
function faultOfTarget({ $ref }: Node, root: Node): string | undefined {
  if (typeof $ref !== 'string' || !$ref.startsWith('#/') || $ref.includes('%')) return undefined;
  return leadsToSchema($ref, root) ? undefined : '$ref: must lead to a schema';
}

/**
 * Follows the pointer through keywords that contain only schemas. Listing all pointers instead could take the
 * square of the schema's size.
 */
function leadsToSchema(pointer: string, root: Node): boolean {
  const parts = pointerParts(pointer);
  let node: unknown = root;
  for (let at = 0; at < parts.length; at++) {
    const keyword = parts[at] ?? '';
    if (!isNode(node) || !Object.hasOwn(node, keyword)) return false;
    node = node[keyword];
    if (ONE_SCHEMA.has(keyword)) continue;
    if (!SCHEMA_LISTS.has(keyword) && !SCHEMA_MAPS.has(keyword)) return false;
    const name = parts[++at];
    if (name === undefined || !Object.hasOwn(node as object, name)) return false;
    node = (node as Record<string, unknown>)[name];
  }
  // Rejects other values, such as the length of a list.
  return isNode(node) || typeof node === 'boolean';
}
