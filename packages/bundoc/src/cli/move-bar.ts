import type { MoveProgress } from '@bundoc/client';
import { Presets, SingleBar } from 'cli-progress';
import type { MoveWatch } from '../operations/move-project.ts';

/**
 * How far a move is: a bar on standard error for each of its parts, and nothing where that is no terminal.
 */
export function createMoveBar(): MoveWatch & Disposable & { show(progress: MoveProgress): void } {
  const bar = new SingleBar(
    {
      stream: process.stderr,
      clearOnComplete: true,
      hideCursor: true,
      format: '{step} {bar} {value}/{total} documents, {eta_formatted} left',
    },
    Presets.shades_grey,
  );
  let shown: string | undefined;
  const show = ({ step, documents, of }: MoveProgress) => {
    if (!process.stderr.isTTY || step === 'switching') return;
    if (shown !== step) bar.start(of, documents, { step });
    shown = step;
    bar.setTotal(of);
    bar.update(documents);
  };
  return {
    show,
    onCopied: (documents, of) => show({ step: 'copying', documents, of }),
    onVerified: (documents, of) => show({ step: 'verifying', documents, of }),
    [Symbol.dispose]: () => bar.stop(),
  };
}
