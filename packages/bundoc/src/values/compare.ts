import { compareNumbers, type Decimal } from '@bundoc/shared/json/decimal';
import { type ObjectValue, TYPE_NAMES, type TypeName, typeOf, type Value } from './value.ts';

const RANKS = Object.fromEntries(TYPE_NAMES.map((name, rank) => [name, rank])) as Record<TypeName, number>;

/**
 * The order of all values: null, false, true, numbers, strings by code point, arrays element by element,
 * objects by their members in name order. Zero only for equal values; the order of an object's members and
 * the spelling of a number do not matter.
 */
export function compareValues(a: Value, b: Value): number {
  if (a === b) return 0;
  if (typeof a === 'string' && typeof b === 'string') return compareStrings(a, b);
  const type = typeOf(a);
  const ranks = RANKS[type] - RANKS[typeOf(b)];
  if (ranks !== 0) return ranks;
  switch (type) {
    case 'null':
      return 0;
    case 'boolean':
      return Number(a) - Number(b);
    case 'number':
      return compareNumbers(a as number | Decimal, b as number | Decimal);
    case 'string':
      return compareStrings(a as string, b as string);
    case 'array':
      return compareArrays(a as readonly Value[], b as readonly Value[]);
    case 'object':
      return compareObjects(a as ObjectValue, b as ObjectValue);
  }
}

export function equalValues(a: Value, b: Value): boolean {
  return a === b || (typeof a === typeof b && compareValues(a, b) === 0);
}

/** Only values of one type can be in a range. */
export function isSameType(a: Value, b: Value): boolean {
  return typeOf(a) === typeOf(b);
}

/** By code point, like UTF-8 and PostgreSQL's `COLLATE "C"`; JavaScript's own order is by UTF-16 unit. */
function compareStrings(a: string, b: string): number {
  if (a === b) return 0;
  const length = Math.min(a.length, b.length);
  for (let at = 0; at < length; at++) {
    const order = a.charCodeAt(at) - b.charCodeAt(at);
    if (order !== 0) return order + PAIRED * (isPaired(a, at) - isPaired(b, at));
  }
  return a.length - b.length;
}

/** More than any unit: half of a pair sorts after all characters of one unit. */
const PAIRED = 0x10000;

/** 1 when the unit is half of a surrogate pair, 0 otherwise. */
function isPaired(text: string, at: number): number {
  const unit = text.charCodeAt(at) & 0xfc00;
  if (unit === 0xd800) return Number((text.charCodeAt(at + 1) & 0xfc00) === 0xdc00);
  if (unit === 0xdc00) return Number((text.charCodeAt(at - 1) & 0xfc00) === 0xd800);
  return 0;
}

function compareArrays(a: readonly Value[], b: readonly Value[]): number {
  const length = Math.min(a.length, b.length);
  for (let at = 0; at < length; at++) {
    const order = compareValues(a[at] as Value, b[at] as Value);
    if (order !== 0) return order;
  }
  return a.length - b.length;
}

function compareObjects(a: ObjectValue, b: ObjectValue): number {
  const names = sortedNames(a);
  const others = sortedNames(b);
  const length = Math.min(names.length, others.length);
  for (let at = 0; at < length; at++) {
    const [name, other] = [names[at] as string, others[at] as string];
    const order = compareStrings(name, other) || compareValues(a[name] as Value, b[other] as Value);
    if (order !== 0) return order;
  }
  return names.length - others.length;
}

/** Names of an object in order. Many names are sorted once, however often the object is compared. */
export function sortedNames(object: ObjectValue): readonly string[] {
  const known = sorted.get(object);
  if (known !== undefined) return known;
  const names = Object.keys(object).sort(compareStrings);
  if (names.length > UNCACHED_NAMES_MAX) sorted.set(object, names);
  return names;
}

const UNCACHED_NAMES_MAX = 8;
const sorted = new WeakMap<ObjectValue, readonly string[]>();
