import type { FoundBy, IndexRef, KeyRange, UsableIndex } from '../engine/index-port.ts';
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

/** Behind every key that begins so. */
const BEHIND = '\u0100';
/** Ranges of one index that one query looks through at most. */
const RANGES_MAX = 1_000;

/**
 * How a query finds its candidates by an index. All documents that its condition holds for are among them.
 */
export type IndexPlan = RangePlan | BlindPlan;

/** By some keys, in the order of creation. */
export interface BlindPlan extends FoundBy {
  readonly kind: 'blind';
}

/** By ranges of keys. */
export interface RangePlan {
  readonly kind: 'ranges';
  readonly index: IndexRef;
  /** In the order of their keys, none in another. */
  readonly ranges: readonly KeyRange[];
  /** The condition holds for every entry of the ranges: nothing else is asked for. */
  readonly isExact: boolean;
  /** What all keys of the one range begin with, when the plan is in order. */
  readonly fixed: string;
  /**
   * The entries of the one range are in the order that is asked for, or backwards in it; each document has
   * one.
   */
  readonly inOrder: 'forwards' | 'backwards' | undefined;
}

/** Tests that must hold of the values at a path, all of them. */
type Conjunction = ReadonlyMap<string, readonly Test[]>;

/**
 * The best index for a condition and an order: the longest beginning of its fields that are to be equal, then
 * a range, then the order. Undefined when none helps.
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

interface Found {
  readonly plan: IndexPlan;
  readonly worth: number;
}

/**
 * For each clause of the first `$or` what must hold with it, one of which a document meets; none without an
 * `$or`.
 */
function alternativesOf(where: Where): Conjunction[] {
  const either = firstOr(where);
  if (either?.kind !== 'or') return [];
  return either.clauses.map((clause) => {
    const conjunction = new Map<string, Test[]>();
    collect(where, conjunction);
    collect(clause, conjunction);
    return conjunction;
  });
}

function firstOr(where: Where): Where | undefined {
  if (where.kind === 'or') return where;
  if (where.kind !== 'and') return undefined;
  for (const clause of where.clauses) {
    const either = firstOr(clause);
    if (either !== undefined) return either;
  }
  return undefined;
}

/** By one index that helps with each of some alternatives: through what any of them needs, in no order. */
function planWithAny(index: UsableIndex, alternatives: readonly Conjunction[]): Found | undefined {
  const found = alternatives.map((conjunction) => planWith(index, conjunction, [], false));
  if (found.length === 0 || !found.every((one) => one !== undefined)) return undefined;
  const worth = Math.min(...found.map((one) => one.worth));
  const plans = found.map(({ plan }) => plan);
  const keys = new Set(plans.flatMap((plan) => (plan.kind === 'blind' ? plan.keys : [])));
  const ranges = united(plans.flatMap((plan) => (plan.kind === 'ranges' ? plan.ranges : [])));
  if (keys.size + ranges.length > RANGES_MAX) return undefined;
  if (index.isBlind === true) return { plan: { kind: 'blind', index, keys: [...keys] }, worth };
  const rest = { isExact: false, fixed: '', inOrder: undefined };
  return { plan: { kind: 'ranges', index, ranges, ...rest }, worth };
}

/** The same keys in ranges that do not overlap, in their order. */
function united(ranges: readonly KeyRange[]): KeyRange[] {
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

/** Whether a condition is of fields alone, all of which must be so. */
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
  if (index.isBlind === true) {
    if (equal < index.fields.length) return undefined;
    return { plan: { kind: 'blind', index, keys: prefixes }, worth: equal * 100 };
  }
  const range = rangeOf(conjunction.get(index.fields[equal] ?? '') ?? [], index.isMultiple);
  const inOrder = index.isMultiple || prefixes.length !== 1 ? undefined : directionOf(index, equal, order);
  if (equal === 0 && range === undefined && inOrder === undefined) return undefined;
  const ranges = prefixes
    .sort()
    .map((prefix) => ({ low: prefix + (range?.low ?? ''), high: prefix + (range?.high ?? BEHIND) }));
  const worth = equal * 100 + (range === undefined ? 0 : 10) + (inOrder === undefined ? 0 : 5);
  // One equality for each field that is asked for, and what a key says of it is all of it.
  const isExact =
    isPlain &&
    !index.isMultiple &&
    conjunction.size === equal &&
    conjunction.values().every((tests) => tests.length === 1 && tests[0]?.op === '$eq');
  const plan = { index, ranges, isExact, fixed: prefixes[0] ?? '', inOrder };
  return { plan: { kind: 'ranges', ...plan }, worth };
}

/** Key parts, one of which a document must have; undefined when no test says so. */
function equalParts(tests: readonly Test[]): string[] | undefined {
  for (const test of tests) {
    if (test.op === '$eq') return [encodeKeyPart(test.value)];
    if (test.op === '$all' && test.values.length > 0) return [encodeKeyPart(test.values[0])];
  }
  for (const test of tests) if (test.op === '$in') return [...new Set(test.values.map(encodeKeyPart))];
  return undefined;
}

/**
 * Between which parts a document must have one. Where documents have several, one bound is all that can be
 * used: of `[1, 20]` one element is above 5 and another below 10.
 */
function rangeOf(tests: readonly Test[], isMultiple: boolean): KeyRange | undefined {
  const ranges = tests.map(rangeOfTest).filter((range) => range !== undefined);
  const [first] = ranges;
  if (first === undefined || isMultiple) return first;
  return ranges.reduce((a, b) => ({
    low: laterKey(a.low, b.low),
    high: earlierKey(a.high, b.high),
  }));
}

function rangeOfTest(test: Test): KeyRange | undefined {
  switch (test.op) {
    case '$gt':
    case '$gte':
      return { low: encodeExactly(test.value).slice(0, KEY_PART_MAX), high: endOfType(test.value) };
    case '$lt':
    case '$lte':
      return {
        low: startOfType(test.value),
        high: encodeExactly(test.value).slice(0, KEY_PART_MAX) + BEHIND,
      };
    case '$beginsWith': {
      const low = encodePrefix(test.prefix).slice(0, KEY_PART_MAX);
      return { low, high: low + BEHIND };
    }
    default:
      return undefined;
  }
}

/** Values of a type begin with the same unit, but for the two booleans. */
function startOfType(value: Value): string {
  return encodeExactly(typeOf(value) === 'boolean' ? false : value).slice(0, 1);
}

function endOfType(value: Value): string {
  return encodeExactly(typeOf(value) === 'boolean' ? true : value).slice(0, 1) + BEHIND;
}

/**
 * How the entries behind `equal` fixed fields are read to be in an order. The order must look at all of the
 * others and nothing else: entries that agree in those are in the order of creation, which is what ties are
 * in.
 */
function directionOf(index: UsableIndex, equal: number, order: Order): RangePlan['inOrder'] {
  const rest = index.fields.slice(equal);
  if (rest.length !== order.length || !order.every(({ path }, at) => path.join('.') === rest[at]))
    return undefined;
  if (order.every(({ descending }) => !descending)) return 'forwards';
  return order.every(({ descending }) => descending) ? 'backwards' : undefined;
}
