import { AppError } from '@bundoc/shared/contract/app-error';
import { documentIdSchema } from '@bundoc/shared/contract/documents';
import { parseJsonObject } from '@bundoc/shared/json/parse';
import { decodeString, type JsonNode, type JsonObject, parseTree } from '@bundoc/shared/json/tree';
import { InvalidLine, type Line } from '../operations/ndjson.ts';
import { type ElementRules, elementsOf } from './json-elements.ts';

/** A format of another system. */
export interface ForeignFormat extends ElementRules {
  /** Whether a source without any text is an export, of an empty collection. */
  readonly mayBeEmpty: boolean;
  /** Makes a reader of the elements of one source; undefined for an element without a document. */
  readonly reader: () => (element: JsonObject) => ForeignDocument | undefined;
}

/** A document of another system, in the texts of this one. */
export interface ForeignDocument {
  readonly id: string | undefined;
  readonly collection?: string | undefined;
  /** The members: each name decoded, and the exact JSON text of the value. */
  readonly members: readonly (readonly [name: string, text: string])[];
  /** What the export lacks of it. */
  readonly warning?: string | undefined;
}

/** A document that cannot be represented; the others can. The message has the path and the reason. */
export class RefusedDocument extends Error {
  override readonly name = 'RefusedDocument';
}

/** @param path the members and indexes from the root, joined by dots. */
export function refusal(path: string, reason: string): RefusedDocument {
  return new RefusedDocument(path === '' ? reason : `${path}: ${reason}`);
}

/** The path of a member or item. */
export function pathTo(path: string, name: string | number): string {
  return path === '' ? String(name) : `${path}.${name}`;
}

/** The decoded value of a node that is a string, else undefined. */
export function stringOf(node: JsonNode | undefined): string | undefined {
  return node?.kind === 'scalar' && node.text.startsWith('"') ? decodeString(node.text) : undefined;
}

/** The number of JSON with this text. */
export const NUMBER = /^-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?$/;
/** The numbers that JSON does not have. */
export const NOT_FINITE: ReadonlySet<string | undefined> = new Set(['NaN', 'Infinity', '-Infinity']);

const TIME = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:?\d\d)$/;

/**
 * A time in RFC 3339 and UTC, as Bundoc writes times: with milliseconds, and further digits only if they are
 * not zero. Undefined for other texts.
 */
export function timeText(text: string): string | undefined {
  const [, seconds, fraction = '', zone = ''] = TIME.exec(text) ?? [];
  if (seconds === undefined) return undefined;
  const ms = Date.parse(seconds + zone.replace(/^(...)(\d\d)$/, '$1:$2'));
  // A day that the month does not have becomes another one.
  if (Number.isNaN(ms) || !new Date(`${seconds}Z`).toISOString().startsWith(seconds)) return undefined;
  const digits = fraction.replace(/0+$/, '').padEnd(3, '0');
  const utc = new Date(ms).toISOString();
  return utc.length === 24 ? `${utc.slice(0, 19)}.${digits}Z` : undefined;
}

/** The nesting that a text may have: each level of a document has up to three in Firestore. */
const DEPTH_MAX = 400;

export interface ForeignReport {
  /** Documents that cannot be represented. */
  refused: number;
  /** Elements without a document: deletions and the like. */
  skipped: number;
}

/**
 * The documents of a source of another system, as lines of NDJSON with `_id` and `_collection`.
 *
 * @param say takes a sentence for each document that is refused, or written with a warning.
 * @param report counts these.
 * @throws InvalidLine if the source is not of this format at all.
 */
export async function* foreignLines(
  source: AsyncIterable<Buffer>,
  format: ForeignFormat,
  say: (sentence: string) => void,
  report: ForeignReport,
): AsyncGenerator<Line, void, void> {
  const read = format.reader();
  let isEmpty = true;
  async function* withEnd(): AsyncGenerator<Buffer, void, void> {
    for await (const chunk of source) {
      isEmpty = false;
      yield chunk;
    }
    if (isEmpty && !format.mayBeEmpty) throw new InvalidLine('the source is empty: did the export fail?');
  }
  let count = 0;
  for await (const { bytes, line, end } of elementsOf(withEnd(), format)) {
    count++;
    const place = `document ${count}, line ${line}`;
    try {
      const document = read(objectOf(bytes, line));
      if (document === undefined) {
        report.skipped++;
        continue;
      }
      const text = documentText(document);
      if (document.warning !== undefined) say(`${place} (${document.id}): ${document.warning}`);
      yield { text, number: line, end };
    } catch (error) {
      if (!(error instanceof RefusedDocument)) throw error;
      report.refused++;
      say(`${place} is refused: ${error.message}`);
    }
  }
}

/** @param line where it begins: faults name lines of the source. */
function objectOf(bytes: Buffer, line: number): JsonObject {
  try {
    return parseTree(parseJsonObject(bytes, DEPTH_MAX).text) as JsonObject;
  } catch (error) {
    if (!(error instanceof AppError)) throw error;
    const fault = error.detail?.replace(/\bline (\d+)/, (_, at) => `line ${line + Number(at) - 1}`);
    throw new RefusedDocument(`it is not acceptable JSON: ${fault}`, { cause: error });
  }
}

/** Bundoc keeps names that begin with `_` for itself: their underscores move to the end. */
function ownName(name: string): string {
  const [underscores = ''] = /^_*/.exec(name) ?? [];
  return name.slice(underscores.length) + underscores;
}

function documentText({ id, collection, members }: ForeignDocument): string {
  const texts: string[] = [];
  if (id !== undefined) {
    const checked = documentIdSchema.safeParse(id);
    if (!checked.success)
      throw refusal('_id', `${JSON.stringify(id.slice(0, 80))} ${checked.error.issues[0]?.message}`);
    texts.push(`"_id":${JSON.stringify(id)}`);
  }
  if (collection !== undefined) texts.push(`"_collection":${JSON.stringify(collection)}`);
  const names = new Set(members.map(([name]) => name));
  for (const [name, text] of members) {
    const own = ownName(name);
    if (own.startsWith('_')) throw refusal(name, 'a name of underscores alone is reserved');
    if (own !== name && names.has(own))
      throw refusal(name, `the name is reserved, and the document has ${own}, too`);
    texts.push(`${JSON.stringify(own)}:${text}`);
  }
  return `{${texts.join(',')}}`;
}
