import { isDeepStrictEqual } from 'node:util';

type NaiveUpdate = Readonly<Record<string, Readonly<Record<string, unknown>>>>;
type Container = Record<string, unknown>;

/** The refusal of an update by {@link updateNaively}. */
export const REFUSED = Symbol('refused');

/**
 * The rules of `docs/updates.md` in their simplest form, on parsed values, one path after another. It knows
 * conditions of `$pull` as functions, `$currentDate` as a value, and numbers as doubles.
 */
export function updateNaively(
  target: unknown,
  update: NaiveUpdate,
  holds: (element: unknown, condition: unknown) => boolean,
): unknown {
  const root = structuredClone(target) as Container;
  for (const [operator, operands] of Object.entries(update))
    for (const [path, operand] of Object.entries(operands)) {
      const names = path.split('.');
      const present = names.reduce<unknown>(memberOf, root);
      const result = resultOf(operator, present, structuredClone(operand), holds);
      if (result === REFUSED) return REFUSED;
      if (result === undefined) remove(root, names);
      else if (!put(root, names, result)) return REFUSED;
    }
  return root;
}

function memberOf(container: unknown, name: string): unknown {
  const isContainer = typeof container === 'object' && container !== null;
  if (!isContainer || (Array.isArray(container) && !/^(0|[1-9]\d*)$/.test(name))) return undefined;
  return Object.hasOwn(container, name) ? (container as Container)[name] : undefined;
}

/** Adds the objects that the path lacks. @returns whether the value has a place. */
function put(root: Container, names: readonly string[], value: unknown): boolean {
  let container: unknown = root;
  for (const [depth, name] of names.entries()) {
    if (typeof container !== 'object' || container === null) return false;
    if (Array.isArray(container) && !(/^(0|[1-9]\d*)$/.test(name) && Number(name) <= container.length))
      return false;
    const members = container as Container;
    if (depth === names.length - 1) members[name] = value;
    else if (!Object.hasOwn(members, name)) members[name] = {};
    container = members[name];
  }
  return true;
}

function remove(root: Container, names: readonly string[]): void {
  const container = names.slice(0, -1).reduce<unknown>(memberOf, root);
  const name = names.at(-1) as string;
  if (memberOf(container, name) === undefined) return;
  if (Array.isArray(container)) container[Number(name)] = null;
  else delete (container as Container)[name];
}

function resultOf(
  operator: string,
  present: unknown,
  operand: unknown,
  holds: (element: unknown, condition: unknown) => boolean,
): unknown {
  const {
    $each = [operand],
    $position,
    $slice,
  } = (isPlainObject(operand) ? operand : {}) as {
    $each?: unknown[];
    $position?: number;
    $slice?: number;
  };
  const needed = (type: 'number' | 'array') =>
    type === 'array' ? Array.isArray(present ?? []) : typeof (present ?? 0) === 'number';
  switch (operator) {
    case '$set':
      return operand;
    case '$unset':
      return undefined;
    case '$inc':
    case '$mul': {
      if (present === null || !needed('number')) return REFUSED;
      const number = (present ?? 0) as number;
      return (operator === '$inc' ? number + (operand as number) : number * (operand as number)) + 0;
    }
    case '$min':
      return present === undefined || rankOf(operand) < rankOf(present) ? operand : present;
    case '$max':
      return present === undefined || rankOf(operand) > rankOf(present) ? operand : present;
    default:
      if (present === null || !needed('array')) return REFUSED;
  }
  const array = present as unknown[] | undefined;
  switch (operator) {
    case '$push': {
      const items = [...(array ?? [])];
      items.splice($position ?? items.length, 0, ...$each);
      if ($slice === undefined) return items;
      return $slice < 0 ? items.slice($slice) : items.slice(0, $slice);
    }
    case '$addToSet': {
      const items = [...(array ?? [])];
      for (const one of $each) if (!items.some((item) => isDeepStrictEqual(item, one))) items.push(one);
      return items;
    }
    case '$pull':
      return array?.filter((item) =>
        isPlainObject(operand) ? !holds(item, operand) : !isDeepStrictEqual(item, operand),
      );
    default:
      throw new RangeError(operator);
  }
}

function isPlainObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** A number for each value that tests order: null, booleans, numbers, texts of one letter. */
function rankOf(value: unknown): number {
  if (value === null) return -1e9;
  if (typeof value === 'boolean') return -1e8 + Number(value);
  if (typeof value === 'number') return value;
  if (typeof value === 'string') return 1e8 + (value.codePointAt(0) ?? 0);
  return Array.isArray(value) ? 1e9 : 1e10;
}
