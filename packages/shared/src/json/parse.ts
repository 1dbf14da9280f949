import { isUtf8 } from 'node:buffer';
import { AppError } from '../errors.ts';
import { readJson } from './read.ts';
import { JSON_DEPTH_MAX, type JsonScan, scanJson } from './scan.ts';

/** JSON text that passed every check of {@link parseJsonObject}. */
export interface ParsedJsonObject {
  readonly value: Record<string, unknown>;
  readonly scan: JsonScan;
}

/**
 * Reads a JSON object strictly: valid UTF-8 without a byte order mark, nesting of at most 100, no name twice in one
 * object (RFC 8259, section 4, calls the result of duplicates unpredictable), no member called `__proto__`. Fastify
 * gives a request without a body as `undefined`, which counts as empty.
 *
 * @throws AppError `invalid_json`. No part of the text is repeated in the error: it may be a secret.
 */
export function parseJsonObject(bytes: Buffer | undefined): ParsedJsonObject {
  if (bytes === undefined || bytes.length === 0) throw invalid('the body is empty');
  if (bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf)
    throw invalid('the text begins with a byte order mark');
  if (!isUtf8(bytes)) throw invalid('the text is not valid UTF-8');
  const scan = scanJson(bytes);
  if (scan.depth > JSON_DEPTH_MAX) throw invalid(`the text nests deeper than ${JSON_DEPTH_MAX}`);
  const text = bytes.toString('utf8');
  const value = parse(text);
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw invalid('the text is not a JSON object');
  if (scan.hasProtoMember) throw invalid('a member is called "__proto__"');
  if (scan.duplicateName !== undefined) throw invalid('a name occurs twice in one object');
  const exact = scan.hasEscapedName ? readJson(text) : value;
  return { value: exact as Record<string, unknown>, scan };
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw invalid('the text is not valid JSON'); // The parser's own message quotes the text, so it is dropped.
  }
}

function invalid(detail: string): AppError {
  return new AppError('invalid_json', { detail });
}
