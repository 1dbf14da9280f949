import { AppError } from '@bundoc/shared/contract/app-error';
import type { Precondition, Write } from './port.ts';

/** A write in a commit whose precondition does not hold. */
export interface FailedWrite {
  /** Its index in the commit. */
  readonly index: number;
  /** The current revision; undefined for an absent document. */
  readonly rev: string | undefined;
}

/** `precondition_failed` of a commit, with every write whose precondition failed. */
export class PreconditionsFailed extends AppError {
  readonly failed: readonly FailedWrite[];

  constructor(failed: readonly FailedWrite[]) {
    super('precondition_failed');
    this.failed = failed;
  }
}

/**
 * The refusal of a commit whose write at `first` fails, with all later writes that fail as well.
 *
 * @param revAt the revision of a write's document after the writes before `first`; undefined for an absent
 *   one.
 */
export function preconditionsFailed(
  writes: readonly Write[],
  first: number,
  revAt: (index: number) => string | undefined,
): PreconditionsFailed {
  const failed: FailedWrite[] = [];
  for (const [index, { precondition }] of writes.entries()) {
    if (index < first) continue;
    const rev = revAt(index);
    if (!preconditionHolds(precondition, rev)) failed.push({ index, rev });
  }
  return new PreconditionsFailed(failed);
}

/** @throws PreconditionsFailed for one write. `rev` is undefined for an absent document. */
export function requirePrecondition(precondition: Precondition, rev: string | undefined): void {
  if (!preconditionHolds(precondition, rev)) throw new PreconditionsFailed([{ index: 0, rev }]);
}

/** Whether a precondition holds for a document of this revision; undefined for an absent one. */
export function preconditionHolds(precondition: Precondition, rev: string | undefined): boolean {
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
