import { AppError } from '@bundoc/shared/contract/app-error';
import type { RequestPart } from '@bundoc/shared/http/validate';
import { parseJson } from '@bundoc/shared/json/parse';
import { JSON_DEPTH_MAX } from '@bundoc/shared/json/scan';
import { type JsonNode, type JsonObject, memberValue, parseTree } from '@bundoc/shared/json/tree';
import { z } from 'zod';
import { jsonPatchSteps, type PatchLimits, type PatchOperation } from './json-patch.ts';
import { jsonPointerSchema } from './json-pointer.ts';
import { applyMergePatch } from './merge-patch.ts';
import { type ReadUpdate, readUpdate, UPDATE_TYPE, valid } from './read-update.ts';
import { applyUpdate } from './update.ts';

/** The kind of patch for each media type. */
export const PATCH_TYPES = {
  'application/merge-patch+json': 'merge',
  'application/json-patch+json': 'json',
  [UPDATE_TYPE]: 'update',
} as const;
export type PatchKind = (typeof PATCH_TYPES)[keyof typeof PATCH_TYPES];

/** Maximum operations of one JSON Patch. `PATCH_WORK_MAX` bounds their work. */
export const PATCH_OPERATIONS_MAX = 500;

/** The body of a merge patch (RFC 7396): `null` removes a member. */
export const mergePatchSchema = z
  .looseObject({})
  .meta({ description: 'A merge patch (RFC 7396): members to set, and `null` for those to remove' });

/** A valid patch: plain data, so that it can be passed to another thread. */
export type Patch =
  | { readonly kind: 'merge'; readonly tree: JsonObject }
  | {
      readonly kind: 'json';
      readonly operations: readonly PatchOperation[];
      readonly limits: PatchLimits;
      /** The part of the request that contained the patch. */
      readonly part: RequestPart;
    }
  | (ReadUpdate & { readonly kind: 'update'; readonly part: RequestPart })
  | LargePatch;

/** A patch with a large text, which is parsed again where it is applied. */
export interface LargePatch {
  readonly kind: 'large';
  readonly of: PatchKind;
  readonly bytes: Uint8Array;
  readonly part: RequestPart;
}

export const operationSchema = z.discriminatedUnion('op', [
  z.object({ op: z.enum(['add', 'replace', 'test']), path: jsonPointerSchema, value: z.unknown() }),
  z.object({ op: z.literal('remove'), path: jsonPointerSchema }),
  z.object({ op: z.enum(['move', 'copy']), from: jsonPointerSchema, path: jsonPointerSchema }),
]);
/** The body of a JSON Patch (RFC 6902). */
export const operationsSchema = z
  .array(operationSchema)
  .max(PATCH_OPERATIONS_MAX, `must have at most ${PATCH_OPERATIONS_MAX} operations`);

/**
 * Reads a patch of documents of at most `bytesMax` bytes.
 *
 * @throws AppError `invalid_json`, `invalid_patch`; the error repeats no part of the text.
 */
export function readPatch(
  kind: PatchKind,
  bytes: Buffer | undefined,
  bytesMax: number,
  part: RequestPart = 'body',
): Patch {
  const { value, text } = parseJson(bytes);
  return patchOf(kind, parseTree(text), value, bytesMax, part);
}

/**
 * @param tree the parsed text of `value`.
 * @param part the part of the request that contains the text.
 * @throws AppError `invalid_patch`.
 */
export function patchOf(
  kind: PatchKind,
  tree: JsonNode,
  value: unknown,
  bytesMax: number,
  part: RequestPart,
): Patch {
  switch (kind) {
    case 'merge':
      return mergePatchOf(tree);
    case 'json':
      return jsonPatchOf(tree, value, bytesMax, part);
    case 'update':
      return { kind, ...readUpdate(tree, value, part), part };
  }
}

/** @throws AppError `invalid_patch`. */
export function mergePatchOf(tree: JsonNode): Patch {
  if (tree.kind !== 'object') throw invalid('a merge patch of a document must be an object');
  if (tree.members.some(({ name }) => name.startsWith('_'))) throw reservedName();
  return { kind: 'merge', tree };
}

function jsonPatchOf(tree: JsonNode, value: unknown, bytesMax: number, part: RequestPart): Patch {
  const operations = readOperations(tree, value, part);
  return { kind: 'json', operations, limits: { lengthMax: bytesMax, depthMax: JSON_DEPTH_MAX }, part };
}

/** The steps of applying a patch: the caller may yield between them. */
export type PatchSteps = Generator<void, JsonObject, void>;

/**
 * Applies a patch to the own members of a document, as an object. Returns the new members.
 *
 * @throws AppError `patch_test_failed`, `patch_inapplicable`, `payload_too_large`.
 */
export function* patchSteps(own: JsonObject, patch: Patch, bytesMax: number): PatchSteps {
  switch (patch.kind) {
    case 'large': {
      const { of, bytes, part } = patch;
      const read = readPatch(
        of,
        Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength),
        bytesMax,
        part,
      );
      return yield* patchSteps(own, read, bytesMax);
    }
    case 'merge':
      return applyMergePatch(own, patch.tree);
    case 'update':
      return applyUpdate(own, patch.root, patch.part);
    case 'json': {
      const result = yield* jsonPatchSteps(own, patch.operations, patch.limits, patch.part);
      if (result.kind !== 'object')
        throw new AppError('patch_inapplicable', { detail: 'the document would not be an object' });
      if (result.members.some(({ name }) => name.startsWith('_')))
        throw new AppError('patch_inapplicable', { detail: 'a top-level name would begin with "_"' });
      return result;
    }
  }
}

function readOperations(tree: JsonNode, value: unknown, part: RequestPart): readonly PatchOperation[] {
  const parsed = valid(operationsSchema, value, part);
  return parsed.map((operation, at): PatchOperation => {
    requireOwn(operation.path);
    if (operation.op === 'remove') {
      if (operation.path.length === 0) throw invalid('a document cannot be removed by a patch');
      return operation;
    }
    if (operation.op === 'move' || operation.op === 'copy') {
      requireOwn(operation.from);
      if (operation.op === 'move' && isInside(operation.path, operation.from))
        throw invalid('a value cannot be moved into itself');
      return operation;
    }
    const { op, path } = operation;
    const item = tree.kind === 'array' ? tree.items[at]?.value : undefined;
    const node = item?.kind === 'object' ? memberValue(item, 'value') : undefined;
    if (node === undefined) throw invalid(`operation ${at} has no "value"`);
    if (op !== 'test' && path.length === 0 && node.kind !== 'object')
      throw invalid('a document must be an object');
    return { op, path, value: node };
  });
}

/** The store owns the metadata members: a patch sees the document without them. */
function requireOwn(path: readonly string[]): void {
  if (path[0]?.startsWith('_')) throw reservedName();
}

function isInside(path: readonly string[], container: readonly string[]): boolean {
  return path.length > container.length && container.every((step, at) => path[at] === step);
}

function reservedName(): AppError {
  return invalid('a patch must not touch metadata members or other top-level names that begin with "_"');
}

function invalid(detail: string): AppError {
  return new AppError('invalid_patch', { detail });
}
