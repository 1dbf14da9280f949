import type { IncomingHttpHeaders } from 'node:http';
import { ENTITY_TAGS_MAX } from '@bundoc/shared/contract/headers';
import { AppError } from '@bundoc/shared/errors';
import type { Precondition } from '../storage/port.ts';

/** The strong entity tag of a revision (RFC 9110, section 8.8.3). */
export function etagOf(rev: string): string {
  return `"${rev}"`;
}

/**
 * The precondition of a write: `If-Match` with tags or `*`, or `If-None-Match: *`.
 *
 * @throws AppError `invalid_request` for anything else, and for both at once.
 */
export function writePrecondition(headers: IncomingHttpHeaders): Precondition {
  const ifMatch = headers['if-match'];
  const ifNoneMatch = headers['if-none-match'];
  if (ifMatch !== undefined && ifNoneMatch !== undefined)
    throw invalid('If-Match', 'must not come together with If-None-Match on a write');
  if (ifNoneMatch !== undefined) {
    if (ifNoneMatch.trim() !== '*') throw invalid('If-None-Match', 'must be * on a write');
    return { kind: 'absent' };
  }
  if (ifMatch === undefined) return { kind: 'none' };
  const tags = parseTags('If-Match', ifMatch);
  return tags === '*' ? { kind: 'present' } : { kind: 'revision', anyOf: tags };
}

/**
 * Whether a conditional read sends the document (RFC 9110, section 13.2.2).
 *
 * @throws AppError `precondition_failed` when `If-Match` does not name `rev`; `invalid_request` for malformed tags.
 */
export function isNotModified(headers: IncomingHttpHeaders, rev: string): boolean {
  const ifMatch = headers['if-match'];
  const ifNoneMatch = headers['if-none-match'];
  if (ifMatch !== undefined && !matches(parseTags('If-Match', ifMatch), rev))
    throw new AppError('precondition_failed');
  return ifNoneMatch !== undefined && matches(parseTags('If-None-Match', ifNoneMatch), rev);
}

function matches(tags: '*' | readonly string[], rev: string): boolean {
  return tags === '*' || tags.includes(rev);
}

/** A `W/` prefix is tolerated: proxies that compress put it before our strong tags. */
function parseTags(name: string, value: string): '*' | readonly string[] {
  if (value.trim() === '*') return '*';
  const tags = value.split(',').map((tag) => /^\s*(?:W\/)?"([\x21\x23-\x7e]*)"\s*$/.exec(tag)?.[1]);
  if (tags.length > ENTITY_TAGS_MAX) throw invalid(name, `must have at most ${ENTITY_TAGS_MAX} entity tags`);
  if (!tags.every((tag) => tag !== undefined))
    throw invalid(name, 'must be * or entity tags in double quotes');
  return tags;
}

function invalid(name: string, message: string): AppError {
  return new AppError('invalid_request', { errors: [{ path: `headers.${name}`, message }] });
}
