import { compareNumbers, type Decimal } from '@bundoc/shared/json/decimal';
import { type Ajv, type FuncKeywordDefinition, str } from 'ajv';
import type { DataValidationCxt } from 'ajv/dist/types/index.js';
import { encodeExactly } from '../values/key.ts';
import { typeOf, type Value } from '../values/value.ts';
import { type ExactNumbers, isInteger, multiplesOf } from './exact-numbers.ts';
import { walkSchemas } from './schema-keywords.ts';

/** The numbers of the document being checked that doubles cannot represent. */
export type Numbers = () => ExactNumbers;

type Schema = Readonly<Record<string, unknown>>;

/**
 * Replaces Ajv's comparing keywords with ones that compare values as queries do, and `multipleOf` with one on
 * decimals. Ajv compares every pair, or calls a document's own member `valueOf` or `constructor`.
 *
 * @param numbers absent for documents with only doubles of at most 15 digits, which order like decimals.
 */
export function addExactKeywords(ajv: Ajv, numbers: Numbers | undefined): void {
  const exactly = (value: unknown, at: DataValidationCxt | undefined): Value =>
    numbers === undefined
      ? (value as Value)
      : numbers().exactly(value, at?.parentData, at?.parentDataProperty);
  const keywords = [...equalityKeywords(exactly, numbers), multipleOf(exactly)];
  if (numbers !== undefined) keywords.push(...limits(exactly), exactType(exactly));
  for (const definition of keywords) {
    ajv.removeKeyword(definition.keyword as string);
    ajv.addKeyword(definition);
  }
}

type Exactly = (value: unknown, at: DataValidationCxt | undefined) => Value;

function equalityKeywords(exactly: Exactly, numbers: Numbers | undefined): FuncKeywordDefinition[] {
  return [
    {
      keyword: 'enum',
      schemaType: 'array',
      compile: (values: readonly Value[]) => {
        const texts = new Set(values.filter(isText));
        const others = new Set(values.filter((value) => !isText(value)).map(encodeExactly));
        return (value, at) =>
          isText(value) ? texts.has(value) : others.has(encodeExactly(exactly(value, at)));
      },
      error: { message: 'must be equal to one of the allowed values' },
    },
    {
      keyword: 'const',
      compile: (constant: Value) => {
        const isConstant = equalTo(constant, numbers);
        return (value, at) => isConstant(value, at?.parentData, at?.parentDataProperty);
      },
      error: { message: 'must be equal to constant' },
    },
    {
      keyword: 'uniqueItems',
      type: 'array',
      schemaType: 'boolean',
      compile: (isWanted: boolean) => (items, at) =>
        !isWanted || countDistinct(exactly(items, at) as readonly Value[]) === items.length,
      error: { message: 'must not have duplicate items' },
    },
  ];
}

/** Receives the value's location to look up its exact number. */
type IsEqual = (value: unknown, holder: unknown, name: string | number | undefined) => boolean;

/**
 * Returns a comparison with the constant. It reads no more of a value than the constant's size, and reads
 * members only if their number is equal.
 */
function equalTo(constant: Value, numbers: Numbers | undefined): IsEqual {
  if (typeof constant === 'number')
    return (value, holder, name) =>
      typeof value === 'number' &&
      compareNumbers(numbers?.().at(value, holder, name) ?? value, constant) === 0;
  if (typeof constant !== 'object' || constant === null) return (value) => value === constant;
  const isArray = Array.isArray(constant);
  const members = Object.entries(constant).map(
    ([member, one]) => [member, equalTo(one as Value, numbers)] as const,
  );
  const { length } = members;
  return (value) =>
    typeof value === 'object' &&
    value !== null &&
    Array.isArray(value) === isArray &&
    hasAsMany(value, length) &&
    members.every(
      ([member, isEqual]) =>
        Object.hasOwn(value, member) && isEqual((value as Record<string, unknown>)[member], value, member),
    );
}

function hasAsMany(value: object, count: number): boolean {
  if (Array.isArray(value)) return value.length === count;
  let left = count;
  for (const _ in value) if (--left < 0) return false;
  return left === 0;
}

/** The most frequent case: JavaScript equality is enough. */
function isText(value: unknown): value is string {
  return typeof value === 'string';
}

function countDistinct(values: readonly Value[]): number {
  return new Set(values.every(isText) ? values : values.map(encodeExactly)).size;
}

function multipleOf(exactly: Exactly): FuncKeywordDefinition {
  return {
    keyword: 'multipleOf',
    type: 'number',
    schemaType: 'number',
    compile: (divisor: number) => {
      const isMultiple = multiplesOf(divisor);
      return (number, at) => isMultiple(exactly(number, at) as number | Decimal);
    },
    error: { message: ({ schemaCode }) => str`must be multiple of ${schemaCode}` },
  };
}

const LIMITS: readonly (readonly [keyword: string, sign: string, isMet: (order: number) => boolean])[] = [
  ['minimum', '>=', (order) => order >= 0],
  ['maximum', '<=', (order) => order <= 0],
  ['exclusiveMinimum', '>', (order) => order > 0],
  ['exclusiveMaximum', '<', (order) => order < 0],
];

function limits(exactly: Exactly): FuncKeywordDefinition[] {
  return LIMITS.map(([keyword, sign, isMet]) => ({
    keyword,
    type: 'number',
    schemaType: 'number',
    compile: (limit: number) => (number, at) =>
      isMet(compareNumbers(exactly(number, at) as number | Decimal, limit)),
    error: { message: ({ schemaCode }) => str`must be ${sign} ${schemaCode}` },
  }));
}

/** Replaces `type` where that names `integer`: Ajv reads doubles, and this keyword cannot be overridden. */
const EXACT_TYPE = '$type';

function exactType(exactly: Exactly): FuncKeywordDefinition {
  return {
    keyword: EXACT_TYPE,
    schemaType: 'array',
    compile: (types: readonly string[]) => (value, at) => {
      const type = typeOf(value as Value);
      if (types.includes(type)) return true;
      return type === 'number' && isInteger(exactly(value, at) as number | Decimal);
    },
    error: { message: ({ schema }) => `must be ${(schema as readonly string[]).join(',')}` },
  };
}

/** The schema with `type` replaced for exact numbers, as {@link addExactKeywords} defines it. */
export function withExactTypes(schema: Schema): Schema {
  const copy = structuredClone(schema);
  walkSchemas(copy, (one) => {
    if (typeof one !== 'object' || one === null) return;
    const node = one as Record<string, unknown>;
    const types = [node['type']].flat();
    if (!types.includes('integer')) return;
    // For a schema that an earlier version accepted.
    if (node['nullable'] === true) types.push('null');
    delete node['nullable'];
    delete node['type'];
    node[EXACT_TYPE] = types;
  });
  return copy;
}
