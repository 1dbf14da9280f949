import { compareNumbers, type Decimal } from '@bundoc/shared/json/decimal';
import { encodeExactly, encodeKeyPart, KEY_PART_MAX } from '../values/key.ts';
import { type ObjectValue, type TypeName, typeOf, type Value, weightOf } from '../values/value.ts';
import { isInteger, multiplesOf } from './exact-numbers.ts';
import type { Assertion, EvaluatedParts, Evaluation } from './schema-evaluation.ts';
import type { Form, KeywordPlace } from './schema-forms.ts';
import * as forms from './schema-forms.ts';

export interface Keyword {
  /** Values of other types meet it. Undefined for every type. */
  readonly type?: TypeName | undefined;
  /** @returns undefined for an annotation, or a keyword that another one reads. */
  readonly compile: (value: unknown, place: KeywordPlace) => Assertion | undefined;
}

/** @param holds receives the keyword's prepared value and the value that it is applied to. */
function keyword<P, T>(
  type: TypeName | undefined,
  form: Form<P>,
  holds: (prepared: P, value: T, evaluation: Evaluation, evaluated: EvaluatedParts | undefined) => boolean,
): Keyword {
  return {
    type,
    compile: (value, place) => {
      const prepared = form(value, place);
      return (one, evaluation, evaluated) => holds(prepared, one as T, evaluation, evaluated);
    },
  };
}

type Holds<P, T> = Parameters<typeof keyword<P, T>>[2];
const onAll = <P>(form: Form<P>, holds: Holds<P, Value>) => keyword(undefined, form, holds);
const onNumbers = <P>(form: Form<P>, holds: Holds<P, number | Decimal>) => keyword('number', form, holds);
const onArrays = <P>(form: Form<P>, holds: Holds<P, readonly Value[]>) => keyword('array', form, holds);
const onObjects = <P>(form: Form<P>, holds: Holds<P, ObjectValue>) => keyword('object', form, holds);

/** Keywords that assert nothing themselves. */
function annotations(form: Form<unknown>, ...names: string[]): (readonly [string, Keyword])[] {
  return names.map((name) => [name, { compile: (value, place) => void form(value, place) }]);
}

function limit(sign: string, holds: (order: number) => boolean): Keyword {
  return onNumbers(
    forms.aNumber,
    (bound, number, evaluation) =>
      holds(compareNumbers(number, bound)) || evaluation.fail(`must be ${sign} ${bound}`),
  );
}

/** A lower and an upper bound on the length of something. */
function bounds<T>(
  [min, max]: readonly [string, string],
  type: TypeName,
  unit: string,
  lengthOf: (value: T, evaluation: Evaluation) => number,
): (readonly [string, Keyword])[] {
  const bound = (words: string, holds: (length: number, count: number) => boolean) =>
    keyword<number, T>(
      type,
      forms.aCount,
      (count, value, evaluation) =>
        holds(lengthOf(value, evaluation), count) || evaluation.fail(`must have ${words} ${count} ${unit}`),
    );
  return [
    [min, bound('at least', (length, count) => length >= count)],
    [max, bound('at most', (length, count) => length <= count)],
  ];
}

/** The number of code points. */
function codePointsOf(text: string): number {
  let { length } = text;
  for (let at = 1; at < text.length; at++)
    if ((text.charCodeAt(at) & 0xfc00) === 0xdc00 && (text.charCodeAt(at - 1) & 0xfc00) === 0xd800) length--;
  return length;
}

function countMembers(object: ObjectValue, evaluation: Evaluation): number {
  const { length } = Object.keys(object);
  evaluation.count(length);
  return length;
}

/** Steps for each value that is encoded. */
const STEPS_OF_ENCODING = 8;

/** Equal values have equal texts. */
function encode(value: Value, evaluation: Evaluation): string {
  evaluation.count(weightOf(value) * STEPS_OF_ENCODING);
  return encodeExactly(value);
}

/** {@link encode} with a bounded length. */
function encodeShortly(value: Value, evaluation: Evaluation): string {
  evaluation.count(weightOf(value) * STEPS_OF_ENCODING);
  return encodeKeyPart(value);
}

/** Values that are equal exactly if JavaScript says so. All other numbers are objects. */
function isPlain(value: Value): boolean {
  return typeof value !== 'object' || value === null;
}

/** Looks values up instead of comparing them with each constant. */
function equality(form: Form<readonly Value[]>, fault: string): Keyword {
  const prepare = (value: unknown, place: KeywordPlace) => {
    const constants = form(value, place);
    const others = constants.filter((constant) => !isPlain(constant));
    return { plain: new Set(constants), encoded: new Set(others.map(encodeExactly)) };
  };
  return onAll(prepare, ({ plain, encoded }, value, evaluation) => {
    const isOne = isPlain(value)
      ? plain.has(value)
      : encoded.size > 0 && encoded.has(encode(value, evaluation));
    return isOne || evaluation.fail(fault);
  });
}

