import { AppError } from '@bundoc/shared/contract/app-error';
import type { FieldFault } from '@bundoc/shared/contract/problem';
import { Ajv2020, type ErrorObject, type ValidateFunction } from 'ajv/dist/2020.js';
import { addExactKeywords, type Numbers, withExactTypes } from './exact-keywords.ts';
import { ExactNumbers, type ReadDocument } from './exact-numbers.ts';
import { faultOfCombinations, faultOfKeywords, lengthOfPlaces, walkSchemas } from './schema-keywords.ts';
import {
  CHARACTERS_OF_ONE_VALUE,
  hasMoreValuesThan,
  repeatedAlternatives,
  resolvePointer,
  walksOverOneValue,
} from './schema-work.ts';
import { mendTuples } from './tuple-keyword.ts';
import { mendUnevaluated } from './unevaluated-keywords.ts';

type Schema = Readonly<Record<string, unknown>>;

/** Finds what is wrong with a document; nothing is an empty list. */
export type SchemaCheck = (read: ReadDocument) => readonly FieldFault[];

/** Keywords of Ajv that a schema never had, whichever build accepted it. */
const NEVER_ACCEPTED = [
  'pattern',
  'patternProperties',
  '$id',
  '$anchor',
  '$dynamicRef',
  '$dynamicAnchor',
  '$recursiveRef',
  '$recursiveAnchor',
];
/**
 * Values in a schema, those that its references lead to counted each time: bounds what one document is
 * checked against.
 */
export const SCHEMA_SIZE_MAX = 5_000;
const TOO_LARGE = `must have at most ${SCHEMA_SIZE_MAX} values, references followed`;
/**
 * Characters that a schema may have in the places of all schemas in it: Ajv takes part of a second for as
 * many.
 */
export const PLACES_MAX = 4_000_000;
/** Alternatives that a new schema may try on each element of an array or member of an object, in all. */
export const ALTERNATIVES_MAX = 100;
/** Looks at values of a document that one check may come to: each may take microseconds. */
export const WORK_MAX = 1_000_000;
/**
 * Faults that one answer lists, and bytes of a document up to which more than the first one is looked for.
 */
const FAULTS_MAX = 20;
const ALL_FAULTS_BYTES_MAX = 65_536;

/**
 * Makes a check of a JSON Schema (draft 2020-12, strict mode of Ajv, nothing fetched).
 *
 * @throws AppError `invalid_request` for a schema that is not accepted.
 */
export function compileSchema(schema: Schema): SchemaCheck {
  const fault =
    faultOfOwnSize(schema) ?? faultOfForm(schema) ?? faultOfPlaces(schema) ?? faultOfReferences(schema);
  if (fault !== undefined) throw refused(fault);
  const ofDoubles = new CompiledSchema(schema, undefined);
  let exact: CompiledSchema | undefined;
  let numbers: ExactNumbers | undefined;
  const present = (): ExactNumbers => {
    if (numbers === undefined) throw new Error('no document is being checked');
    return numbers;
  };
  const looks = repeatedAlternatives(schema) + walksOverOneValue(schema);
  return ({ document, numbers: exactNumbers, length = Number.POSITIVE_INFINITY }) => {
    // No value is shorter than what it counts for.
    const fault = length * looks <= WORK_MAX ? undefined : faultOfSize(document, looks);
    if (fault !== undefined) return [fault];
    if (exactNumbers === undefined) return ofDoubles.faultsOf(document);
    const faultOfNumbers = faultOfLongNumbers(schema, document, exactNumbers);
    if (faultOfNumbers !== undefined) return [faultOfNumbers];
    // Few documents have such numbers: those of most collections never do.
    exact ??= new CompiledSchema(schema, present);
    numbers = exactNumbers;
    try {
      return exact.faultsOf(document);
    } finally {
      numbers = undefined;
    }
  };
}

/** A check that stops at the first fault, and one that does not. */
class CompiledSchema {
  readonly #schema: Schema;
  readonly #numbers: Numbers | undefined;
  readonly #first: ValidateFunction;
  #all: ValidateFunction | undefined;

