import { withoutMetadata } from '@bundoc/client/document';
import { BadLine, type Line } from './ndjson.ts';

/** What a line of an import asks for. */
export type Imported =
  | { readonly op: 'put'; readonly collection: string; readonly id: string; readonly text: string }
  | { readonly op: 'create'; readonly collection: string; readonly text: string }
  | { readonly op: 'delete'; readonly collection: string; readonly id: string };

/**
 * Reads a line: a document with or without `_id`, or a deletion as exports have it. The document's own text
 * stays to the byte; metadata that Bundoc has put in front of it is cut off, as the import gives it new ones.
 *
 * @param collection where documents go that do not say it.
 * @throws BadLine
 */
export function readImportLine({ text, number }: Line, collection: string | undefined): Imported {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new BadLine(`line ${number} is not JSON`, { cause });
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new BadLine(`line ${number} is not a JSON object`);
  const { _id: id, _collection: own, _deleted: deleted } = value as Record<string, unknown>;
  const target = collection ?? own;
  if (typeof target !== 'string')
    throw new BadLine(`line ${number} does not say its collection: name one with --collection`);
  if (id !== undefined && typeof id !== 'string')
    throw new BadLine(`the _id in line ${number} is not a string`);
  if (deleted === true) {
    if (id === undefined) throw new BadLine(`the deletion in line ${number} has no _id`);
    return { op: 'delete', collection: target, id };
  }
  // The service cuts out `_id` by itself; a revision would be a condition, and another collection a
  // contradiction.
  const isPlain = !('_rev' in value) && (own === undefined || own === target);
  const content = isPlain ? text : withoutMetadata(text);
  return id === undefined
    ? { op: 'create', collection: target, text: content }
    : { op: 'put', collection: target, id, text: content };
}
