import { withoutMetadata } from '@bundoc/client/document';
import { faultOf } from '@bundoc/shared/json/place';
import { InvalidLine, type Line } from './ndjson.ts';

/** The operation of one import line. `from` is the collection that the line itself names. */
export type Imported = { readonly from: string | undefined } & (
  | { readonly op: 'put'; readonly collection: string; readonly id: string; readonly text: string }
  | { readonly op: 'create'; readonly collection: string; readonly text: string }
  | { readonly op: 'delete'; readonly collection: string; readonly id: string }
);

/**
 * Parses a line: a document with or without `_id`, or a deletion from an export. The document's text is kept
 * byte for byte. Metadata that Bundoc has written at its start is removed, because the import assigns new
 * metadata.
 *
 * @param collection the collection of every line; by default the one that the line names.
 * @throws InvalidLine
 */
export function readImportLine({ text, number }: Line, collection: string | undefined): Imported {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    const fault = faultOf(text).replace(/^line 1, /, '');
    const hint = number === 1 ? '; --format takes exports of other systems' : '';
    throw new InvalidLine(`line ${number} is not JSON: ${fault}${hint}`, { cause });
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new InvalidLine(
      `line ${number} is not a JSON object: NDJSON has one document on each line, and --format takes other formats`,
    );
  const { _id: id, _collection: own, _deleted: deleted } = value as Record<string, unknown>;
  const target = collection ?? own;
  const from = typeof own === 'string' ? own : undefined;
  if (typeof target !== 'string')
    throw new InvalidLine(`line ${number} does not say its collection: name one with --collection`);
  if (id !== undefined && typeof id !== 'string')
    throw new InvalidLine(
      `the _id in line ${number} is not a string; of MongoDB, import it with --format mongoexport`,
    );
  if (deleted === true) {
    if (id === undefined) throw new InvalidLine(`the deletion in line ${number} has no _id`);
    return { op: 'delete', collection: target, id, from };
  }
  // The service itself removes `_id`; a `_rev` would be a precondition, and another collection a
  // contradiction.
  const isPlain = !('_rev' in value) && (own === undefined || own === target);
  const content = isPlain ? text : withoutMetadata(text);
  return id === undefined
    ? { op: 'create', collection: target, text: content, from }
    : { op: 'put', collection: target, id, text: content, from };
}
