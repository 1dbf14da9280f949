import { Presets, SingleBar } from 'cli-progress';
import type { OnProgress } from '../engine/reports.ts';

export interface Progress extends Disposable {
  /** Tells of the documents of one project. */
  of(project: string): OnProgress;
}

/** A bar on standard error, and nothing where that is no terminal. */
export function createProgress(): Progress {
  if (!process.stderr.isTTY) return { of: () => () => undefined, [Symbol.dispose]: () => undefined };
  const bar = new SingleBar(
    {
      stream: process.stderr,
      clearOnComplete: true,
      hideCursor: true,
      format: '{project} {bar} {value}/{total} documents, {eta_formatted} left',
    },
    Presets.shades_grey,
  );
  let shown: string | undefined;
  return {
    of: (project) => (done, total) => {
      if (shown !== project) bar.start(total, done, { project });
      shown = project;
      bar.update(done);
    },
    [Symbol.dispose]: () => bar.stop(),
  };
}
