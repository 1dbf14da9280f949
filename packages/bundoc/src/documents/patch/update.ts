import { AppError } from '@bundoc/shared/contract/app-error';
import { JSON_DEPTH_MAX } from '@bundoc/shared/json/scan';
import {
  arrayOf,
  type JsonArray,
  type JsonMember,
  type JsonNode,
  type JsonObject,
  objectOf,
  scalarOf,
  withItems,
  withNewMembers,
} from '@bundoc/shared/json/tree';
import { arrayIndex } from './json-pointer.ts';
import { effectOf, type UpdateApplication, type UpdateChange, unfit } from './update-operators.ts';

/** The changes below one place of the document, by the next name of their paths. Plain data. */
export interface UpdateBranch {
  readonly op: 'below';
  readonly steps: readonly (readonly [name: string, step: UpdateStep])[];
}
export type UpdateStep = UpdateBranch | UpdateChange;

const NOTHING = objectOf([]);
const NULL = scalarOf('null');

/**
 * Applies an update to an object. The changes are in different places, so their order has no effect on
 * values. What is not named stays verbatim in its place; new members follow in the order of the update.
 * Linear in the size of both.
 *
 * @throws AppError `patch_inapplicable`, with the place of the change in `errors`; `payload_too_large`.
 */
export function applyUpdate(own: JsonObject, root: UpdateBranch, part: string): JsonObject {
  const at: UpdateApplication = { part, now: new Date().toISOString(), work: 0 };
  const updated = inObject(own, root, at);
  if (updated.depth > JSON_DEPTH_MAX)
    throw new AppError('patch_inapplicable', {
      detail: `the document would nest deeper than ${JSON_DEPTH_MAX}`,
    });
  return updated;
}

/**
 * The value at a place after a step; undefined for none.
 *
 * @param obstacle why there can be no new value. Changes that make none are still possible.
 */
function after(
  present: JsonNode | undefined,
  step: UpdateStep,
  at: UpdateApplication,
  obstacle?: string,
): JsonNode | undefined {
  if (step.op !== 'below') {
    const value = effectOf(step, present, at);
    if (obstacle !== undefined && value !== undefined) throw unfit(step, at, obstacle);
    return value;
  }
  switch (present?.kind) {
    case 'object':
      return inObject(present, step, at);
    case 'array':
      return inArray(present, step, at);
    case 'scalar':
      inObject(NOTHING, step, at, 'the path leads into a value that is neither an object nor an array');
      return present;
    case undefined: {
      const made = inObject(NOTHING, step, at, obstacle);
      return made === NOTHING ? undefined : made;
    }
  }
}

function inObject(
  object: JsonObject,
  { steps }: UpdateBranch,
  at: UpdateApplication,
  obstacle?: string,
): JsonObject {
  const pending = new Map(steps);
  let isChanged = false;
  const members: JsonMember[] = [];
  for (const member of object.members) {
    const step = pending.get(member.name);
    pending.delete(member.name);
    const value = step === undefined ? member.value : after(member.value, step, at);
    if (value !== member.value) isChanged = true;
    if (value !== undefined) members.push(value === member.value ? member : { ...member, value });
  }
  const added = [...pending].flatMap(([name, step]) => {
    const value = after(undefined, step, at, obstacle);
    return value === undefined ? [] : [{ name, nameText: JSON.stringify(name), value }];
  });
  if (!isChanged && added.length === 0) return object;
  return withNewMembers(objectOf(members), added);
}

/** An item that is unset becomes null, so that the others keep their indexes. */
function inArray(array: JsonArray, { steps }: UpdateBranch, at: UpdateApplication): JsonArray {
  const items = [...array.items];
  const added: JsonNode[] = [];
  let isChanged = false;
  for (const [name, step] of steps) {
    const index = arrayIndex(name);
    const item = items[index ?? -1];
    if (index !== undefined && item !== undefined) {
      const value = after(item.value, step, at) ?? NULL;
      if (value !== item.value) isChanged = true;
      items[index] = { ...item, value };
      continue;
    }
    const length = items.length + added.length;
    const obstacle = `the path leads into an array: it must name an item by its index, at most ${length}`;
    const value = after(undefined, step, at, index === length ? undefined : obstacle);
    if (value !== undefined) added.push(value);
  }
  return isChanged || added.length > 0 ? withItems(arrayOf(items), items.length, added) : array;
}
