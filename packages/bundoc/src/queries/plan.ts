import type { KeyRange, UsableIndex } from '../engine/port/index-port.ts';
import {
  earlierKey,
  encodeExactly,
  encodeKeyPart,
  encodePrefix,
  KEY_PART_MAX,
  laterKey,
} from '../values/key.ts';
import { typeOf, type Value } from '../values/value.ts';
import type { Order } from './order.ts';
import type { Test, Where } from './where.ts';

/** Sorts after every key with the same start. */
const PREFIX_END = '\u0100';
/** Maximum number of ranges of one index in one query. */
const RANGES_MAX = 1_000;

/** What an equality, a range, an order and a mere existence are worth when indexes are compared. */
const EQUAL_WORTH = 100;
const RANGE_WORTH = 10;
const ORDER_WORTH = 5;
const EXISTS_WORTH = 3;

/** How a query finds its candidates in an index, by ranges of keys. They include all matches. */
export interface IndexPlan {
  readonly index: UsableIndex;
  /** In key order, without overlaps. */
  readonly ranges: readonly KeyRange[];
  /** Whether the condition holds for every entry of the ranges, without further tests. */
  readonly isExact: boolean;
  /** The common start of all keys in the single range, when the plan is in order. */
  readonly fixed: string;
  /**
   * Whether the entries of the single range are in the requested order, and in which direction; each document
   * has one entry.
   */
  readonly inOrder: 'forwards' | 'backwards' | undefined;
}

/** Tests that must all hold for the values at a path. */
type Conjunction = ReadonlyMap<string, readonly Test[]>;

/**
 * The best index for a condition and an order: it has the longest prefix of equality fields, then a range,
 * then the order. Undefined when none helps.
 */
export function planQuery(
  where: Where,
  order: Order,
  indexes: readonly UsableIndex[],
): IndexPlan | undefined {
  const conjunction = new Map<string, Test[]>();
  collect(where, conjunction);
  const alternatives = alternativesOf(where);
  const isPlain = isConjunction(where);
  let best: Found | undefined;
  for (const index of indexes) {
    const found = planWith(index, conjunction, order, isPlain) ?? planWithAny(index, alternatives);
    if (found !== undefined && (best === undefined || found.worth > best.worth)) best = found;
  }
  return best?.plan;
}

/** The index with the most fields that has all matches in the order; undefined when none has. */
export function planInOrder(
  where: Where,
  order: Order,
  indexes: readonly UsableIndex[],
): IndexPlan | undefined {
  return indexes
    .map((index) => planQuery(where, order, [index]))
    .filter((plan) => plan?.inOrder !== undefined)
    .toSorted((one, other) => fieldsIn(other) - fieldsIn(one))[0];
}

function fieldsIn(plan: IndexPlan | undefined): number {
  return plan?.index.fields.length ?? 0;
}

interface Found {
  readonly plan: IndexPlan;
  readonly worth: number;
}

/**
 * The tests of each clause in the first `$or`, with the rest of the condition; a match satisfies one of them.
 * Empty without an `$or`.
 */
function alternativesOf(where: Where): Conjunction[] {
  const either = findFirstOr(where);
  if (either?.kind !== 'or') return [];
  return either.clauses.map((clause) => {
    const conjunction = new Map<string, Test[]>();
    collect(where, conjunction);
    collect(clause, conjunction);
    return conjunction;
  });
}

function findFirstOr(where: Where): Where | undefined {
  if (where.kind === 'or') return where;
  if (where.kind !== 'and') return undefined;
  for (const clause of where.clauses) {
    const either = findFirstOr(clause);
    if (either !== undefined) return either;
  }
  return undefined;
}

/** Plans with one index that helps with every alternative: the union of their ranges, unordered. */
function planWithAny(index: UsableIndex, alternatives: readonly Conjunction[]): Found | undefined {
  const found = alternatives.map((conjunction) => planWith(index, conjunction, [], false));
  if (found.length === 0 || !found.every((one) => one !== undefined)) return undefined;
  const worth = Math.min(...found.map((one) => one.worth));
  const ranges = mergeRanges(found.flatMap(({ plan }) => plan.ranges));
  if (ranges.length > RANGES_MAX) return undefined;
  return { plan: { index, ranges, isExact: false, fixed: '', inOrder: undefined }, worth };
}

/** The union of the ranges, without overlaps and in order. */
function mergeRanges(ranges: readonly KeyRange[]): KeyRange[] {
  const apart: KeyRange[] = [];
  for (const range of ranges.toSorted((a, b) => (a.low < b.low ? -1 : Number(a.low > b.low)))) {
    const last = apart.at(-1);
    if (last === undefined || range.low >= last.high) apart.push(range);
    else apart[apart.length - 1] = { low: last.low, high: laterKey(last.high, range.high) };
  }
  return apart;
}

function collect(where: Where, conjunction: Map<string, Test[]>): void {
  if (where.kind === 'and') for (const clause of where.clauses) collect(clause, conjunction);
  if (where.kind !== 'field') return;
  const field = where.path.join('.');
  conjunction.set(field, [...(conjunction.get(field) ?? []), ...where.tests]);
}

/** Whether a condition consists only of fields that must all match. */
function isConjunction(where: Where): boolean {
  return where.kind === 'field' || (where.kind === 'and' && where.clauses.every(isConjunction));
}

