import { describeUnknown } from '@bundoc/shared/logs/unknown-names';
import { z } from 'zod';
import { foldCase } from '../values/fold-case.ts';
import { faultOfPath, mayRevisit, type Path, pathOf } from '../values/path.ts';
import { isArray, isObject, TYPE_NAMES, type TypeName, type Value } from '../values/value.ts';

/** A condition on whole documents. */
export type Where =
  | { readonly kind: 'and' | 'or' | 'nor'; readonly clauses: readonly Where[] }
  | { readonly kind: 'field'; readonly path: Path; readonly tests: readonly Test[] };

/** Operators for parts of strings. */
export type TextOperator = '$beginsWith' | '$contains' | '$endsWith';

export type Comparison = '$eq' | '$ne' | '$gt' | '$gte' | '$lt' | '$lte';

/** A condition on the values at a path. */
export type Test =
  | { readonly op: Comparison; readonly value: Value }
  | { readonly op: '$in' | '$nin' | '$all'; readonly values: readonly Value[] }
  | { readonly op: '$exists'; readonly exists: boolean }
  | { readonly op: '$type'; readonly types: readonly TypeName[] }
  | { readonly op: '$size'; readonly size: number }
  | { readonly op: TextOperator; readonly text: string; readonly ignoresCase: boolean }
  | { readonly op: '$mod'; readonly divisor: number; readonly remainder: number }
  | { readonly op: '$not'; readonly tests: readonly Test[] }
  | { readonly op: '$elemMatch'; readonly tests: readonly Test[] }
  | { readonly op: '$elemMatch'; readonly where: Where };

/** Maximum number of operators in one query, including `$and` and the like. */
const OPERATORS_MAX = 100;
/** Maximum nesting depth of conditions. */
const WHERE_DEPTH_MAX = 10;
/** Maximum number of values in all `$in`, `$nin` and `$all` of a query together. */
const LISTED_VALUES_MAX = 1_000;

/**
 * Maximum UTF-16 units of the text of `$contains`, also after case folding. V8 preprocesses no more of a
 * pattern, and the search for a longer one takes the product of both lengths.
 */
const CONTAINED_MAX = 250;
/** Numbers of `$mod` have at most 15 digits. */
const MOD_BOUND = 1e15;

/** Matches every document. */
export const ANY_DOCUMENT: Where = { kind: 'and', clauses: [] };

/**
 * Parses the condition of a query, from its JSON with exact numbers. Reports every fault by its path, without
 * values.
 */
export const whereSchema = z.unknown().transform((input, context): Where => {
  const parser = new WhereParser((path, message) => context.addIssue({ code: 'custom', path, message }));
  const where = parser.where(input as Value, [], 0);
  return parser.failed ? z.NEVER : where;
});

type ValuePath = readonly (string | number)[];

const COMPARISONS: ReadonlySet<string> = new Set(['$eq', '$ne', '$gt', '$gte', '$lt', '$lte']);
const LOGICAL: ReadonlySet<string> = new Set(['$and', '$or', '$nor']);
const TEXTUAL: ReadonlySet<string> = new Set(['$beginsWith', '$contains', '$endsWith']);
const OPERATORS: readonly string[] = [
  ...[...COMPARISONS, '$in', '$nin', '$all', '$exists', '$type', '$size', '$mod'],
  ...[...TEXTUAL, '$options', '$elemMatch', '$not'],
];
const EQUALITIES: ReadonlySet<string> = new Set(['$eq', '$in', '$all']);
const RANGES: ReadonlySet<string> = new Set(['$gt', '$gte', '$lt', '$lte']);
/** What other stores call a search in texts. */
const OF_TEXTS = /^\$(?:regex|text|search|like|ilike|startsWith|where)$/i;

/** The fault of an operator that does not exist in its place, by the known ones. */
function unknownOperator(name: string, known: readonly string[]): string {
  const hint = OF_TEXTS.test(name) ? '; $beginsWith, $contains and $endsWith find parts of strings' : '';
  return `${describeUnknown([name], known, '$')}${hint}`;
}

/** Whether a value has members that a reader takes for operators. As the value of `$eq` it has none. */
function looksLikeOperators(value: Value): boolean {
  return isObject(value) && Object.keys(value).some((name) => name.startsWith('$'));
}

function isModNumber(value: Value | undefined): value is number {
  return Number.isInteger(value) && Math.abs(value as number) < MOD_BOUND;
}

class WhereParser {
  readonly #report: (path: string[], message: string) => void;
  failed = false;
  #operators = 0;
  #listed = 0;

  constructor(report: (path: string[], message: string) => void) {
    this.#report = report;
  }

