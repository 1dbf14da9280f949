import { AppError } from '@bundoc/shared/contract/app-error';
import type { Precondition } from '../engine/port/port.ts';

/**
 * The precondition of a write whose body has a `_rev`. It works like `If-Match`, unless the write can only
 * create.
 *
 * @throws AppError `invalid_document` when the two name different revisions.
 */
export function withRevision(asked: Precondition, rev: string | undefined): Precondition {
  if (rev === undefined) return asked;
  switch (asked.kind) {
    case 'absent':
      return asked;
    case 'none':
    case 'present':
      return { kind: 'revision', anyOf: [rev] };
    case 'revision':
      if (!asked.anyOf.includes(rev))
        throw new AppError('invalid_document', { detail: '"_rev" and If-Match name different revisions' });
      return { kind: 'revision', anyOf: [rev] };
  }
}

/** @throws AppError `invalid_document` when a metadata member of the body contradicts the path. */
export function requireSame(name: string, inBody: string | undefined, inPath: string): void {
  if (inBody !== undefined && inBody !== inPath)
    throw new AppError('invalid_document', { detail: `"${name}" and the path differ` });
}
