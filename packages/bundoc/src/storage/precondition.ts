import { AppError } from '@bundoc/shared/errors';
import type { Precondition } from './port.ts';

/** A write of a commit whose precondition does not hold. */
export interface FailedWrite {
  /** Its place in the commit. */
  readonly index: number;
  /** The revision that is there; undefined for an absent document. */
  readonly rev: string | undefined;
}

/** `precondition_failed` of a commit, with every write that is to blame. */
export class PreconditionsFailed extends AppError {
  readonly failed: readonly FailedWrite[];

  constructor(failed: readonly FailedWrite[]) {
    super('precondition_failed');
    this.failed = failed;
  }
}

/** @throws AppError `precondition_failed`. `rev` is undefined for an absent document. */
export function requirePrecondition(precondition: Precondition, rev: string | undefined): void {
  if (!holds(precondition, rev)) throw new AppError('precondition_failed');
}

/** Whether a precondition holds for a document of this revision; undefined for an absent one. */
export function holds(precondition: Precondition, rev: string | undefined): boolean {
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
