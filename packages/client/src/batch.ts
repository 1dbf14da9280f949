import { type PatchOperation, tagOf } from './collection.ts';
import { type Content, type JsonText, type Metadata, textOf } from './document.ts';
import { requireKnown } from './options.ts';
import { isJsonPatch, patchText, type Update, updateText } from './update.ts';

/** One operation of a batch. */
export type BatchOperation =
  | {
      readonly op: 'put';
      readonly collection: string;
      readonly id: string;
      readonly document: Content<object>;
      /** As in `Collection.put`. */
      readonly ifMatch?: string;
      readonly ifNoneMatch?: '*';
    }
  | {
      readonly op: 'create';
      readonly collection: string;
      /** When absent, the service creates an id that sorts by time. */
      readonly id?: string | undefined;
      readonly document: Content<object>;
    }
  | {
      readonly op: 'patch';
      readonly collection: string;
      readonly id: string;
      /** An object is a merge patch; an array is a JSON Patch. A `JsonText` is sent unchanged. */
      readonly patch: object | readonly PatchOperation[] | JsonText;
      readonly ifMatch?: string;
    }
  | {
      readonly op: 'patch';
      readonly collection: string;
      readonly id: string;
      /** As in `Collection.update`. */
      readonly update: Update | JsonText;
      readonly ifMatch?: string;
    }
  | {
      readonly op: 'delete';
      readonly collection: string;
      readonly id: string;
      readonly ifMatch?: string;
    };

/** The result of one operation. */
export type BatchResult =
  | (Metadata & { readonly created: boolean })
  | { readonly _id: string; readonly _collection: string; readonly deleted: true };

const MEMBERS: Readonly<Record<string, readonly string[]>> = {
  put: ['op', 'collection', 'id', 'document', 'ifMatch', 'ifNoneMatch'],
  create: ['op', 'collection', 'id', 'document'],
  patch: ['op', 'collection', 'id', 'patch', 'ifMatch'],
  delete: ['op', 'collection', 'id', 'ifMatch'],
} satisfies Record<BatchOperation['op'], readonly string[]>;

/** Of `patch`, when it has `update`. */
const UPDATE_MEMBERS = ['op', 'collection', 'id', 'update', 'ifMatch'];

/** The service creates an id for `create`. */
function isRequired(op: BatchOperation['op'], name: string): boolean {
  return !name.startsWith('if') && !(op === 'create' && name === 'id');
}

/**
 * The body of a batch. Exact texts are kept to the byte.
 *
 * @throws TypeError for an unknown operation or member, and for an absent one that is required.
 */
export function batchText(operations: readonly BatchOperation[]): string {
  if (!Array.isArray(operations)) throw new TypeError('operations: must be a list of operations');
  return `{"operations":[${operations.map(operationText).join(',')}]}`;
}

function operationText(operation: BatchOperation, at: number): string {
  const { op, collection, id } = operation;
  const place = `operations[${at}]`;
  if (op === undefined) throw new TypeError(`${place}.op: is required`);
  const isUpdate = op === 'patch' && 'update' in operation;
  const known = isUpdate ? UPDATE_MEMBERS : Object.hasOwn(MEMBERS, op) ? MEMBERS[op] : undefined;
  if (known === undefined)
    throw new TypeError(`${place}.op: ${op}: unknown; known are ${Object.keys(MEMBERS).join(', ')}`);
  requireKnown(place, operation, known);
  const absent = known.find((name) => isRequired(op, name) && operation[name as 'op'] === undefined);
  if (absent !== undefined) throw new TypeError(`${place}.${absent}: is required`);
  const members = [`"op":"${op}"`, `"collection":${JSON.stringify(collection)}`];
  if (id !== undefined) members.push(`"id":${JSON.stringify(id)}`);
  if ('document' in operation) members.push(`"document":${textOf(operation.document)}`);
  if ('patch' in operation) {
    const text = patchText(`${place}.patch`, operation.patch);
    members.push(`"${isJsonPatch(text) ? 'json' : 'merge'}":${text}`);
  }
  if ('update' in operation) members.push(`"update":${updateText(`${place}.update`, operation.update)}`);
  if ('ifMatch' in operation) members.push(`"if_match":${JSON.stringify(tagOf(operation.ifMatch))}`);
  if ('ifNoneMatch' in operation) members.push(`"if_none_match":${JSON.stringify(operation.ifNoneMatch)}`);
  return `{${members.join(',')}}`;
}
