import { AppError } from '@bundoc/shared/errors';
import type { Precondition } from './port.ts';

/** @throws AppError `precondition_failed`. `rev` is undefined for an absent document. */
export function requirePrecondition(precondition: Precondition, rev: string | undefined): void {
  if (!holds(precondition, rev)) throw new AppError('precondition_failed');
}

function holds(precondition: Precondition, rev: string | undefined): boolean {
  switch (precondition.kind) {
    case 'none':
      return true;
    case 'absent':
      return rev === undefined;
    case 'present':
      return rev !== undefined;
    case 'revision':
      return rev !== undefined && precondition.anyOf.includes(rev);
  }
}
