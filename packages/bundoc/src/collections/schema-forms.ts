import type { ObjectValue, Value } from '../values/value.ts';
import type { Subschema } from './schema-evaluation.ts';

/** A keyword's place in a schema that is being compiled. */
export interface KeywordPlace {
  /** The schema that has the keyword. */
  readonly schema: Readonly<Record<string, unknown>>;
  /** Compiles a schema in the keyword's value. @param names its place there. */
  readonly subschema: (schema: unknown, ...names: string[]) => Subschema;
  /** Compiles the schema that a reference leads to. */
  readonly target: (pointer: string) => Subschema;
  /** @throws AppError `invalid_request`. */
  readonly refuse: (reason: string) => never;
}

/** Checks the value of a keyword and prepares it for use. @throws AppError `invalid_request`. */
export type Form<T> = (value: unknown, place: KeywordPlace) => T;

function form<T>(name: string, has: (value: unknown) => value is T): Form<T> {
  return (value, place) => (has(value) ? value : place.refuse(`must be ${name}`));
}

const TYPES = ['null', 'boolean', 'number', 'integer', 'string', 'array', 'object'];
const DRAFT = 'https://json-schema.org/draft/2020-12/schema';

export const aDraft = form(`${DRAFT}, or absent`, (value) => value === DRAFT);
export const aString = form('a string', (value) => typeof value === 'string');
export const aBoolean = form('a boolean', (value) => typeof value === 'boolean');
export const aNumber = form('a number', (value) => typeof value === 'number');
export const aDivisor = form(
  'a number above 0',
  (value): value is number => typeof value === 'number' && value > 0,
);
export const aCount = form(
  'an integer from 0 to 9007199254740991',
  (value): value is number => Number.isSafeInteger(value) && Number(value) >= 0,
);
export const anArray = form('an array', (value): value is readonly Value[] => Array.isArray(value));
const anObject = form(
  'an object',
  (value): value is ObjectValue => typeof value === 'object' && value !== null && !Array.isArray(value),
);
export const names = form('an array of different strings', areNames);

function areNames(value: unknown): value is readonly string[] {
  if (!Array.isArray(value) || new Set(value).size < value.length) return false;
  return value.every((name) => typeof name === 'string');
}

export const types: Form<readonly string[]> = (value, place) => {
  const all = names([value].flat(), place);
  const areTypes = all.length > 0 && all.every((type) => TYPES.includes(type));
  return areTypes ? all : place.refuse(`must be one of ${TYPES.join(', ')}, or an array of different ones`);
};

/** Pairs of a name and one that it requires. */
export const dependencies: Form<readonly (readonly [name: string, other: string])[]> = (value, place) =>
  Object.entries(anObject(value, place)).flatMap(([name, others]) =>
    names(others, place).map((other) => [name, other] as const),
  );

export const schema: Form<Subschema> = (value, { subschema }) => subschema(value);

export const schemas: Form<readonly Subschema[]> = (value, { subschema, refuse }) =>
  Array.isArray(value) && value.length > 0
    ? value.map((one, at) => subschema(one, String(at)))
    : refuse('must be an array of at least one schema');

export const namedSchemas: Form<readonly (readonly [string, Subschema])[]> = (value, place) =>
  Object.entries(anObject(value, place)).map(([name, one]) => [name, place.subschema(one, name)] as const);

export const reference: Form<Subschema> = (value, place) => place.target(aString(value, place));
