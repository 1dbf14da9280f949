import type { IncomingHttpHeaders } from 'node:http';
import { AppError } from '@bundoc/shared/contract/app-error';
import type { FieldFault } from '@bundoc/shared/contract/problem';
import { etagOf } from '../documents/precondition-headers.ts';
import { PreconditionsFailed } from '../engine/port/precondition.ts';

/** What has revisions. */
export type Revised = 'document' | 'definition';

/**
 * A failed precondition, with the current entity tag.
 *
 * @param path the header or member that has the precondition.
 * @param onlyCreates whether the precondition requires that there is none.
 * @param rev the current revision; undefined when there is none.
 */
export function preconditionFault(
  path: string,
  onlyCreates: boolean,
  rev: string | undefined,
  what: Revised = 'document',
): FieldFault {
  if (rev === undefined) return { path, message: `the ${what} does not exist` };
  const message = onlyCreates ? `the ${what} already exists` : `the ${what} is at another revision`;
  return { path, message, etag: etagOf(rev) };
}

/**
 * Adds the current entity tag to the refusal of a request that writes one document or definition, so that the
 * client need not read it to decide. It reveals no more than the answer of a write does.
 *
 * @returns a handler for `catch`, which throws.
 */
export function namingRevision(
  headers: IncomingHttpHeaders,
  what: Revised = 'document',
): (error: unknown) => never {
  return (error) => {
    if (!(error instanceof PreconditionsFailed)) throw error;
    const rev = error.failed[0]?.rev;
    const onlyCreates = headers['if-none-match'] !== undefined;
    const fault = preconditionFault(placeOf(headers, rev), onlyCreates, rev, what);
    throw new AppError('precondition_failed', { errors: [fault], cause: error });
  };
}

/** `If-Match: *` fails only without a document. With one, the `_rev` of the body has failed. */
function placeOf(headers: IncomingHttpHeaders, rev: string | undefined): string {
  if (headers['if-none-match'] !== undefined) return 'headers.If-None-Match';
  const ifMatch = headers['if-match'];
  return ifMatch === undefined || (ifMatch.trim() === '*' && rev !== undefined)
    ? 'body._rev'
    : 'headers.If-Match';
}
