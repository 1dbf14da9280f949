import { type Metadata, withoutMetadata } from '@bundoc/client/document';
import { faultOf } from '@bundoc/shared/json/place';

/** The original text of a document, and its metadata. */
export interface OwnText {
  readonly text: string;
  readonly metadata: Metadata;
}

/**
 * Cuts the metadata from the start of a document's text, so that the exact original text remains. It never
 * parses and rewrites the text, which would change numbers, order and white space.
 *
 * @param stored the text of a document, or its beginning.
 */
export function ownText(stored: string): OwnText {
  return { text: withoutMetadata(stored), metadata: metadataOf(stored) };
}

/** The start of the last metadata member. Inside a string its quotes would be escaped. */
const LAST = '"_updated":"';

/** The metadata at the start of a document. The rest is not read, however long it is. */
function metadataOf(stored: string): Metadata {
  const end = stored.indexOf('"', stored.indexOf(LAST) + LAST.length) + 1;
  const { _id, _collection, _rev, _created, _updated } = JSON.parse(`${stored.slice(0, end)}}`) as Metadata;
  return { _id, _collection, _rev, _created, _updated };
}

/** The JSON fault with its place and what JSON wants there; undefined for a valid object. */
export function faultOfText(text: string): string | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null && !Array.isArray(value)
      ? undefined
      : 'A document must be a JSON object.';
  } catch {
    return `Invalid JSON: ${faultOf(text)}.`;
  }
}

/** Numbers, from 1, of the lines of `text` that `other` lacks. */
export function differingLines(text: string, other: string): readonly number[] {
  const known = new Map<string, number>();
  for (const line of other.split('\n')) known.set(line, (known.get(line) ?? 0) + 1);
  const differing: number[] = [];
  for (const [at, line] of text.split('\n').entries()) {
    const left = known.get(line) ?? 0;
    if (left === 0) differing.push(at + 1);
    else known.set(line, left - 1);
  }
  return differing;
}
