import { AppError } from '@bundoc/shared/contract/app-error';
import { equalTrees } from '@bundoc/shared/json/equal';
import {
  type JsonArray,
  type JsonNode,
  type JsonObject,
  memberValue,
  withItem,
  withItemReplaced,
  withMember,
  withoutItem,
  withoutMember,
} from '@bundoc/shared/json/tree';
import { arrayIndex, indexOf, valueAt } from './json-pointer.ts';

type Steps = readonly string[];

/** One operation of a JSON Patch (RFC 6902), with parsed pointers and verbatim values. */
export type PatchOperation =
  | { readonly op: 'add' | 'replace' | 'test'; readonly path: Steps; readonly value: JsonNode }
  | { readonly op: 'remove'; readonly path: Steps }
  | { readonly op: 'move' | 'copy'; readonly from: Steps; readonly path: Steps };

/** Limits on the document after each step of a patch: `copy` doubles its size. */
export interface PatchLimits {
  /** UTF-16 units. */
  readonly lengthMax: number;
  readonly depthMax: number;
}

/**
 * Maximum total of members and items in the containers that the operations of one patch visit. Each operation
 * takes time in proportion to them; none starts beyond the limit.
 */
export const PATCH_WORK_MAX = 5_000_000;

/**
 * Applies the operations in order, all or none, and yields between them. Untouched parts stay verbatim.
 *
 * @param part of the request that the operations came in.
 * @throws AppError `patch_test_failed`, `patch_inapplicable`, with the place of the operation in `errors`;
 *   `payload_too_large` when any step exceeds the document's limit, or the work exceeds {@link
 *   PATCH_WORK_MAX}.
 */
export function* jsonPatchSteps(
  target: JsonNode,
  operations: readonly PatchOperation[],
  { lengthMax, depthMax }: PatchLimits,
  part: string = 'body',
): Generator<void, JsonNode, void> {
  let work = 0;
  let root = target;
  for (const [at, operation] of operations.entries()) {
    if (at > 0) yield;
    if (work > PATCH_WORK_MAX)
      throw new AppError('payload_too_large', {
        detail: `the patch has too many operations on containers of this size: split it before operation ${at}`,
      });
    work += widthOf(root, operation.path);
    if ('from' in operation) work += widthOf(root, operation.from);
    try {
      const changed = apply(root, operation);
      if (changed.length > lengthMax)
        throw new AppError('payload_too_large', { detail: 'the patch makes the document too large' });
      if (changed.depth > depthMax) throw inapplicable(`the document would nest deeper than ${depthMax}`);
      root = changed;
    } catch (error) {
      if (!(error instanceof Misfit)) throw error;
      throw new AppError(error.code, { errors: [{ path: `${part}.${at}`, message: error.message }] });
    }
  }
  return root;
}

/** Members and items of all containers on a path, as far as it exists. */
function widthOf(root: JsonNode, path: Steps): number {
  let width = 0;
  let node: JsonNode | undefined = root;
  for (const step of path) {
    if (node === undefined || node.kind === 'scalar') break;
    width += node.kind === 'object' ? node.members.length : node.items.length;
    node = valueAt(node, [step]);
  }
  return width;
}

/** Why an operation does not apply to the document. */
class Misfit extends Error {
  readonly code: 'patch_test_failed' | 'patch_inapplicable';

  constructor(code: 'patch_test_failed' | 'patch_inapplicable', message: string) {
    super(message);
    this.code = code;
  }
}

function inapplicable(message: string): Misfit {
  return new Misfit('patch_inapplicable', message);
}

function apply(root: JsonNode, operation: PatchOperation): JsonNode {
  switch (operation.op) {
    case 'test':
      return test(root, operation.path, operation.value);
    case 'add':
      return edit(root, operation.path, addIn, operation.value);
    case 'replace':
      return edit(root, operation.path, replaceIn, operation.value);
    case 'remove':
      return remove(root, operation.path);
    case 'copy':
      return edit(root, operation.path, addIn, requireValueAt(root, operation.from));
    case 'move': {
      const value = requireValueAt(root, operation.from);
      if (isSame(operation.from, operation.path)) return root;
      return edit(remove(root, operation.from), operation.path, addIn, value);
    }
  }
}

function test(root: JsonNode, path: Steps, expected: JsonNode): JsonNode {
  const value = valueAt(root, path);
  if (value === undefined) throw new Misfit('patch_test_failed', 'there is no value at the path');
  if (!equalTrees(value, expected)) throw new Misfit('patch_test_failed', 'the value is another one');
  return root;
}

function requireValueAt(root: JsonNode, from: Steps): JsonNode {
  const value = valueAt(root, from);
  if (value === undefined) throw inapplicable('there is no value at "from"');
  return value;
}

type Container = JsonArray | JsonObject;

/** Changes the member or item that the last step of a path names in its container. */
type Put = (container: Container, step: string, value: JsonNode) => JsonNode;

/** The tree with a value put at a path. */
function edit(root: JsonNode, path: Steps, put: Put, value: JsonNode): JsonNode {
  return path.length === 0 ? value : descend(root, path, 0, (container, step) => put(container, step, value));
}

function isSame(a: Steps, b: Steps): boolean {
  return a.length === b.length && a.every((step, at) => step === b[at]);
}

/** @param path is not the root's: `read-patch.ts` refuses a patch that removes the document. */
function remove(root: JsonNode, path: Steps): JsonNode {
  return descend(root, path, 0, removeIn);
}

function descend(
  node: JsonNode,
  path: Steps,
  at: number,
  change: (container: Container, step: string) => JsonNode,
): JsonNode {
  const step = path[at];
  if (step === undefined || node.kind === 'scalar') throw inapplicable('nothing contains the path');
  if (at === path.length - 1) return change(node, step);
  if (node.kind === 'object') {
    const child = memberValue(node, step);
    if (child === undefined) throw inapplicable('nothing contains the path');
    return withMember(node, step, descend(child, path, at + 1, change));
  }
  const index = indexOf(node, step);
  const item = node.items[index ?? -1];
  if (index === undefined || item === undefined) throw inapplicable('nothing contains the path');
  return withItemReplaced(node, index, descend(item.value, path, at + 1, change));
}

const addIn: Put = (container, step, value) => {
  if (container.kind === 'object') return withMember(container, step, value);
  const index = step === '-' ? container.items.length : arrayIndex(step);
  if (index === undefined || index > container.items.length)
    throw inapplicable('the path is not a place of the array');
  return withItem(container, index, value);
};

const replaceIn: Put = (container, step, value) => {
  if (container.kind === 'object') {
    if (memberValue(container, step) === undefined) throw inapplicable('there is no value at the path');
    return withMember(container, step, value);
  }
  return withItemReplaced(container, presentIndex(container, step), value);
};

function removeIn(container: Container, step: string): JsonNode {
  if (container.kind === 'array') return withoutItem(container, presentIndex(container, step));
  if (memberValue(container, step) === undefined) throw inapplicable('there is no value at the path');
  return withoutMember(container, step);
}

function presentIndex(array: JsonArray, step: string): number {
  const index = indexOf(array, step);
  if (index === undefined) throw inapplicable('there is no value at the path');
  return index;
}
