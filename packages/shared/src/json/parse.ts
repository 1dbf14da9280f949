import { isUtf8 } from 'node:buffer';
import { AppError } from '../contract/app-error.ts';
import { faultOf, placeAfter } from './place.ts';
import { readJson } from './read.ts';
import { JSON_CONTAINERS_MAX, JSON_DEPTH_MAX, type JsonScan, scanJson } from './scan.ts';

/** JSON text that passed every check of {@link parseJson}. */
export interface ParsedJson {
  readonly value: unknown;
  /** The parsed text. */
  readonly text: string;
  readonly scan: JsonScan;
}

/** JSON text that passed every check of {@link parseJsonObject}. */
export interface ParsedJsonObject extends ParsedJson {
  readonly value: Record<string, unknown>;
}

/**
 * Parses a JSON object strictly: as {@link parseJson}, and the root must be an object.
 *
 * @throws AppError `invalid_json`. The error quotes no part of the text, which may be a secret.
 */
export function parseJsonObject(bytes: Buffer | undefined, depthMax?: number): ParsedJsonObject {
  return parseJson(bytes, requireObject, depthMax) as ParsedJsonObject;
}

function requireObject(value: unknown): void {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw invalid('the text is not a JSON object');
}

/**
 * Parses JSON strictly: valid UTF-8 without a byte order mark, nesting of at most 100, no member named
 * `__proto__`, and no duplicate names in an object. RFC 8259, section 4, calls the result of duplicates
 * unpredictable. Fastify passes `undefined` for a request without a body, which counts as empty.
 *
 * @param checkRoot throws to refuse a root value that the caller does not accept.
 * @param depthMax accepted nesting: more for texts that contain documents.
 * @throws AppError `invalid_json`; `payload_too_large` for over {@link JSON_CONTAINERS_MAX} objects and
 *   arrays. The error quotes no part of the text, which may be a secret.
 */
export function parseJson(
  bytes: Buffer | undefined,
  checkRoot: (value: unknown) => void = () => {},
  depthMax: number = JSON_DEPTH_MAX,
): ParsedJson {
  if (bytes === undefined || bytes.length === 0) throw invalid('the body is empty');
  if (bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf)
    throw invalid('the text begins with a byte order mark');
  if (!isUtf8(bytes)) throw invalid('the text is not valid UTF-8');
  const scan = scanJson(bytes, depthMax);
  if (scan.depth > depthMax) throw invalid(`the text nests deeper than ${depthMax}`);
  if (scan.containers > JSON_CONTAINERS_MAX)
    throw new AppError('payload_too_large', {
      detail: `the text has more than ${JSON_CONTAINERS_MAX} objects and arrays`,
    });
  const text = bytes.toString('utf8');
  const value = parse(text);
  checkRoot(value);
  const { protoAt, duplicateAt } = scan;
  const placeOf = (at: number) => placeAfter(bytes.toString('utf8', 0, at));
  if (protoAt !== undefined) throw invalid(`a member is called "__proto__": ${placeOf(protoAt)}`);
  if (duplicateAt !== undefined) throw invalid(`a name occurs twice in one object: ${placeOf(duplicateAt)}`);
  const exact = scan.hasEscapedName ? readJson(text) : value;
  return { value: exact, text, scan };
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // The parser's own message quotes the text, so it is not used.
    throw invalid(faultOf(text));
  }
}

function invalid(detail: string): AppError {
  return new AppError('invalid_json', { detail });
}
