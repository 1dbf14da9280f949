/** Keywords whose schema is held against each element or member of a value. */
const REPEATED: ReadonlySet<string> = new Set([
  'items',
  'contains',
  'additionalProperties',
  'propertyNames',
  'unevaluatedItems',
  'unevaluatedProperties',
]);
/** Keywords whose schemas are each tried; those that fail cost most. */
const TRIED: ReadonlySet<string> = new Set(['anyOf', 'oneOf', 'allOf', 'not', 'if']);
/** Keywords whose members are schemas by name. */
const BY_NAME: ReadonlySet<string> = new Set(['properties', 'dependentSchemas']);
/** Keywords that hold no schema, or one that counts where a reference leads to it. */
const PASSED: ReadonlySet<string> = new Set(['enum', 'const', 'default', 'examples', '$defs', 'definitions']);

/**
 * Schemas that are tried, one after the other, on each element of an array or member of an object, references followed.
 *
 * @param schema has references that end, and lead somewhere.
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
      const schemas: unknown[] =
        Array.isArray(member) || BY_NAME.has(name) ? Object.values(member as object) : [member];
      if (isRepeated && TRIED.has(name)) count += schemas.length;
      for (const one of schemas) visit(one, isRepeated || REPEATED.has(name));
    }
  };
  visit(schema, false);
  return count;
}

/** Whether a value has more values in it than that; itself, elements and members counted. */
export function hasMoreValuesThan(value: unknown, max: number): boolean {
  let left = max;
  const visit = (node: unknown): boolean => {
    if (--left < 0) return true;
    if (typeof node !== 'object' || node === null) return false;
    if (Array.isArray(node)) return node.some(visit);
    for (const name in node) if (visit((node as Record<string, unknown>)[name])) return true;
    return false;
  };
  return visit(value);
}

/** What a pointer `#/…` leads to; undefined when that is nowhere. */
export function resolvePointer(schema: unknown, pointer: string): unknown {
  let node = schema;
  for (const part of pointer.slice(2).split('/')) {
    const name = part.replaceAll('~1', '/').replaceAll('~0', '~');
    if (typeof node !== 'object' || node === null || !Object.hasOwn(node, name)) return undefined;
    node = (node as Record<string, unknown>)[name];
  }
  return node;
}