function areUnique(elements: readonly Value[], evaluation: Evaluation): boolean {
  evaluation.count(elements.length * STEPS_OF_ENCODING);
  const plain = elements.filter(isShort);
  const others = elements.filter((element) => !isShort(element));
  // Short, because a set compares each pair of long texts of one length: V8 gives them one hash.
  const keys = new Set(others.map((element) => encodeShortly(element, evaluation)));
  return new Set(plain).size + keys.size === elements.length;
}

/** A {@link isPlain plain} value, but no long text. */
function isShort(value: Value): boolean {
  return isPlain(value) && !(typeof value === 'string' && value.length > KEY_PART_MAX);
}

function isOf(types: readonly string[], value: Value): boolean {
  const type = typeOf(value);
  if (types.includes(type)) return true;
  return type === 'number' && types.includes('integer') && isInteger(value as number | Decimal);
}

type Passes<K> = (place: KeywordPlace) => (key: K, evaluated?: EvaluatedParts) => boolean;

/** A schema for the elements or members that another keyword does not leave out. */
function rest<K>(passes: Passes<K>) {
  return (value: unknown, place: KeywordPlace) => ({
    schema: place.subschema(value),
    isPassed: passes(place),
  });
}

function ofElements(passes: Passes<number>): Keyword {
  return onArrays(rest(passes), ({ schema, isPassed }, elements, evaluation, evaluated) =>
    evaluation.each(
      elements,
      (element, at) => isPassed(at, evaluated) || evaluation.partMeets(schema, element, at, evaluated),
    ),
  );
}

function ofMembers(passes: Passes<string>): Keyword {
  return onObjects(rest(passes), ({ schema, isPassed }, object, evaluation, evaluated) =>
    evaluation.each(
      Object.keys(object),
      (name) =>
        isPassed(name, evaluated) || evaluation.partMeets(schema, object[name] as Value, name, evaluated),
    ),
  );
}

const unlessEvaluated: Passes<string | number> = () => (key, evaluated) => evaluated?.has(key) === true;

/** @param decided the number of schemas met after which the others no longer matter. */
function choice(decided: number, fault: string, holds: (met: number) => boolean): Keyword {
  return onAll(forms.schemas, (schemas, value, evaluation, evaluated) => {
    let met = 0;
    for (const schema of schemas) {
      if (met === decided && evaluated === undefined) break;
      if (evaluation.wouldMeet(schema, value, evaluated)) met++;
    }
    if (holds(met)) return true;
    // Evaluates them again for their faults, if those are wanted.
    if (met === 0 && !evaluation.hasEnough) for (const schema of schemas) evaluation.meets(schema, value);
    return evaluation.fail(fault);
  });
}

