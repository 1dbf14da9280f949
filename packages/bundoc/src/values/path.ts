import { isArray, isObject, type Value } from './value.ts';

/** Names of a dotted path, outermost first. */
export type Path = readonly string[];

/** Maximum levels of a path, and its maximum characters. */
export const PATH_DEPTH_MAX = 12;
export const PATH_LENGTH_MAX = 512;

/** The fault of an invalid path; undefined for a valid one. */
export function faultOfPath(text: string): string | undefined {
  if (text.length > PATH_LENGTH_MAX) return `a path has at most ${PATH_LENGTH_MAX} characters`;
  const names = text.split('.');
  if (names.length > PATH_DEPTH_MAX) return `a path goes at most ${PATH_DEPTH_MAX} levels down`;
  if (names.includes('')) return 'a path is names joined by dots, none of them empty';
  if (names.some((name) => name.startsWith('$'))) return 'a name in a path must not begin with $';
  return undefined;
}

export function pathOf(text: string): Path {
  return text.split('.');
}

/**
 * Calls `visit` with each value at a path, until it returns true.
 *
 * A path passes through an array in two ways. It enters every element that is an object. If the name is a
 * whole number, it also enters the element at that index. An array inside an array is only entered by its
 * index. (These are MongoDB's rules.)
 *
 * If both ways continue, as with `0.0` through objects with the name `0`, they may meet again further down.
 * Each place is visited once for each rest of the path; otherwise the number of ways would multiply with each
 * level.
 *
 * @returns whether `visit` returned true.
 */
export function someAt(value: Value, path: Path, visit: (found: Value) => boolean): boolean {
  return descend(value, path, 0, visit, mayRevisit(path) ? new Map() : undefined);
}

/** The depths of the path at which a container was already visited, a bit each. */
type Met = Map<Value, number>;

function descend(
  value: Value,
  path: Path,
  depth: number,
  visit: (found: Value) => boolean,
  met: Met | undefined,
): boolean {
  const name = path[depth];
  if (name === undefined) return visit(value);
  if (typeof value !== 'object' || wasVisited(met, value, depth)) return false;
  if (isArray(value)) {
    const at = INDEX.test(name) ? Number(name) : -1;
    if (at >= 0 && at < value.length && descend(value[at] as Value, path, depth + 1, visit, met)) return true;
    return value.some((element) => isObject(element) && descend(element, path, depth, visit, met));
  }
  if (!isObject(value) || !Object.hasOwn(value, name)) return false;
  return descend(value[name] as Value, path, depth + 1, visit, met);
}

function wasVisited(met: Met | undefined, container: Value, depth: number): boolean {
  if (met === undefined) return false;
  const before = met.get(container) ?? 0;
  met.set(container, before | (1 << depth));
  return (before & (1 << depth)) !== 0;
}

/** Whether ways through a document may meet again: only when two names are numbers. */
export function mayRevisit(path: Path): boolean {
  let count = 0;
  for (const name of path) if (name.charCodeAt(0) <= DIGIT_NINE) count++;
  return count > 1;
}

const DIGIT_NINE = 0x39;
const INDEX = /^(?:0|[1-9]\d{0,8})$/;

/** {@link someAt}, and for each array there also its elements: the values that a comparison tests. */
export function someOrElementAt(value: Value, path: Path, visit: (found: Value) => boolean): boolean {
  return someAt(value, path, (found) => visit(found) || (isArray(found) && found.some(visit)));
}

/** The first value at a path, which documents are sorted and grouped by; undefined when there is none. */
export function valueAt(value: Value, path: Path): Value | undefined {
  let first: Value | undefined;
  someAt(value, path, (found) => {
    first = found;
    return true;
  });
  return first;
}
