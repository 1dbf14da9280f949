import { AppError } from '@bundoc/shared/contract/app-error';
import type { CollectionDefinition } from '@bundoc/shared/contract/collections';
import type { FieldFault } from '@bundoc/shared/contract/problem';
import { type ObjectValue, TYPE_NAMES, type TypeName, type Value, weightOf } from '../values/value.ts';
import { type Assertion, Evaluation, type Subschema, TooLong } from './schema-evaluation.ts';
import type { KeywordPlace } from './schema-forms.ts';
import { KEYWORDS, REFUSED_KEYWORDS } from './schema-keywords.ts';

export type Schema = NonNullable<CollectionDefinition['schema']>;

/**
 * Finds the faults of a document, at most `faultsMax`; an empty list for none. Undefined when that takes more
 * than `stepsMax`.
 */
export type SchemaCheck = (
  document: Value,
  stepsMax: number,
  faultsMax: number,
) => readonly FieldFault[] | undefined;

/** Maximum number of values in a schema, long texts by their length. Bounds the time to compile it. */
export const SCHEMA_SIZE_MAX = 5_000;
/** Steps that the smallest document may take; references in a circle take any number. */
const TRIAL_STEPS_MAX = 50_000;
const NO_END = 'takes too many steps: a "$ref" must not lead back to itself for the same value';
const NO_TARGET = 'must be a pointer to a schema in this schema, "#/$defs/…"';
const ORDER = [...KEYWORDS.keys()];
/** Keywords that need to know what the others evaluate. */
const UNEVALUATED = ['unevaluatedItems', 'unevaluatedProperties'];

/**
 * Compiles the check of a JSON Schema (draft 2020-12). It becomes functions that call each other; no code is
 * generated.
 *
 * @throws AppError `invalid_request` for an unacceptable schema.
 */
export function compileSchema(schema: Schema): SchemaCheck {
  if (weightOf(schema as ObjectValue) > SCHEMA_SIZE_MAX)
    throw refused([], `must have at most ${SCHEMA_SIZE_MAX} values`);
  const root = new SchemaCompiler(schema).compile();
  if (verdictOf(root, {}, new Evaluation(TRIAL_STEPS_MAX, 0)) === undefined) throw refused([], NO_END);
  return (document, stepsMax, faultsMax) => {
    // Most documents have no fault, and a verdict alone takes less time.
    const isMet = verdictOf(root, document, new Evaluation(stepsMax, 0));
    if (isMet !== false) return isMet && [];
    const evaluation = new Evaluation(stepsMax, faultsMax);
    verdictOf(root, document, evaluation);
    // Those that were found in time suffice.
    return evaluation.faults.length > 0 ? evaluation.faults : undefined;
  };
}

/** Undefined when it takes too long. */
function verdictOf(schema: Subschema, document: Value, evaluation: Evaluation): boolean | undefined {
  try {
    return evaluation.meets(schema, document);
  } catch (error) {
    if (error instanceof TooLong) return undefined;
    throw error;
  }
}

/** Compiles a schema and all schemas in it, each of them once. */
class SchemaCompiler {
  readonly #root: Schema;
  readonly #compiled = new Map<unknown, Subschema>();
  /** What is left to compile. A queue, because references may nest deeper than the stack. */
  readonly #queue: (() => void)[] = [];

  constructor(root: Schema) {
    this.#root = root;
  }

  compile(): Subschema {
    const root = this.#subschema(this.#root, []);
    for (let next = this.#queue.pop(); next !== undefined; next = this.#queue.pop()) next();
    return root;
  }

  #subschema(schema: unknown, path: readonly string[]): Subschema {
    const known = this.#compiled.get(schema);
    if (known !== undefined) return known;
    if (!isSchema(schema)) throw refused(path, 'must be a schema: an object or a boolean');
    const asksForEvaluated = UNEVALUATED.some((keyword) => Object.hasOwn(Object(schema), keyword));
    const compiled: Subschema = { assertions: {}, asksForEvaluated };
    this.#compiled.set(schema, compiled);
    if (schema === false) addAssertion(compiled, (_value, one) => one.fail('is not allowed here'));
    else if (schema !== true) this.#queue.push(() => this.#fill(compiled, schema, path));
    return compiled;
  }

  #fill(compiled: Subschema, schema: Schema, path: readonly string[]): void {
    for (const keyword of Object.keys(schema).sort((a, b) => ORDER.indexOf(a) - ORDER.indexOf(b))) {
      const known = KEYWORDS.get(keyword);
      if (known === undefined)
        throw refused(path, `${keyword}: ${REFUSED_KEYWORDS.get(keyword) ?? 'unknown keyword'}`);
      const assertion = known.compile(schema[keyword], this.#place(schema, path, keyword));
      if (assertion !== undefined) addAssertion(compiled, assertion, known.type);
    }
  }

  #place(schema: Schema, path: readonly string[], keyword: string): KeywordPlace {
    const refuse = (reason: string): never => {
      throw refused(path, `${keyword}: ${reason}`);
    };
    return {
      schema,
      refuse,
      subschema: (one, ...names) => this.#subschema(one, [...path, keyword, ...names]),
      target: (pointer) => {
        const names = namesOf(pointer) ?? refuse(NO_TARGET);
        const target = names.reduce<unknown>(memberOf, this.#root);
        return isSchema(target) ? this.#subschema(target, names) : refuse(NO_TARGET);
      },
    };
  }
}

/** @param type of the values that it is for; undefined for all. */
function addAssertion({ assertions }: Subschema, assertion: Assertion, type?: TypeName): void {
  // A new array each time: an array that grows by a push has room for 17.
  for (const name of type === undefined ? TYPE_NAMES : [type])
    assertions[name] = (assertions[name] ?? []).concat(assertion);
}

/** The names along a pointer `#/…`; undefined for any other reference. */
function namesOf(pointer: string): string[] | undefined {
  if (pointer === '#') return [];
  if (!pointer.startsWith('#/') || pointer.includes('#', 1)) return undefined;
  try {
    const names = decodeURIComponent(pointer).slice(2).split('/');
    return names.map((name) => name.replaceAll('~1', '/').replaceAll('~0', '~'));
  } catch {
    return undefined;
  }
}

function memberOf(node: unknown, name: string): unknown {
  const isHolder = typeof node === 'object' && node !== null && Object.hasOwn(node, name);
  return isHolder ? (node as Record<string, unknown>)[name] : undefined;
}

function isSchema(value: unknown): value is boolean | Schema {
  return typeof value === 'boolean' || (typeof value === 'object' && value !== null && !Array.isArray(value));
}

function refused(path: readonly string[], message: string): AppError {
  const errors = [{ path: ['body.schema', ...path].join('.'), message }];
  return new AppError('invalid_request', { errors });
}
