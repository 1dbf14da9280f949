import { Presets, SingleBar } from 'cli-progress';

/** A bar of long work. Disposing it takes it off the screen. */
export interface Progress extends Disposable {
  start(total: number): void;
  update(done: number): void;
  /** For work in several parts, each of which has its own total. */
  show(done: number, total: number): void;
}

/** A bar on standard error, and nothing where that is no terminal, so that output can be captured. */
export function createProgress(format: string): Progress {
  if (!process.stderr.isTTY)
    return {
      start: () => undefined,
      update: () => undefined,
      show: () => undefined,
      [Symbol.dispose]: () => undefined,
    };
  const bar = new SingleBar(
    { stream: process.stderr, clearOnComplete: true, hideCursor: true, format },
    Presets.shades_grey,
  );
  let shown: number | undefined;
  return {
    start: (total) => bar.start(total, 0),
    update: (done) => bar.update(done),
    show: (done, total) => {
      if (shown !== total) bar.start(total, done);
      shown = total;
      bar.update(done);
    },
    [Symbol.dispose]: () => bar.stop(),
  };
}
