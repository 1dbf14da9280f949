/**
 * A second, slow evaluator of JSON Schema, written from the draft alone for the tests to compare with. It
 * shares no code with `collections/`, computes with integers, and keeps the annotations of the draft as it
 * describes them.
 */
import { type Naive, naiveCompare, naiveOf } from './naive-query.ts';

type Schema = boolean | Readonly<Record<string, unknown>>;

/**
 * What of a value was evaluated: names of members, places of elements. `undefined` for a schema that the
 * value does not meet.
 */
type Evaluated = ReadonlySet<string | number> | undefined;

/** Whether a value meets a schema. References lead to `#/$defs/NAME` of the root. */
export function naiveMeets(root: Schema, value: Naive): boolean {
  return evaluate(root, value) !== undefined;

  function evaluate(schema: Schema, v: Naive): Evaluated {
    if (typeof schema === 'boolean') return schema ? new Set() : undefined;
    const evaluated = new Set<string | number>();
    const apply = (one: unknown): boolean => {
      const result = evaluate(one as Schema, v);
      for (const part of result ?? []) evaluated.add(part);
      return result !== undefined;
    };
    const meets = (one: unknown, part: Naive): boolean => evaluate(one as Schema, part) !== undefined;
    const list = (keyword: string) => (schema[keyword] ?? []) as readonly unknown[];
    const map = (keyword: string) => Object.entries((schema[keyword] ?? {}) as object);
    const has = (keyword: string) => Object.hasOwn(schema, keyword);
    const naive = (keyword: string) => naiveOf(JSON.stringify(schema[keyword]));
    const number = (keyword: string) => Number(schema[keyword]);
    let isMet = true;
    const require = (holds: boolean) => {
      isMet &&= holds;
    };

    if (has('$ref')) require(apply(definition(String(schema['$ref']))));
    if (has('type')) require([schema['type']].flat().some((type) => isOf(String(type), v)));
    if (has('const')) require(naiveCompare(v, naive('const')) === 0);
    if (has('enum')) require((naive('enum') as readonly Naive[]).some((one) => naiveCompare(v, one) === 0));
    for (const one of list('allOf')) require(apply(one));
    if (has('anyOf')) require(list('anyOf').filter(apply).length > 0);
    if (has('oneOf')) require(list('oneOf').filter(apply).length === 1);
    if (has('not')) require(!meets(schema['not'], v));
    if (has('if')) {
      const branch = apply(schema['if']) ? 'then' : 'else';
      if (has(branch)) require(apply(schema[branch]));
    }

    if (typeof v === 'object' && v !== null && 'n' in v) {
      if (has('minimum')) require(naiveCompare(v, naive('minimum')) >= 0);
      if (has('maximum')) require(naiveCompare(v, naive('maximum')) <= 0);
      if (has('exclusiveMinimum')) require(naiveCompare(v, naive('exclusiveMinimum')) > 0);
      if (has('exclusiveMaximum')) require(naiveCompare(v, naive('exclusiveMaximum')) < 0);
      if (has('multipleOf')) require(v.n % (naive('multipleOf') as { n: bigint }).n === 0n);
    } else if (Array.isArray(v)) {
      const elements = v as readonly Naive[];
      const first = list('prefixItems');
      first.forEach((one, at) => {
        if (at >= elements.length) return;
        evaluated.add(at);
        require(meets(one, elements[at] as Naive));
      });
      elements.forEach((element, at) => {
        if (!has('items') || at < first.length) return;
        evaluated.add(at);
        require(meets(schema['items'], element));
      });
      if (has('contains')) {
        const found = elements.flatMap((element, at) => (meets(schema['contains'], element) ? [at] : []));
        for (const at of found) evaluated.add(at);
        require(found.length >= (has('minContains') ? number('minContains') : 1));
        if (has('maxContains')) require(found.length <= number('maxContains'));
      }
      if (has('minItems')) require(elements.length >= number('minItems'));
      if (schema['uniqueItems'] === true)
        require(elements.every((a, at) => elements.findIndex((b) => naiveCompare(a, b) === 0) === at));
      elements.forEach((element, at) => {
        if (!has('unevaluatedItems') || evaluated.has(at)) return;
        evaluated.add(at);
        require(meets(schema['unevaluatedItems'], element));
      });
    } else if (v instanceof Map) {
      const members = v as ReadonlyMap<string, Naive>;
      for (const [name, one] of map('properties')) {
        if (!members.has(name)) continue;
        evaluated.add(name);
        require(meets(one, members.get(name) as Naive));
      }
      const named = map('properties').map(([name]) => name);
      for (const [name, member] of members) {
        if (!has('additionalProperties') || named.includes(name)) continue;
        evaluated.add(name);
        require(meets(schema['additionalProperties'], member));
      }
      for (const name of list('required')) require(members.has(String(name)));
      for (const [name, names] of map('dependentRequired'))
        if (members.has(name)) require((names as string[]).every((one) => members.has(one)));
      for (const [name, one] of map('dependentSchemas')) if (members.has(name)) require(apply(one));
      if (has('propertyNames'))
        for (const name of members.keys()) require(meets(schema['propertyNames'], name));
      if (has('maxProperties')) require(members.size <= number('maxProperties'));
      for (const [name, member] of members) {
        if (!has('unevaluatedProperties') || evaluated.has(name)) continue;
        evaluated.add(name);
        require(meets(schema['unevaluatedProperties'], member));
      }
    }
    return isMet ? evaluated : undefined;
  }

  function definition(pointer: string): Schema {
    const { $defs } = root as { $defs: Record<string, Schema> };
    return $defs[pointer.slice('#/$defs/'.length)] as Schema;
  }
}

const UNIT = (naiveOf('1') as { n: bigint }).n;

function isOf(type: string, v: Naive): boolean {
  if (v === null || typeof v !== 'object') return type === (v === null ? 'null' : typeof v);
  if ('n' in v) return type === 'number' || (type === 'integer' && v.n % UNIT === 0n);
  return type === (Array.isArray(v) ? 'array' : 'object');
}
