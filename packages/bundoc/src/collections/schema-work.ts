/** Keywords whose schema applies to each element or member of a value. */
const REPEATED: ReadonlySet<string> = new Set([
  'items',
  'contains',
  'additionalProperties',
  'propertyNames',
  'unevaluatedItems',
  'unevaluatedProperties',
]);
/** Keywords that try each of their schemas; those that fail cost most. */
const TRIED: ReadonlySet<string> = new Set(['anyOf', 'oneOf', 'allOf', 'not', 'if']);
/** Keywords whose members are schemas by name. */
const BY_NAME: ReadonlySet<string> = new Set(['properties', 'dependentSchemas']);
/** Keywords without a schema, or whose schemas count only where a reference leads to them. */
const PASSED: ReadonlySet<string> = new Set(['enum', 'const', 'default', 'examples', '$defs', 'definitions']);

/**
 * The number of schemas tried one after the other on each element of an array or member of an object,
 * references followed.
 *
 * @param schema has references that end and resolve.
 */
export function repeatedAlternatives(schema: Readonly<Record<string, unknown>>): number {
  let count = 0;
  const visit = (node: unknown, isRepeated: boolean): void => {
    if (typeof node !== 'object' || node === null) return;
    for (const [name, member] of Object.entries(node)) {
      if (PASSED.has(name)) continue;
      if (name === '$ref') {
        visit(resolvePointer(schema, String(member)), isRepeated);
        continue;
      }
      const schemas = schemasIn(name, member);
      if (isRepeated && TRIED.has(name)) count += schemas.length;
      for (const one of schemas) visit(one, isRepeated || REPEATED.has(name));
    }
  };
  visit(schema, false);
  return count;
}

/** Keywords that themselves visit each element, member or character of a value. */
const WALKS: ReadonlySet<string> = new Set([
  ...REPEATED,
  'uniqueItems',
  'enum',
  'minProperties',
  'maxProperties',
  'minLength',
  'maxLength',
]);
/** Keywords that visit each digit of a number that a double cannot represent. */
const DIGIT_WALKS: ReadonlySet<string> = new Set([
  ...['minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum', 'multipleOf', 'const', 'type'],
]);
/** Keywords whose schemas apply to the value itself. */
const OF_THE_VALUE: ReadonlySet<string> = new Set([
  ...['allOf', 'anyOf', 'oneOf', 'not', 'if', 'then', 'else', 'dependentSchemas'],
]);
/** Keywords that look up members by name. */
const NAMING: ReadonlySet<string> = new Set([
  ...['properties', 'required', 'dependentRequired', 'dependentSchemas'],
]);
/** Lookups by name that cost as much as one visit to a value. */
const NAMES_OF_ONE_WALK = 64;

/** The work at one place in documents, and at the places below it by name and for every element or member. */
interface Place {
  walks: number;
  readonly named: Map<string, Place>;
  each: Place | undefined;
}

/**
 * The maximum number of times that a check visits one value of a document. It counts the keywords that
 * iterate over the value's containers, side by side or nested, with references followed. Keywords for
 * different places do not add up.
 *
 * @param schema has references that end and resolve.
 * @param hasLongNumbers whether keywords that visit the digits of numbers count as well.
 */
export function walksOverOneValue(schema: Readonly<Record<string, unknown>>, hasLongNumbers = false): number {
  const root = newPlace();
  const visit = (place: Place, node: unknown): void => {
    if (typeof node !== 'object' || node === null) return;
    for (const [keyword, member] of Object.entries(node)) {
      if (
        WALKS.has(keyword) ||
        isWalkingConstant(keyword, member) ||
        (hasLongNumbers && DIGIT_WALKS.has(keyword))
      )
        place.walks++;
      if (keyword === '$ref') visit(place, resolvePointer(schema, String(member)));
      else if (REPEATED.has(keyword)) {
        place.each ??= newPlace();
        visit(place.each, member);
      } else if (OF_THE_VALUE.has(keyword)) for (const one of schemasIn(keyword, member)) visit(place, one);
      else if (keyword === 'properties' || keyword === 'prefixItems')
        for (const [name, one] of Object.entries(member as object)) visit(childPlace(place, name), one);
      if (NAMING.has(keyword)) place.walks += Object.keys(member as object).length / NAMES_OF_ONE_WALK;
    }
  };
  visit(root, schema);
  return heaviest(root);
}

/**
 * Whether a constant is an object or array, so that each member of a value is visited. Any other constant
 * needs one comparison.
 */
function isWalkingConstant(keyword: string, constant: unknown): boolean {
  return keyword === 'const' && typeof constant === 'object' && constant !== null;
}

function schemasIn(keyword: string, member: unknown): unknown[] {
  return Array.isArray(member) || BY_NAME.has(keyword) ? Object.values(member as object) : [member];
}

function newPlace(): Place {
  return { walks: 0, named: new Map(), each: undefined };
}

function childPlace(place: Place, name: string): Place {
  const named = place.named.get(name) ?? newPlace();
  place.named.set(name, named);
  return named;
}

/** A value is in at most one named place, and in the place for every element. */
function heaviest({ walks, named, each }: Place): number {
  const below = Math.max(0, ...[...named.values()].map(heaviest));
  return walks + below + (each === undefined ? 0 : heaviest(each));
}

/** Characters of a string, or digits of a number, that count as one more value. */
export const CHARACTERS_OF_ONE_VALUE = 64;

/**
 * Whether a value contains more than `max` values: itself, its elements and members, and long strings by
 * their length.
 */
export function hasMoreValuesThan(value: unknown, max: number): boolean {
  let left = max;
  const visit = (node: unknown): boolean => {
    left -= typeof node === 'string' ? 1 + Math.floor(node.length / CHARACTERS_OF_ONE_VALUE) : 1;
    if (left < 0) return true;
    if (typeof node !== 'object' || node === null) return false;
    if (Array.isArray(node)) return node.some(visit);
    for (const name in node) if (visit((node as Record<string, unknown>)[name])) return true;
    return false;
  };
  return visit(value);
}

/** The names along a pointer `#/…`. */
export function pointerParts(pointer: string): string[] {
  return pointer
    .slice(2)
    .split('/')
    .map((part) => part.replaceAll('~1', '/').replaceAll('~0', '~'));
}

/** Resolves a pointer `#/…`; undefined when it leads nowhere. */
export function resolvePointer(schema: unknown, pointer: string): unknown {
  let node = schema;
  for (const name of pointerParts(pointer)) {
    if (typeof node !== 'object' || node === null || !Object.hasOwn(node, name)) return undefined;
    node = (node as Record<string, unknown>)[name];
  }
  return node;
}

/**
 * The number of values in a schema, where each reference counts its target again; counting ends beyond `max`.
 *
 * @param schema may be anything: its references need not end.
 */
export function valuesOfSchema(schema: Readonly<Record<string, unknown>>, max: number): number {
  let count = 0;
  const visit = (node: unknown): void => {
    if (++count > max || typeof node !== 'object' || node === null) return;
    for (const [name, member] of Object.entries(node)) {
      if (name === '$ref' && typeof member === 'string') visit(resolvePointer(schema, member));
      else visit(member);
      if (count > max) return;
    }
  };
  visit(schema);
  return count;
}