/** In the order of their application. */
export const KEYWORDS: ReadonlyMap<string, Keyword> = new Map<string, Keyword>([
  ...annotations(forms.aDraft, '$schema'),
  ...annotations(
    forms.aString,
    '$comment',
    'title',
    'description',
    'format',
    'contentEncoding',
    'contentMediaType',
  ),
  ...annotations(forms.aBoolean, 'deprecated', 'readOnly', 'writeOnly'),
  ...annotations(forms.anArray, 'examples'),
  ...annotations(() => undefined, 'default'),
  ...annotations(forms.aCount, 'minContains', 'maxContains'),
  ...annotations(forms.schema, 'contentSchema', 'then', 'else'),
  ...annotations(forms.namedSchemas, '$defs', 'definitions'),
  ...bounds(['minLength', 'maxLength'], 'string', 'characters', codePointsOf),
  ...bounds(['minItems', 'maxItems'], 'array', 'elements', ({ length }: readonly Value[]) => length),
  ...bounds(['minProperties', 'maxProperties'], 'object', 'members', countMembers),
  ...Object.entries({
    type: onAll(
      forms.types,
      (types, value, evaluation) => isOf(types, value) || evaluation.fail(`must be ${types.join(' or ')}`),
    ),
    const: equality((value) => [value as Value], 'must be equal to constant'),
    enum: equality(forms.anArray, 'must be equal to one of the allowed values'),
    minimum: limit('>=', (order) => order >= 0),
    maximum: limit('<=', (order) => order <= 0),
    exclusiveMinimum: limit('>', (order) => order > 0),
    exclusiveMaximum: limit('<', (order) => order < 0),
    multipleOf: onNumbers(
      (value, place) => {
        const divisor = forms.aDivisor(value, place);
        return { divisor, isMultiple: multiplesOf(divisor) };
      },
      ({ divisor, isMultiple }, number, evaluation) =>
        isMultiple(number) || evaluation.fail(`must be multiple of ${divisor}`),
    ),
    uniqueItems: onArrays(
      forms.aBoolean,
      (isWanted, elements, evaluation) =>
        !isWanted || areUnique(elements, evaluation) || evaluation.fail('must not have duplicate elements'),
    ),
    required: onObjects(forms.names, (names, object, evaluation) =>
      evaluation.each(
        names,
        (name) => Object.hasOwn(object, name) || evaluation.fail(`must have the member ${name}`),
      ),
    ),
    dependentRequired: onObjects(forms.dependencies, (pairs, object, evaluation) =>
      evaluation.each(
        pairs,
        ([name, other]) =>
          !Object.hasOwn(object, name) ||
          Object.hasOwn(object, other) ||
          evaluation.fail(`must have the member ${other} beside ${name}`),
      ),
    ),

    $ref: onAll(forms.reference, (schema, value, evaluation, evaluated) =>
      evaluation.meets(schema, value, evaluated),
    ),
    properties: onObjects(forms.namedSchemas, (schemas, object, evaluation, evaluated) =>
      evaluation.each(
        schemas,
        ([name, schema]) =>
          !Object.hasOwn(object, name) ||
          evaluation.partMeets(schema, object[name] as Value, name, evaluated),
      ),
    ),
    additionalProperties: ofMembers(({ schema }) => {
      const known = new Set(Object.keys(schema['properties'] ?? {}));
      return (name) => known.has(name);
    }),
    propertyNames: onObjects(forms.schema, (schema, object, evaluation) =>
      evaluation.each(Object.keys(object), (name) => evaluation.partMeets(schema, name, name)),
    ),
    prefixItems: onArrays(forms.schemas, (schemas, elements, evaluation, evaluated) =>
      evaluation.each(schemas.slice(0, elements.length), (schema, at) =>
        evaluation.partMeets(schema, elements[at] as Value, at, evaluated),
      ),
    ),
    items: ofElements(({ schema: { prefixItems } }) => {
      const first = Array.isArray(prefixItems) ? prefixItems.length : 0;
      return (at) => at < first;
    }),
    contains: onArrays(
      (value, place) => {
        const { minContains: min = 1, maxContains: max = Number.POSITIVE_INFINITY } = place.schema;
        return { schema: place.subschema(value), min: Number(min), max: Number(max) };
      },
      ({ schema, min, max }, elements, evaluation, evaluated) => {
        let found = 0;
        elements.forEach((element, at) => {
          if (!evaluation.wouldMeet(schema, element)) return;
          found++;
          evaluated?.add(at);
        });
        const range = max < Number.POSITIVE_INFINITY ? `${min} to ${max}` : `at least ${min}`;
        const isMet = found >= min && found <= max;
        return isMet || evaluation.fail(`must have ${range} elements that meet the schema of "contains"`);
      },
    ),
    allOf: onAll(forms.schemas, (schemas, value, evaluation, evaluated) =>
      evaluation.each(schemas, (schema) => evaluation.meets(schema, value, evaluated)),
    ),
    anyOf: choice(1, 'must meet at least one schema of "anyOf"', (met) => met > 0),
    oneOf: choice(2, 'must meet exactly one schema of "oneOf"', (met) => met === 1),
    not: onAll(
      forms.schema,
      (schema, value, evaluation) =>
        !evaluation.wouldMeet(schema, value) || evaluation.fail('must not meet the schema of "not"'),
    ),
    if: onAll(
      (value, { subschema, schema }) => ({
        condition: subschema(value),
        met: subschema(schema['then'] ?? true),
        unmet: subschema(schema['else'] ?? true),
      }),
      ({ condition, met, unmet }, value, evaluation, evaluated) =>
        evaluation.meets(evaluation.wouldMeet(condition, value, evaluated) ? met : unmet, value, evaluated),
    ),
    dependentSchemas: onObjects(forms.namedSchemas, (schemas, object, evaluation, evaluated) =>
      evaluation.each(
        schemas,
        ([name, schema]) => !Object.hasOwn(object, name) || evaluation.meets(schema, object, evaluated),
      ),
    ),
    // After all others, which evaluate what these must not.
    unevaluatedItems: ofElements(unlessEvaluated),
    unevaluatedProperties: ofMembers(unlessEvaluated),
  }),
]);

const NO_NAMES = 'names of schemas are not supported; refer to a place, "$ref": "#/$defs/…"';
const NO_DYNAMIC = 'dynamic references are not supported; use "$ref": "#/$defs/…"';
const REFUSED: readonly (readonly [reason: string, ...names: string[]])[] = [
  // One application may take any time.
  ['regular expressions are not supported', 'pattern', 'patternProperties'],
  [NO_NAMES, '$id', '$anchor'],
  [NO_DYNAMIC, '$dynamicRef', '$dynamicAnchor', '$recursiveRef', '$recursiveAnchor'],
  ['other vocabularies than those of draft 2020-12 are not supported', '$vocabulary'],
  // Keywords of earlier drafts and of OpenAPI 3.0.
  ['is no keyword of draft 2020-12; names of schemas are not supported', 'id'],
  ['is no keyword of draft 2020-12; use "items" beside "prefixItems"', 'additionalItems'],
  ['is no keyword of draft 2020-12; use "dependentRequired" or "dependentSchemas"', 'dependencies'],
  ['is no keyword of JSON Schema; add "null" to "type"', 'nullable'],
];
/** Refused keywords, with the reason. docs/collections.md gives the reasons; a test keeps the two equal. */
export const REFUSED_KEYWORDS: ReadonlyMap<string, string> = new Map(
  REFUSED.flatMap(([reason, ...names]) => names.map((name) => [name, reason] as const)),
);
