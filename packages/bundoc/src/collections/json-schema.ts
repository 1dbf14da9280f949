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
import { fixTuples } from './tuple-keyword.ts';
import { fixUnevaluated } from './unevaluated-keywords.ts';

type Schema = Readonly<Record<string, unknown>>;

/** Finds the faults of a document; an empty list for none. */
export type SchemaCheck = (read: ReadDocument) => readonly FieldFault[];

/** Keywords of Ajv that no version accepts. */
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
 * Maximum number of values in a schema, where each reference counts its target again. Bounds the work of
 * checking one document.
 */
export const SCHEMA_SIZE_MAX = 5_000;
const TOO_LARGE = `must have at most ${SCHEMA_SIZE_MAX} values, references followed`;
/**
 * Maximum total length of the pointers to all subschemas. Ajv takes part of a second for as many characters.
 */
export const PLACES_MAX = 4_000_000;
/**
 * Maximum number of alternatives that a new schema may try on each element of an array or member of an
 * object, in total.
 */
export const ALTERNATIVES_MAX = 100;
/** Maximum number of visits to values of a document in one check; each may take microseconds. */
export const WORK_MAX = 1_000_000;
/**
 * Maximum number of faults in one answer, and the document size in bytes up to which a check looks for more
 * than the first.
 */
const FAULTS_MAX = 20;
const ALL_FAULTS_BYTES_MAX = 65_536;

/**
 * Compiles the check of a JSON Schema (draft 2020-12, strict mode of Ajv, no remote references).
 *
 * @throws AppError `invalid_request` for an unacceptable schema.
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
    // A value's text is at least as long as its cost, so the length is an upper bound.
    const fault = length * looks <= WORK_MAX ? undefined : faultOfSize(document, looks);
    if (fault !== undefined) return [fault];
    if (exactNumbers === undefined) return ofDoubles.faultsOf(document);
    const faultOfNumbers = faultOfLongNumbers(schema, document, exactNumbers);
    if (faultOfNumbers !== undefined) return [faultOfNumbers];
    // Compiled on first use: few documents have such numbers.
    exact ??= new CompiledSchema(schema, present);
    numbers = exactNumbers;
    try {
      return exact.faultsOf(document);
    } finally {
      numbers = undefined;
    }
  };
}

/** Two compiled checks: one stops at the first fault, the other finds all. */
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
    // Compiled when the first document is refused, which most collections never need.
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

/** Counts numbers with many digits as several values, because comparing their digits costs as much. */
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
 * Requires that a new schema has no refused keyword. Schemas that an earlier version accepted stay valid.
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
 * Bounds the alternatives of a new schema. Existing schemas stay valid. @throws AppError `invalid_request`.
 */
export function requireFewAlternatives(schema: Schema): void {
  if (repeatedAlternatives(schema) > ALTERNATIVES_MAX)
    throw refused(
      `must try at most ${ALTERNATIVES_MAX} alternatives on elements and members, references followed`,
    );
}

/** Maximum call depth of a write when it runs a check. */
const DEPTH_OF_A_WRITE = 200;
const TOO_MANY_KEYWORDS = 'has too many keywords';

/**
 * Runs the check of a new schema once. V8 compiles it on its first run, which needs stack for each keyword.
 * Without this run, the stack could overflow in every write instead of in the definition.
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
/** Validates schemas against the meta-schema, which needs all keywords itself. */
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
    // Without it, every object has a member `constructor`; with it, each member access takes longer.
    ownProperties: namesInherited(schema),
    // Formats are annotations, as in the draft: checking them would run regular expressions.
    validateFormats: false,
    validateSchema: false,
    addUsedSchema: false,
    logger: false,
    allErrors,
    // Ajv's optimizer is quadratic in the size of the schema: 6 s for 1,600 properties, half a second without
    // it.
    code: { optimize: false },
  });
  for (const keyword of NEVER_ACCEPTED) ajv.removeKeyword(keyword);
  addExactKeywords(ajv, numbers);
  fixTuples(ajv);
  // Otherwise Ajv would track evaluated members for every schema.
  if (hasUnevaluated(schema)) fixUnevaluated(ajv);
  else ajv.opts.unevaluated = false;
  try {
    return ajv.compile(numbers === undefined ? schema : withExactTypes(schema));
  } catch (error) {
    if (error instanceof RangeError) throw refused(TOO_MANY_KEYWORDS, error);
    throw refused(error instanceof Error ? error.message.slice(0, 200) : 'is no JSON Schema', error);
  }
}

/** Whether a schema may name a member that JavaScript objects inherit. */
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
 * Pointers that Ajv and {@link resolvePointer} resolve alike. Ajv first reads a reference as a URI: it
 * decodes percent-encoded names, drops an empty end and `#`, and fails on line separators. With other
 * pointers, Ajv would compile another schema than the one that was counted.
 */
const POINTER = /^#\/[^%#\u2028\u2029]+$/;

/** Refuses a schema that is too large even without its references. */
function faultOfOwnSize(schema: Schema): string | undefined {
  let size = 0;
  const isTooLarge = (node: unknown): boolean => {
    if (++size > SCHEMA_SIZE_MAX) return true;
    return typeof node === 'object' && node !== null && Object.values(node).some(isTooLarge);
  };
  return isTooLarge(schema) ? TOO_LARGE : undefined;
}

/** A long name counts once for each schema below it. */
function faultOfPlaces(schema: Schema): string | undefined {
  if (lengthOfPlaces(schema) <= PLACES_MAX) return undefined;
  return `must have at most ${PLACES_MAX} characters in the places of all its schemas`;
}

/**
 * Walks the schema along its references. Otherwise a reference cycle would never end, and nested pairs of
 * references could take exponential time.
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