function planWith(
  index: UsableIndex,
  conjunction: Conjunction,
  order: Order,
  isPlain: boolean,
): Found | undefined {
  let prefixes = [''];
  let equal = 0;
  for (; equal < index.fields.length; equal++) {
    const parts = equalParts(conjunction.get(index.fields[equal] as string) ?? []);
    if (parts === undefined || prefixes.length * parts.length > RANGES_MAX) break;
    prefixes = prefixes.flatMap((prefix) => parts.map((part) => prefix + part));
  }
  const range = rangeOf(conjunction.get(index.fields[equal] ?? '') ?? [], index.isMultiple);
  const inOrder = index.isMultiple || prefixes.length !== 1 ? undefined : directionOf(index, equal, order);
  if (equal === 0 && range === undefined && inOrder === undefined) return undefined;
  const ranges = prefixes
    .sort()
    .map((prefix) => ({ low: prefix + (range?.low ?? ''), high: prefix + (range?.high ?? PREFIX_END) }));
  const worth = equal * EQUAL_WORTH + (range?.worth ?? 0) + (inOrder === undefined ? 0 : ORDER_WORTH);
  // The key decides each field of the condition: the first by one equality each, the last by a range.
  const isExact =
    isPlain &&
    !index.isMultiple &&
    conjunction.size === equal + (range === undefined ? 0 : 1) &&
    range?.isExact !== false &&
    index.fields.slice(0, equal).every((field) => isOneEquality(conjunction.get(field) ?? []));
  return { plan: { index, ranges, isExact, fixed: prefixes[0] ?? '', inOrder }, worth };
}

/** Key parts, one of which a document must have; undefined without such a test. */
function equalParts(tests: readonly Test[]): string[] | undefined {
  for (const test of tests) {
    if (test.op === '$eq') return [encodeKeyPart(test.value)];
    if (test.op === '$all' && test.values.length > 0) return [encodeKeyPart(test.values[0])];
    if (test.op === '$exists' && !test.exists) return [encodeKeyPart(undefined)];
  }
  for (const test of tests) if (test.op === '$in') return [...new Set(test.values.map(encodeKeyPart))];
  return undefined;
}

function isOneEquality([test, ...others]: readonly Test[]): boolean {
  const op = others.length === 0 ? test?.op : undefined;
  return op === '$eq' || op === '$in' || op === '$exists';
}

/** A range of key parts, and how much it is worth to a plan. */
interface PartRange extends KeyRange {
  readonly worth: number;
  /** Whether the tests hold for every part of the range. */
  readonly isExact: boolean;
}

/**
 * The range of key parts in which a document must have one. If documents may have several parts, only one
 * bound is usable: in `[1, 20]`, one element is above 5 and another below 10.
 */
function rangeOf(tests: readonly Test[], isMultiple: boolean): PartRange | undefined {
  const ranges = tests.map(rangeOfTest).filter((range) => range !== undefined);
  const best = ranges.toSorted((a, b) => b.worth - a.worth)[0];
  if (best === undefined || isMultiple) return best;
  return ranges.reduce(
    (a, b) => ({
      low: laterKey(a.low, b.low),
      high: earlierKey(a.high, b.high),
      worth: best.worth,
      isExact: a.isExact && b.isExact,
    }),
    { ...best, isExact: ranges.length === tests.length },
  );
}

function rangeOfTest(test: Test): PartRange | undefined {
  switch (test.op) {
    case '$gt':
    case '$gte': {
      const { start, isExact } = startOfPart(encodeExactly(test.value));
      const low = isExact && test.op === '$gt' ? start + PREFIX_END : start;
      return { low, high: endOfType(test.value), worth: RANGE_WORTH, isExact };
    }
    case '$lt':
    case '$lte': {
      const { start, isExact } = startOfPart(encodeExactly(test.value));
      const high = isExact && test.op === '$lt' ? start : start + PREFIX_END;
      return { low: startOfType(test.value), high, worth: RANGE_WORTH, isExact };
    }
    case '$beginsWith': {
      if (test.ignoresCase) return undefined;
      const { start, isExact } = startOfPart(encodePrefix(test.text));
      return { low: start, high: start + PREFIX_END, worth: RANGE_WORTH, isExact };
    }
    case '$exists':
      // All parts but the one of absence.
      return test.exists
        ? { low: encodeExactly(null), high: PREFIX_END, worth: EXISTS_WORTH, isExact: true }
        : undefined;
    default:
      return undefined;
  }
}

/**
 * The start of the key part of a text. If the text is cut, other texts have the same start, and their order
 * is unknown.
 */
function startOfPart(text: string): { readonly start: string; readonly isExact: boolean } {
  return { start: text.slice(0, KEY_PART_MAX), isExact: text.length <= KEY_PART_MAX };
}

/** Values of a type begin with the same unit, except for the two booleans. */
function startOfType(value: Value): string {
  return encodeExactly(typeOf(value) === 'boolean' ? false : value).slice(0, 1);
}

function endOfType(value: Value): string {
  return encodeExactly(typeOf(value) === 'boolean' ? true : value).slice(0, 1) + PREFIX_END;
}

/**
 * The direction in which the entries after `equal` fixed fields are in the requested order. The order must
 * use exactly the other fields: entries with equal values are in creation order, like ties.
 */
function directionOf(index: UsableIndex, equal: number, order: Order): IndexPlan['inOrder'] {
  const rest = index.fields.slice(equal);
  if (rest.length !== order.length || !order.every(({ path }, at) => path.join('.') === rest[at]))
    return undefined;
  if (order.every(({ descending }) => !descending)) return 'forwards';
  return order.every(({ descending }) => descending) ? 'backwards' : undefined;
}
