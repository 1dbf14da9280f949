import { Presets, SingleBar } from 'cli-progress';
import type { MoveWatch } from '../move/move-project.ts';

/** How far a move is: a bar on standard error for each of its parts, and nothing where that is no terminal. */
export function createMoveBar(): MoveWatch & Disposable {
  if (!process.stderr.isTTY)
    return { onCopied: () => undefined, onVerified: () => undefined, [Symbol.dispose]: () => undefined };
  const bar = new SingleBar(
    {
      stream: process.stderr,
      clearOnComplete: true,
      hideCursor: true,
      format: '{part} {bar} {value}/{total} documents, {eta_formatted} left',
    },
    Presets.shades_grey,
  );
  let shown: string | undefined;
  const show = (part: string) => (done: number, total: number) => {
    if (shown !== part) bar.start(total, done, { part });
    shown = part;
    bar.setTotal(total);
    bar.update(done);
  };
  return {
    onCopied: show('copying  '),
    onVerified: show('verifying'),
    [Symbol.dispose]: () => bar.stop(),
  };
}