  where(input: Value, place: ValuePath, depth: number): Where {
    if (!isObject(input)) return this.#fault(place, 'must be an object', ANY_DOCUMENT);
    if (depth > WHERE_DEPTH_MAX)
      return this.#fault(place, `must not nest deeper than ${WHERE_DEPTH_MAX}`, ANY_DOCUMENT);
    const clauses = Object.entries(input).map(([name, operand]) =>
      this.#clause(name, operand, [...place, name], depth),
    );
    // An empty condition costs as much for each document.
    if (clauses.length === 0) this.#count(place);
    const [only] = clauses;
    return clauses.length === 1 && only !== undefined ? only : { kind: 'and', clauses };
  }

  #clause(name: string, operand: Value, place: ValuePath, depth: number): Where {
    if (LOGICAL.has(name)) {
      this.#count(place);
      const kind = name.slice(1) as 'and' | 'or' | 'nor';
      if (!isArray(operand) || operand.length === 0)
        return this.#fault(place, 'must be an array of conditions, not empty', ANY_DOCUMENT);
      return { kind, clauses: operand.map((one, at) => this.where(one, [...place, at], depth + 1)) };
    }
    if (name.startsWith('$'))
      return this.#fault(place.slice(0, -1), unknownOperator(name, [...LOGICAL]), ANY_DOCUMENT);
    const fault = faultOfPath(name);
    if (fault !== undefined) return this.#fault(place, fault, ANY_DOCUMENT);
    return { kind: 'field', path: pathOf(name), tests: this.#condition(operand, place, depth) };
  }

  /** The operand of a path: operators, or a value for equality. */
  #condition(operand: Value, place: ValuePath, depth: number): Test[] {
    if (isObject(operand)) {
      const names = Object.keys(operand);
      if (names.length > 0 && names.every((name) => name.startsWith('$')))
        return this.#tests(operand, place, depth + 1);
      if (looksLikeOperators(operand))
        return this.#fault(place, 'must not mix operators and members; use "$eq" for an object', []);
    }
    this.#count(place);
    return [{ op: '$eq', value: operand }];
  }

  #tests(operators: Value, place: ValuePath, depth: number): Test[] {
    if (!isObject(operators) || Object.keys(operators).length === 0)
      return this.#fault(place, 'must be an object of operators, not empty', []);
    if (depth > WHERE_DEPTH_MAX)
      return this.#fault(place, `must not nest deeper than ${WHERE_DEPTH_MAX}`, []);
    const { $options, ...others } = operators;
    const ignoresCase = $options !== undefined;
    if (ignoresCase && $options !== 'i')
      this.#fault([...place, '$options'], 'must be "i", which ignores case', undefined);
    if (ignoresCase && !Object.keys(others).some((op) => TEXTUAL.has(op)))
      this.#fault([...place, '$options'], `must be beside ${[...TEXTUAL].join(', ')}`, undefined);
    return Object.entries(others).flatMap(([op, operand]) => {
      if (TEXTUAL.has(op)) return this.#text(op as TextOperator, operand, [...place, op], ignoresCase) ?? [];
      return this.#test(op, operand, [...place, op], depth) ?? [];
    });
  }

  #text(op: TextOperator, operand: Value, place: ValuePath, ignoresCase: boolean): Test | undefined {
    this.#count(place);
    if (typeof operand !== 'string' || !operand.isWellFormed())
      return this.#fault(place, 'must be a string of well-formed Unicode', undefined);
    const text = ignoresCase ? foldCase(operand) : operand;
    if (op !== '$contains' || Math.max(text.length, operand.length) <= CONTAINED_MAX)
      return { op, text, ignoresCase };
    const counted = ignoresCase ? ', in which "ß" counts as "ss"' : '';
    return this.#fault(place, `must have at most ${CONTAINED_MAX} characters${counted}`, undefined);
  }

  #test(op: string, operand: Value, place: ValuePath, depth: number): Test | undefined {
    this.#count(place);
    if (COMPARISONS.has(op)) return { op: op as Comparison, value: operand };
    switch (op) {
      case '$in':
      case '$nin':
      case '$all':
        return { op, values: this.#values(operand, place) };
      case '$exists':
        if (typeof operand !== 'boolean') return this.#fault(place, 'must be true or false', undefined);
        return { op, exists: operand };
      case '$type':
        return { op, types: this.#types(operand, place) };
      case '$size':
        if (typeof operand !== 'number' || !Number.isInteger(operand) || operand < 0)
          return this.#fault(place, 'must be a whole number from 0', undefined);
        return { op, size: operand };
      case '$mod':
        return this.#mod(operand, place);
      case '$not':
        return { op, tests: this.#tests(operand, place, depth + 1) };
      case '$elemMatch':
        return this.#elemMatch(operand, place, depth);
      default:
        return this.#fault(place.slice(0, -1), unknownOperator(op, OPERATORS), undefined);
    }
  }

  #mod(operand: Value, place: ValuePath): Test | undefined {
    const [divisor, remainder, ...others] = isArray(operand) ? operand : [];
    if (!isModNumber(divisor) || !isModNumber(remainder) || others.length > 0)
      return this.#fault(
        place,
        'must be [divisor, remainder], two whole numbers of at most 15 digits',
        undefined,
      );
    if (divisor === 0) return this.#fault([...place, 0], 'must not be 0', undefined);
    return { op: '$mod', divisor, remainder };
  }

  #elemMatch(operand: Value, place: ValuePath, depth: number): Test {
    const onElement =
      isObject(operand) && Object.keys(operand).some((name) => name.startsWith('$') && !LOGICAL.has(name));
    if (onElement) return { op: '$elemMatch', tests: this.#tests(operand, place, depth + 1) };
    return { op: '$elemMatch', where: this.where(operand, place, depth + 1) };
  }

  #values(operand: Value, place: ValuePath): readonly Value[] {
    if (!isArray(operand)) return this.#fault(place, 'must be an array', []);
    this.#listed += operand.length;
    if (this.#listed > LISTED_VALUES_MAX)
      return this.#fault(place, `a query lists at most ${LISTED_VALUES_MAX} values`, []);
    if (operand.some(looksLikeOperators))
      return this.#fault(place, 'must hold values, not operators; use "$eq" for an object', []);
    return operand;
  }

  #types(operand: Value, place: ValuePath): TypeName[] {
    const names = isArray(operand) ? operand : [operand];
    const known: readonly unknown[] = TYPE_NAMES;
    if (names.length === 0 || !names.every((name) => known.includes(name)))
      return this.#fault(place, `must be one or some of ${TYPE_NAMES.join(', ')}`, []);
    return names as TypeName[];
  }

  #count(place: ValuePath): void {
    this.#operators++;
    if (this.#operators === OPERATORS_MAX + 1)
      this.#fault(place, `a query has at most ${OPERATORS_MAX} operators`, undefined);
  }

  #fault<T>(place: ValuePath, message: string, instead: T): T {
    this.failed = true;
    this.#report(place.map(String), message);
    return instead;
  }
}

