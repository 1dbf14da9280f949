import type { IncomingHttpHeaders } from 'node:http';
import { AppError } from '@bundoc/shared/contract/app-error';
import {
  ENTITY_TAGS_MAX,
  type EntityTag,
  parseEntityTags,
  strongTags,
} from '@bundoc/shared/contract/headers';
import type { Precondition } from '../engine/port/port.ts';

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
  return revisionOf(tagsOf('If-Match', ifMatch));
}

const REVISION = /^[0-9a-f]{24}$/;

/**
 * The precondition in a member of a body: in the syntax of `If-Match`, or a bare `_rev`.
 *
 * @throws AppError `invalid_request` for anything else.
 */
export function ifMatchOfBody(value: string, path: string): Precondition {
  if (REVISION.test(value)) return { kind: 'revision', anyOf: [value] };
  const tags = parseEntityTags(value);
  if (tags === undefined) throw new AppError('invalid_request', { errors: [{ path, message: FAULT }] });
  return revisionOf(tags);
}

/**
 * Whether a conditional read sends the document (RFC 9110, section 13.2.2).
 *
 * @throws AppError `precondition_failed` with the current tag when `If-Match` does not name `rev`;
 *   `invalid_request` for malformed tags.
 */
export function isNotModified(headers: IncomingHttpHeaders, rev: string): boolean {
  const ifMatch = headers['if-match'];
  const ifNoneMatch = headers['if-none-match'];
  if (ifMatch !== undefined) {
    const tags = tagsOf('If-Match', ifMatch);
    if (tags !== '*' && !strongTags(tags).includes(rev)) {
      const fault = { path: 'headers.If-Match', message: 'names another revision', etag: etagOf(rev) };
      throw new AppError('precondition_failed', { errors: [fault] });
    }
  }
  if (ifNoneMatch === undefined) return false;
  const tags = tagsOf('If-None-Match', ifNoneMatch);
  return tags === '*' || tags.some(({ opaque }) => opaque === rev);
}

/** `If-Match` compares strongly (RFC 9110, section 13.1.1): with weak tags only, it matches no revision. */
function revisionOf(tags: '*' | readonly EntityTag[]): Precondition {
  return tags === '*' ? { kind: 'present' } : { kind: 'revision', anyOf: strongTags(tags) };
}

const FAULT = `must be * or at most ${ENTITY_TAGS_MAX} entity tags in double quotes`;

function tagsOf(name: string, value: string): '*' | readonly EntityTag[] {
  const tags = parseEntityTags(value);
  if (tags === undefined) throw invalid(name, FAULT);
  return tags;
}

function invalid(name: string, message: string): AppError {
  return new AppError('invalid_request', { errors: [{ path: `headers.${name}`, message }] });
}
