import { AppError } from '@bundoc/shared/contract/app-error';
import {
  ARITHMETIC_DIGITS_MAX,
  addNumbers,
  isComputable,
  multiplyNumbers,
} from '@bundoc/shared/json/arithmetic';
import {
  arrayOf,
  type JsonArray,
  type JsonNode,
  scalarOf,
  treeText,
  withItems,
} from '@bundoc/shared/json/tree';
import { compileWhere } from '../../queries/evaluate.ts';
import { operatorsOf, whereSchema } from '../../queries/where.ts';
import { compareValues, equalValues } from '../../values/compare.ts';
import { encodeExactly } from '../../values/key.ts';
import { isObject, readValue, typeOf, type Value, weightOf } from '../../values/value.ts';
import { PATCH_WORK_MAX } from './json-patch.ts';

/** One operator of an update, on one path. */
export type UpdateChange = {
  /** Where the update has it: `$inc.stars`. */
  readonly place: string;
} & (
  | { readonly op: '$unset' | '$currentDate' }
  | { readonly op: '$set' | '$inc' | '$mul' | '$min' | '$max' | '$pull'; readonly value: JsonNode }
  | { readonly op: '$addToSet'; readonly values: readonly JsonNode[] }
  | {
      readonly op: '$push';
      readonly values: readonly JsonNode[];
      /** Negative from the end; beyond either end, that end. */
      readonly position: number | undefined;
      /** The first items to keep; negative: the last ones. */
      readonly slice: number | undefined;
    }
);

/** What the changes of one update share while they are applied. */
export interface UpdateApplication {
  /** The part of the request that contained the update. */
  readonly part: string;
  /** RFC 3339. */
  readonly now: string;
  /** Tests of values by `$pull` until now. */
  work: number;
}

const EMPTY = arrayOf([]);

/**
 * The value at the place of a change after it; undefined for none.
 *
 * @throws AppError `patch_inapplicable` for a present value of a wrong type, and for too many digits;
 *   `payload_too_large` beyond {@link PATCH_WORK_MAX}.
 */
export function effectOf(
  change: UpdateChange,
  present: JsonNode | undefined,
  at: UpdateApplication,
): JsonNode | undefined {
  switch (change.op) {
    case '$set':
      return change.value;
    case '$unset':
      return undefined;
    case '$currentDate':
      return scalarOf(JSON.stringify(at.now));
    case '$inc':
      return present === undefined ? change.value : computed(change, present, at);
    case '$mul':
      return present === undefined ? scalarOf('0') : computed(change, present, at);
    case '$min':
    case '$max': {
      if (present === undefined) return change.value;
      const order = compareValues(exactOf(change.value), exactOf(present));
      return (change.op === '$min' ? order < 0 : order > 0) ? change.value : present;
    }
    case '$push':
      return pushed(requireArray(change, present ?? EMPTY, at), change);
    case '$addToSet':
      return withUnknown(requireArray(change, present ?? EMPTY, at), change.values);
    case '$pull':
      return present && pulled(requireArray(change, present, at), change, at);
  }
}

/** The refusal of a change that does not fit the document. */
export function unfit({ place }: UpdateChange, { part }: UpdateApplication, message: string): AppError {
  return new AppError('patch_inapplicable', { errors: [{ path: `${part}.${place}`, message }] });
}

export function isNumber(node: JsonNode): boolean {
  return node.kind === 'scalar' && /^[-\d]/.test(node.text);
}

function computed(
  change: UpdateChange & { readonly value: JsonNode },
  present: JsonNode,
  at: UpdateApplication,
): JsonNode {
  if (!isNumber(present)) throw unfit(change, at, `the present value is ${typeName(present)}, not a number`);
  const text = treeText(present);
  const tooLong = `has over ${ARITHMETIC_DIGITS_MAX} digits, written in full`;
  if (!isComputable(text)) throw unfit(change, at, `the present number ${tooLong}`);
  const compute = change.op === '$inc' ? addNumbers : multiplyNumbers;
  const result = compute(text, treeText(change.value));
  if (result === undefined) throw unfit(change, at, `the result ${tooLong}`);
  return scalarOf(result);
}

function pushed(array: JsonArray, change: UpdateChange & { readonly op: '$push' }): JsonArray {
  const { values, position = array.items.length, slice } = change;
  const index = position < 0 ? Math.max(0, array.items.length + position) : position;
  const whole = withItems(array, index, values);
  if (slice === undefined || Math.abs(slice) >= whole.items.length) return whole;
  return arrayOf(slice < 0 ? whole.items.slice(slice) : whole.items.slice(0, slice));
}

/** With those values that the array does not have, each once. */
function withUnknown(array: JsonArray, values: readonly JsonNode[]): JsonArray {
  const known = new Set(elementsOf(array).map(encodeExactly));
  const added = values.filter((value) => {
    const before = known.size;
    return known.add(encodeExactly(exactOf(value))).size > before;
  });
  return withItems(array, array.items.length, added);
}

/** Without the elements that meet a condition, or are equal to a value. */
function pulled(
  array: JsonArray,
  change: UpdateChange & { readonly value: JsonNode },
  at: UpdateApplication,
): JsonArray {
  const { value } = change;
  const elements = elementsOf(array);
  let isPulled: (element: Value) => boolean;
  if (value.kind === 'object') {
    const where = whereSchema.parse(onElement(value));
    at.work += elements.reduce<number>((sum, element) => sum + weightOf(element), 0) * operatorsOf(where);
    if (at.work > PATCH_WORK_MAX)
      throw new AppError('payload_too_large', {
        detail: `${change.place}: the condition has too many operators for an array of this size`,
      });
    const holds = compileWhere(where);
    const isOnMembers = where.kind === 'field' && where.tests.some((test) => 'where' in test);
    isPulled = (element) => (!isOnMembers || isObject(element)) && holds({ [ELEMENTS]: [element] });
  } else {
    const pulledValue = exactOf(value);
    isPulled = (element) => equalValues(element, pulledValue);
  }
  const items = array.items.filter((_, index) => !isPulled(elements[index] as Value));
  return items.length === array.items.length ? array : arrayOf(items);
}

const ELEMENTS = 'elements';
/** Names before those of the condition in the path of a fault of {@link onElement}. */
export const NAMES_BEFORE_CONDITION = 2;

/** A condition on elements as one on a document, for the evaluator of queries. */
export function onElement(condition: JsonNode): Value {
  return { [ELEMENTS]: { $elemMatch: exactOf(condition) } };
}

function requireArray(change: UpdateChange, present: JsonNode, at: UpdateApplication): JsonArray {
  if (present.kind === 'array') return present;
  throw unfit(change, at, `the present value is ${typeName(present)}, not an array`);
}

function typeName(node: JsonNode): string {
  const type = typeOf(exactOf(node));
  if (type === 'null') return type;
  return type === 'object' || type === 'array' ? `an ${type}` : `a ${type}`;
}

function exactOf(node: JsonNode): Value {
  return readValue(treeText(node));
}

function elementsOf(array: JsonArray): readonly Value[] {
  return exactOf(array) as readonly Value[];
}
