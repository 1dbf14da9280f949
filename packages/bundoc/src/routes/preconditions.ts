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
  const tags = tagsOf('If-Match', ifMatch);
  return tags === '*' ? { kind: 'present' } : { kind: 'revision', anyOf: tags };
}

const REVISION = /^[0-9a-f]{24}$/;

/**
 * The precondition that a member of a body means: as `If-Match` has it, or a `_rev` as it is.
 *
 * @throws AppError `invalid_request` for anything else.
 */
export function ifMatchOfBody(value: string, path: string): Precondition {
  if (REVISION.test(value)) return { kind: 'revision', anyOf: [value] };
  const tags = parseTags(value);
  if (typeof tags === 'object' && 'fault' in tags)
    throw new AppError('invalid_request', { errors: [{ path, message: tags.fault }] });
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
  if (ifMatch !== undefined && !matches(tagsOf('If-Match', ifMatch), rev))
    throw new AppError('precondition_failed');
  return ifNoneMatch !== undefined && matches(tagsOf('If-None-Match', ifNoneMatch), rev);
}

function matches(tags: '*' | readonly string[], rev: string): boolean {
  return tags === '*' || tags.includes(rev);
}

function tagsOf(name: string, value: string): '*' | readonly string[] {
  const tags = parseTags(value);
  if (typeof tags === 'object' && 'fault' in tags) throw invalid(name, tags.fault);
  return tags;
}

/** A `W/` prefix is tolerated: proxies that compress put it before our strong tags. */
function parseTags(value: string): '*' | readonly string[] | { readonly fault: string } {
  if (value.trim() === '*') return '*';
  const tags = value.split(',').map((tag) => /^\s*(?:W\/)?"([\x21\x23-\x7e]*)"\s*$/.exec(tag)?.[1]);
  if (tags.length > ENTITY_TAGS_MAX) return { fault: `must have at most ${ENTITY_TAGS_MAX} entity tags` };
  if (!tags.every((tag) => tag !== undefined)) return { fault: 'must be * or entity tags in double quotes' };
  return tags;
}

function invalid(name: string, message: string): AppError {
  return new AppError('invalid_request', { errors: [{ path: `headers.${name}`, message }] });
}