/**
 * Fields whose index could find the matches of a condition: those that every match must satisfy, equality
 * fields first, as in a good index.
 */
export function fieldsOf(where: Where): string[] {
  const equal: string[] = [];
  const ranged: string[] = [];
  collect(where, equal, ranged);
  return [...equal, ...ranged];
}

function collect(where: Where, equal: string[], ranged: string[]): void {
  if (where.kind === 'and') for (const clause of where.clauses) collect(clause, equal, ranged);
  if (where.kind !== 'field') return;
  const field = where.path.join('.');
  if (where.tests.some(isEquality)) equal.push(field);
  else if (where.tests.some(isRange)) ranged.push(field);
}

/** Absence has a key of its own, like a value. */
function isEquality(test: Test): boolean {
  return test.op === '$exists' ? !test.exists : EQUALITIES.has(test.op);
}

function isRange(test: Test): boolean {
  if (test.op === '$beginsWith') return !test.ignoresCase;
  return test.op === '$exists' ? test.exists : RANGES.has(test.op);
}

/** Cost of an operator whose values are compared by their encoding. */
const ENCODED = 4;
/** Cost of a search in a string, and of case folding and of the division of a long number. */
const SEARCHED = 4;
const FOLDED_OR_DIVIDED = 24;

/** Maximum number of tests of a condition on one value: one for each operator, more for expensive ones. */
export function operatorsOf(where: Where): number {
  if (where.kind !== 'field') return where.clauses.reduce((sum, clause) => sum + operatorsOf(clause), 0);
  // If several ways lead to a value, it is tested for each rest of the path.
  return ofTests(where.tests) * (mayRevisit(where.path) ? where.path.length : 1);
}

function ofTests(tests: readonly Test[]): number {
  return tests.reduce((sum, test) => sum + ofTest(test), 0);
}

function ofTest(test: Test): number {
  switch (test.op) {
    case '$not':
      return ofTests(test.tests);
    case '$elemMatch':
      return 1 + ('where' in test ? operatorsOf(test.where) : ofTests(test.tests));
    case '$in':
    case '$nin':
    case '$all':
      return test.values.some((value) => typeof value === 'object' && value !== null) ? ENCODED : 1;
    case '$beginsWith':
    case '$endsWith':
    case '$contains':
      if (test.ignoresCase) return FOLDED_OR_DIVIDED;
      return test.op === '$contains' ? SEARCHED : 1;
    case '$mod':
      return FOLDED_OR_DIVIDED;
    default:
      return 1;
  }
}
