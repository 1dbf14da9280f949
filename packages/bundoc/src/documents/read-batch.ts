import assert from 'node:assert/strict';
import { AppError } from '@bundoc/shared/contract/app-error';
import { type BatchOperationInput, batchSchema } from '@bundoc/shared/contract/batch';
import { validate } from '@bundoc/shared/http/validate';
import { parseJsonObject } from '@bundoc/shared/json/parse';
import { JSON_DEPTH_MAX, type LocatedMember, locateObjects, valueStartOf } from '@bundoc/shared/json/scan';
import { parseTree } from '@bundoc/shared/json/tree';
import { documentBodyOf } from '../crypto/stored-text.ts';
import type { Precondition } from '../engine/port/port.ts';
import { copyOf, TREE_BYTES_MAX } from '../work/large-bytes.ts';
import { requireSame, withRevision } from './body-metadata.ts';
import { documentIdOfBody, newDocumentId } from './document-id.ts';
import type { BatchOperation } from './operation.ts';
import { PATCH_TYPES, type Patch, patchOf } from './patch/read-patch.ts';

/** Nesting levels of a batch around a document: the object, the list, the operation. */
const LEVELS_AROUND = 3;

export interface BatchLimits {
  /** Maximum bytes of a document or a patch. */
  readonly documentBytesMax: number;
}

/** Parses an operation's `if_match`. @throws AppError `invalid_request`. */
export type ReadIfMatch = (value: string, path: string) => Precondition;

/**
 * Reads the body of a batch. Each document keeps its bytes and follows the rules of a PUT.
 *
 * @throws AppError `invalid_json`; `invalid_request`, also for two operations on one document;
 *   `invalid_document`, `invalid_patch`, `payload_too_large`, with the place of the operation in `errors`.
 */
export function readBatch(
  bytes: Buffer,
  limits: BatchLimits,
  readIfMatch: ReadIfMatch,
): readonly BatchOperation[] {
  const { value, scan } = parseJsonObject(bytes, JSON_DEPTH_MAX + LEVELS_AROUND);
  const { operations } = validate(batchSchema, value, 'body');
  const list = scan.members.find(({ name }) => name === 'operations');
  assert(list !== undefined);
  // The members of an operation, and of the document in it.
  const located = locateObjects(bytes, valueStartOf(bytes, list), 1);
  const seen = new Set<string>();
  return operations.map((input, at) => {
    const path = `body.operations.${at}` as const;
    const members = located[at]?.members ?? [];
    const operation = inPlace(path, () =>
      readOperation({ bytes, input, members, path, limits, readIfMatch }),
    );
    const key = `${operation.ref.collection}\0${operation.ref.id}`;
    if (seen.has(key))
      throw new AppError('invalid_request', {
        errors: [{ path, message: 'is the second operation on the same document' }],
      });
    seen.add(key);
    return operation;
  });
}

interface OperationPart {
  readonly bytes: Buffer;
  readonly input: BatchOperationInput;
  readonly members: readonly LocatedMember[];
  readonly path: `body.${string}`;
  readonly limits: BatchLimits;
  readonly readIfMatch: ReadIfMatch;
}

function readOperation(place: OperationPart): BatchOperation {
  const { input, path, readIfMatch } = place;
  const { collection } = input;
  const ifMatch = 'if_match' in input ? input.if_match : undefined;
  const asked: Precondition =
    ifMatch === undefined ? { kind: 'none' } : readIfMatch(ifMatch, `${path}.if_match`);
  switch (input.op) {
    case 'put': {
      const { content, rev } = readDocument(place, input.document, input.id);
      const precondition = withRevision(putPrecondition(asked, input.if_none_match, path), rev);
      return { op: 'put', ref: { collection, id: input.id }, content, precondition };
    }
    case 'create': {
      const { content, id: inBody } = readDocument(place, input.document, input.id);
      const id = input.id ?? (inBody === undefined ? newDocumentId() : documentIdOfBody(inBody));
      return { op: 'put', ref: { collection, id }, content, precondition: { kind: 'absent' } };
    }
    case 'patch':
      return {
        op: 'patch',
        ref: { collection, id: input.id },
        patch: readPatchOf(place, input),
        precondition: asked,
      };
    case 'delete':
      return {
        op: 'delete',
        ref: { collection, id: input.id },
        precondition: asked.kind === 'none' ? { kind: 'present' } : asked,
      };
  }
}

function putPrecondition(asked: Precondition, ifNoneMatch: '*' | undefined, path: string): Precondition {
  if (ifNoneMatch === undefined) return asked;
  if (asked.kind === 'none') return { kind: 'absent' };
  throw new AppError('invalid_request', {
    errors: [{ path, message: 'must not have both if_match and if_none_match' }],
  });
}

function readDocument(place: OperationPart, value: unknown, id: string | undefined) {
  const { bytes, input, limits } = place;
  const { inner } = memberOf(place, 'document', limits.documentBytesMax);
  if (inner === undefined) throw new AppError('invalid_document', { detail: 'a document must be an object' });
  const body = documentBodyOf(bytes, value as Record<string, unknown>, inner);
  if (id !== undefined) requireSame('_id', body.id, id);
  requireSame('_collection', body.collection, input.collection);
  return body;
}

function readPatchOf(place: OperationPart, input: Extract<BatchOperationInput, { op: 'patch' }>): Patch {
  const { bytes, path, limits } = place;
  const kinds = Object.values(PATCH_TYPES).filter((kind) => input[kind] !== undefined);
  const [kind] = kinds;
  if (kind === undefined || kinds.length > 1)
    throw new AppError('invalid_request', {
      errors: [{ path, message: 'must have one of "merge", "json" and "update"' }],
    });
  const { valueStart, valueEnd } = memberOf(place, kind, limits.documentBytesMax);
  const tree = parseTree(bytes.toString('utf8', valueStart, valueEnd));
  const part = `${path}.${kind}` as const;
  const patch = patchOf(kind, tree, input[kind], limits.documentBytesMax, part);
  if (valueEnd - valueStart <= TREE_BYTES_MAX) return patch;
  // Keeps only the text, which takes a fraction of the memory.
  return { kind: 'large', of: kind, bytes: copyOf(bytes.subarray(valueStart, valueEnd)), part };
}

/** @throws AppError `invalid_request` for an absent member; `payload_too_large`. */
function memberOf({ members, path }: OperationPart, name: string, bytesMax: number): LocatedMember {
  const member = members.find((one) => one.name === name);
  if (member === undefined)
    throw new AppError('invalid_request', { errors: [{ path: `${path}.${name}`, message: 'is required' }] });
  if (member.valueEnd - member.valueStart > bytesMax) throw new AppError('payload_too_large');
  return member;
}

/** Adds the operation's path to a refusal. */
function inPlace<T>(path: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (!(error instanceof AppError) || error.errors !== undefined) throw error;
    throw new AppError(error.code, { errors: [{ path, message: error.detail ?? 'is too large' }] });
  }
}
