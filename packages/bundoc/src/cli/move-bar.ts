import type { MoveProgress } from '@bundoc/client';
import { createProgress } from '@bundoc/shared/cli/progress';
import type { MoveWatch } from '../operations/move-project.ts';

/** Progress in documents, per project or per step. */
export const DOCUMENTS_FORMAT = '{part} {bar} {value}/{total} documents, {eta_formatted} left';

/** Shows the progress of a move: a bar for each of its steps. */
export function createMoveBar(): MoveWatch & Disposable & { show(progress: MoveProgress): void } {
  const bar = createProgress(DOCUMENTS_FORMAT);
  const show = ({ step, documents, of }: MoveProgress) => {
    if (step !== 'switching') bar.show(documents, of, step);
  };
  return {
    show,
    onCopied: (documents, of) => show({ step: 'copying', documents, of }),
    onVerified: (documents, of) => show({ step: 'verifying', documents, of }),
    [Symbol.dispose]: bar[Symbol.dispose],
  };
}
