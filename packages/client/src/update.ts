import { JsonText, jsonOf } from './document.ts';

/** Operands by the paths of members, joined by dots. */
type ByPath<Operand> = Readonly<Record<string, Operand>>;
/** Values by path: those of members of `T` have their types. */
type Values<T> = Readonly<Partial<T>> & ByPath<unknown>;

/**
 * An update of a document (`docs/updates.md`): `{ $inc: { stars: 1 }, $set: { 'author.name': 'Ada' } }`.
 *
 * `T` is the type of its content.
 */
export interface Update<T extends object = Record<string, unknown>> {
  readonly $set?: Values<T>;
  /** The operands are ignored. */
  readonly $unset?: ByPath<unknown>;
  readonly $inc?: ByPath<number>;
  readonly $mul?: ByPath<number>;
  readonly $min?: Values<T>;
  readonly $max?: Values<T>;
  /** A value; or several, `{ $each, $position, $slice }`. */
  readonly $push?: ByPath<unknown>;
  /** A value; or several, `{ $each }`. */
  readonly $addToSet?: ByPath<unknown>;
  /** A value, or a condition as in a query, for the elements to remove. */
  readonly $pull?: ByPath<unknown>;
  readonly $currentDate?: ByPath<true | { readonly $type: 'date' }>;
}

/** All of {@link Update}. */
const OPERATORS = new Set(
  '$set $unset $inc $mul $min $max $push $addToSet $pull $currentDate'.split(' '),
) as ReadonlySet<string>;

/**
 * A merge patch or a JSON Patch as JSON.
 *
 * @throws TypeError for an operator in a merge patch, where it would become a member of the document.
 */
export function patchText(place: string, patch: object): string {
  if (patch instanceof JsonText) return patch.text;
  const operator = Object.keys(patch).find((name) => OPERATORS.has(name));
  if (operator !== undefined)
    throw new TypeError(
      `${place}.${operator}: is an operator of an update, not of a patch; for a member of this name, send a JsonText`,
    );
  return jsonOf(place, patch);
}

/** Whether the text of a patch is a JSON Patch, which is an array. */
export function isJsonPatch(text: string): boolean {
  return text.trimStart().startsWith('[');
}

/**
 * An update as JSON.
 *
 * @throws TypeError for another value than an object, and for `undefined` in it. JSON would leave that out,
 *   and a condition of `$pull` would remove more.
 */
export function updateText(place: string, update: object): string {
  if (update instanceof JsonText) return update.text;
  if (typeof update !== 'object' || update === null || Array.isArray(update))
    throw new TypeError(`${place}: must be an object of operators, such as { $inc: { stars: 1 } }`);
  return jsonOf(place, update, true);
}