  constructor(schema: Schema, numbers: Numbers | undefined) {
    this.#schema = schema;
    this.#numbers = numbers;
    this.#first = compile(schema, numbers, false);
  }

  faultsOf(document: unknown): FieldFault[] {
    if (this.#first(document)) return [];
    if (JSON.stringify(document).length > ALL_FAULTS_BYTES_MAX) return faultsOf(this.#first.errors);
    // Compiled once a document is refused: most collections never need it.
    this.#all ??= compile(this.#schema, this.#numbers, true);
    this.#all(document);
    return faultsOf(this.#all.errors ?? this.#first.errors);
  }
}

function faultOfSize(document: unknown, looks: number, longNumbers = 0): FieldFault | undefined {
  const valuesMax = Math.floor(WORK_MAX / looks);
  if (looks === 0 || !hasMoreValuesThan(document, valuesMax - longNumbers)) return undefined;
  const message = `must have at most ${valuesMax} values: the schema may look at each ${Math.ceil(looks)} times`;
  return { path: '', message };
}

/** Of a document with numbers whose digits cost as much to look at as whole values do. */
function faultOfLongNumbers(
  schema: Schema,
  document: unknown,
  numbers: ExactNumbers,
): FieldFault | undefined {
  const more = numbers.timesDigits(CHARACTERS_OF_ONE_VALUE);
  if (more === 0) return undefined;
  return faultOfSize(document, repeatedAlternatives(schema) + walksOverOneValue(schema, true), more);
}

/**
 * Of a schema that somebody wants to define: it has no keyword that is refused. One that an earlier build
 * accepted stays what it is.
 *
 * @throws AppError `invalid_request`.
 */
export function requireKeywords(schema: Schema): void {
  const fault =
    faultOfOwnSize(schema) ??
    faultOfForm(schema) ??
    faultOfPlaces(schema) ??
    faultOfKeywords(schema) ??
    faultOfReferences(schema) ??
    faultOfCombinations(schema);
  if (fault === undefined) return;
  throw typeof fault === 'string' ? refused(fault) : refused(fault.message, undefined, fault.path);
}

/**
 * Of a schema that somebody wants to define. One that was defined before stays what it is. @throws AppError
 * `invalid_request`.
 */
export function requireFewAlternatives(schema: Schema): void {
  if (repeatedAlternatives(schema) > ALTERNATIVES_MAX)
    throw refused(
      `must try at most ${ALTERNATIVES_MAX} alternatives on elements and members, references followed`,
    );
}

/** Calls in one another that a write may be deep in when it runs a check. */
const DEPTH_OF_A_WRITE = 200;
const TOO_MANY_KEYWORDS = 'has too many keywords';

/**
 * Of a schema that somebody wants to define: its check runs. V8 compiles it when it is first run, not when
 * Ajv has made it, and needs stack for each keyword; without this every write would meet what the definition
 * did not.
 *
 * @throws AppError `invalid_request`.
 */
export function requireRunnable(check: SchemaCheck): void {
  try {
    runDeeper(DEPTH_OF_A_WRITE, () => check({ document: {} }));
    runDeeper(DEPTH_OF_A_WRITE, () => check({ document: {}, numbers: new ExactNumbers() }));
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

function faultOfForm(schema: Schema): string | undefined {
  const { $schema = DRAFT } = schema;
  if ($schema !== DRAFT) return `$schema: must be ${DRAFT}, or absent`;
  if (metaSchemas.validateSchema(schema) === true) return undefined;
  const [first] = metaSchemas.errors ?? [];
  return `is no JSON Schema: ${first?.instancePath ?? ''} ${first?.message ?? ''}`;
}

function compile(schema: Schema, numbers: Numbers | undefined, allErrors: boolean): ValidateFunction {
  const ajv = new Ajv2020({
    strict: true,
    strictTypes: false,
    strictTuples: false,
    strictRequired: false,
    // Without it, every object has a member `constructor`; with it, each look at a member takes longer.
    ownProperties: namesInherited(schema),
    // An annotation, as the draft has it: the checks of formats are regular expressions.
    validateFormats: false,
    validateSchema: false,
    addUsedSchema: false,
    logger: false,
    allErrors,
    // It takes time by the square of the schema's size: 6 s for 1,600 properties, and half a second without
    // it.
    code: { optimize: false },
  });
  for (const keyword of NEVER_ACCEPTED) ajv.removeKeyword(keyword);
  addExactKeywords(ajv, numbers);
  mendTuples(ajv);
  // Ajv would keep track of what is evaluated for every schema.
  if (hasUnevaluated(schema)) mendUnevaluated(ajv);
  else ajv.opts.unevaluated = false;
  try {
    return ajv.compile(numbers === undefined ? schema : withExactTypes(schema));
  } catch (error) {
    if (error instanceof RangeError) throw refused(TOO_MANY_KEYWORDS, error);
    throw refused(error instanceof Error ? error.message.slice(0, 200) : 'is no JSON Schema', error);
  }
}

/** Whether a schema may look for a member that objects of JavaScript inherit. */
function namesInherited(schema: Schema): boolean {
  const text = JSON.stringify(schema);
  return INHERITED.some((name) => text.includes(`"${name}"`));
}

const INHERITED = Object.getOwnPropertyNames(Object.prototype);

function hasUnevaluated(schema: Schema): boolean {
  let found = false;
  walkSchemas(schema, (one) => {
    if (typeof one === 'object' && one !== null)
      found ||= 'unevaluatedItems' in one || 'unevaluatedProperties' in one;
  });
  return found;
}

/**
 * Pointers that lead Ajv to where {@link resolvePointer} leads. Ajv reads a reference as an address first:
 * percent-encoded names are decoded, an empty end and `#` are cut off, line separators are in none. What was
 * counted here would not be what is compiled.
 */
const POINTER = /^#\/[^%#\u2028\u2029]+$/;

/** Of a schema that is too large before any reference is followed: nothing else needs to look at it. */
function faultOfOwnSize(schema: Schema): string | undefined {
  let size = 0;
  const isTooLarge = (node: unknown): boolean => {
    if (++size > SCHEMA_SIZE_MAX) return true;
    return typeof node === 'object' && node !== null && Object.values(node).some(isTooLarge);
  };
  return isTooLarge(schema) ? TOO_LARGE : undefined;
}

/** A long name counts for each schema below it. */
function faultOfPlaces(schema: Schema): string | undefined {
  if (lengthOfPlaces(schema) <= PLACES_MAX) return undefined;
  return `must have at most ${PLACES_MAX} characters in the places of all its schemas`;
}

/**
 * Walks the schema with what its references lead to. Without this, one that leads back to itself could go on
 * for ever, and a few that each name the next twice could take exponential time.
 */
function faultOfReferences(schema: Schema): string | undefined {
  const following = new Set<string>();
  let size = 0;
  const visit = (node: unknown): string | undefined => {
    size++;
    if (size > SCHEMA_SIZE_MAX) return TOO_LARGE;
    if (typeof node !== 'object' || node === null) return undefined;
    for (const [name, member] of Object.entries(node)) {
      const fault = name === '$ref' && typeof member === 'string' ? follow(member) : visit(member);
      if (fault !== undefined) return fault;
    }
    return undefined;
  };
  const follow = (pointer: string): string | undefined => {
    if (!POINTER.test(pointer))
      return '$ref: must be a pointer into the schema, "#/$defs/…", without "%" and another "#"';
    if (following.has(pointer)) return '$ref: must not lead back to itself';
    const target = resolvePointer(schema, pointer);
    if (target === undefined) return '$ref: leads nowhere';
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

function refused(message: string, cause?: unknown, path = 'body.schema'): AppError {
  return new AppError('invalid_request', { errors: [{ path, message }], cause });
}
