import type { CallOptions } from './transport.ts';

/** The largest page of lists, queries and changes. */
const PAGE_SIZE_MAX = 1_000;

/**
 * The size of a page, as the service accepts it.
 *
 * @throws RangeError for another one: the service would name its own parameter, `limit`.
 */
export function requirePageSize(pageSize: number | undefined, max = PAGE_SIZE_MAX): number | undefined {
  if (pageSize !== undefined && !(Number.isInteger(pageSize) && pageSize >= 1 && pageSize <= max))
    throw new RangeError(`pageSize: ${shown(pageSize)} is not a whole number from 1 to ${max}`);
  return pageSize;
}

/** The paths of `fields`, as a list takes them. @throws TypeError unless they are a list. */
export function fieldsText(fields: readonly string[] | undefined): string | undefined {
  if (fields !== undefined && !Array.isArray(fields))
    throw new TypeError(`fields: ${shown(fields)} is not a list of paths, such as ["title"]`);
  return fields?.join(',');
}

/** Members that limit a write, and what each must be. Without a value, a write would have no condition. */
const CONDITIONS = { ifMatch: 'a revision', ifNoneMatch: '"*"' } as const;

/**
 * @throws TypeError for a member that is not one of these: it would have no effect. So would a condition
 *   without a value.
 *
 * @param ofNext members of the next argument, which may be given here by mistake.
 */
export function requireKnown(
  place: string,
  given: object,
  known: readonly string[],
  ofNext: readonly string[] = [],
): void {
  if (typeof given !== 'object' || given === null)
    throw new TypeError(`${place}: ${shown(given)} is not an object; known members are ${known.join(', ')}`);
  const other = Object.keys(given).find((name) => !known.includes(name));
  if (other === undefined) {
    requireConditions(place, given);
    return;
  }
  if (ofNext.includes(other))
    throw new TypeError(`${place}.${other}: is an option: give it in the argument after the ${place}`);
  const near = known.find((name) => isLike(other, name));
  const hint = near === undefined ? '' : ` (did you mean ${near}?)`;
  throw new TypeError(`${place}.${other}${hint}: unknown; known are ${known.join(', ')}`);
}

function requireConditions(place: string, given: object): void {
  for (const [name, wanted] of Object.entries(CONDITIONS)) {
    const value = (given as Readonly<Record<string, unknown>>)[name];
    const isRight = name === 'ifNoneMatch' ? value === '*' : typeof value === 'string' && value.trim() !== '';
    if (Object.hasOwn(given, name) && !isRight)
      throw new TypeError(
        `${place}.${name}: ${shown(value)} is not ${wanted}; leave it out to write without a condition`,
      );
  }
}

/** Whether only the spelling differs, or the end: `if_match`, `onExplain`. A page has no `limit`. */
function isLike(other: string, name: string): boolean {
  if (other === 'limit') return name === 'pageSize';
  const letters = (text: string) => text.toLowerCase().replaceAll(/[^a-z]/g, '');
  const [one, two] = [letters(other), letters(name)];
  return one.length > 2 && (one.startsWith(two) || two.startsWith(one));
}

/** A value in a message: a text in quotes, so that it is not taken for a number. */
export function shown(value: unknown): string {
  return typeof value === 'string' ? JSON.stringify(value) : String(value);
}

/**
 * @throws TypeError for `{ where: condition }`, as a query has it. A call that takes the condition itself
 *   would read it as one on a member named `where`, and match nothing.
 */
export function requireCondition(where: object | undefined): void {
  const inner: unknown = Object(where)['where'];
  if (typeof inner !== 'object' || inner === null) return;
  if (Object.keys(inner).some((name) => name.startsWith('$'))) return;
  throw new TypeError(
    'where: give the condition itself, such as { stars: 5 }; for a member named where, { where: { $eq: … } }',
  );
}

/** The names of options of calls. */
export const CALL = ['signal', 'deadlineMs'] as const satisfies readonly (keyof CallOptions)[];
export const WRITE = ['idempotencyKey', ...CALL] as const;
