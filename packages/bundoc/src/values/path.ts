import { isArray, isObject, type Value } from './value.ts';

/** Names of a dotted path, outermost first. */
export type Path = readonly string[];

/** Levels that a path may go down, and characters that it may have. */
export const PATH_DEPTH_MAX = 12;
export const PATH_LENGTH_MAX = 512;

/** Why a text is no path; undefined when it is one. */
export function faultOfPath(text: string): string | undefined {
  if (text.length > PATH_LENGTH_MAX) return `a path has at most ${PATH_LENGTH_MAX} characters`;
  const names = text.split('.');
  if (names.length > PATH_DEPTH_MAX) return `a path goes at most ${PATH_DEPTH_MAX} levels down`;
  if (names.includes('')) return 'a path is names joined by dots, none of them empty';
  if (names.some((name) => name.startsWith('$'))) return 'is no operator that is known here';
  return undefined;
}

export function pathOf(text: string): Path {
  return text.split('.');
}

/**
 * Calls `visit` with each value at a path, until it answers true.
 *
 * A path goes through an array in two ways: into every element that is an object, and, when the name is a
 * whole number, into the element at that place. An array within an array is only gone through by its number.
 * (MongoDB's rules.)
 *
 * Where both ways lead on, as with `0.0` through objects whose name is `0`, ways meet again further down.
 * Each place is looked at once for each rest of the path that leads on from it; otherwise the ways would
 * multiply with each level.
 *
 * @returns whether `visit` did.
 */
export function someAt(value: Value, path: Path, visit: (found: Value) => boolean): boolean {
  return descend(value, path, 0, visit, mayMeet(path) ? new Map() : undefined);
}

/** How far into a path a container was met already: a bit for each depth. */
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
  if (typeof value !== 'object' || wasMet(met, value, depth)) return false;
  if (isArray(value)) {
    const at = INDEX.test(name) ? Number(name) : -1;
    if (at >= 0 && at < value.length && descend(value[at] as Value, path, depth + 1, visit, met)) return true;
    return value.some((element) => isObject(element) && descend(element, path, depth, visit, met));
  }
  if (!isObject(value) || !Object.hasOwn(value, name)) return false;
  return descend(value[name] as Value, path, depth + 1, visit, met);
}

function wasMet(met: Met | undefined, container: Value, depth: number): boolean {
  if (met === undefined) return false;
  const before = met.get(container) ?? 0;
  met.set(container, before | (1 << depth));
  return (before & (1 << depth)) !== 0;
}

/** Whether ways through a document may meet again: only where two names are numbers. */
export function mayMeet(path: Path): boolean {
  let count = 0;
  for (const name of path) if (name.charCodeAt(0) <= DIGIT_NINE) count++;
  return count > 1;
}

const DIGIT_NINE = 0x39;
const INDEX = /^(?:0|[1-9]\d{0,8})$/;

/** {@link someAt}, and for each array there also with its elements: what a comparison looks at. */
export function someOrElementAt(value: Value, path: Path, visit: (found: Value) => boolean): boolean {
  return someAt(value, path, (found) => visit(found) || (isArray(found) && found.some(visit)));
}

/**
 * The first value at a path, which is what a document is sorted and grouped by; undefined when there is none.
 */
export function valueAt(value: Value, path: Path): Value | undefined {
  let first: Value | undefined;
  someAt(value, path, (found) => {
    first = found;
    return true;
  });
  return first;
}
