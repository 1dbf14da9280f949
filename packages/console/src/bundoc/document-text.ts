import { type Metadata, withoutMetadata } from '@bundoc/client/document';

/** A document's own text, as its writer wrote it, and what Bundoc says of it. */
export interface OwnText {
  readonly text: string;
  readonly metadata: Metadata;
}

/**
 * Takes the metadata off the front of a document's text, so that what is left is the writer's own text to
 * the character. It is cut and never parsed and written again: that would change numbers, order and white
 * space.
 *
 * @param stored the text of a document, or how it begins.
 */
export function ownText(stored: string): OwnText {
  return { text: withoutMetadata(stored), metadata: metadataOf(stored) };
}

/** Begins the last of the metadata. Inside of a string, its quotes would be escaped. */
const LAST = '"_updated":"';

/** The metadata at the front of a document, however long it is: the rest is not looked at. */
function metadataOf(stored: string): Metadata {
  const end = stored.indexOf('"', stored.indexOf(LAST) + LAST.length) + 1;
  const { _id, _collection, _rev, _created, _updated } = JSON.parse(`${stored.slice(0, end)}}`) as Metadata;
  return { _id, _collection, _rev, _created, _updated };
}

/** Where JSON is at fault: `line 3, column 7`; undefined for an object that can be sent. */
export function faultOfText(text: string): string | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null && !Array.isArray(value)
      ? undefined
      : 'A document must be a JSON object.';
  } catch (error) {
    const message = (error as Error).message;
    const position = /position (\d+)/.exec(message)?.[1];
    if (position === undefined) return 'This is no complete JSON yet.';
    const before = text.slice(0, Number(position)).split('\n');
    return `This is no JSON yet: line ${before.length}, column ${(before.at(-1)?.length ?? 0) + 1}.`;
  }
}

/** Lines of `text` that `other` does not have, by number from 1. */
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
