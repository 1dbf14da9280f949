import { Presets, SingleBar } from 'cli-progress';

/**
 * What a format names beside the bar's own `{bar}`, `{value}`, `{total}`, `{percentage}` and
 * `{eta_formatted}`.
 */
export type ProgressFields = Readonly<Record<string, string | number>>;

/** The progress of long work on a terminal. Disposing it takes it off the screen. */
export interface Progress extends Disposable {
  start(total: number, fields?: ProgressFields): void;
  update(done: number, fields?: ProgressFields): void;
  /**
   * For work in several parts, whose totals may change while they run. The estimate of the time left starts
   * again with each part.
   *
   * @param part is `{part}` in the format; without it, another total is another part.
   */
  show(done: number, total: number, part?: string): void;
}

const ignore = () => undefined;

/** A bar on standard error, and nothing where that is no terminal, so that output can be captured. */
export function createProgress(format: string): Progress {
  if (!process.stderr.isTTY) return { start: ignore, update: ignore, show: ignore, [Symbol.dispose]: ignore };
  const bar = new SingleBar(
    { stream: process.stderr, clearOnComplete: true, hideCursor: true, format },
    Presets.shades_grey,
  );
  let shown: string | undefined;
  return {
    start: (total, fields = {}) => bar.start(total, 0, fields),
    update: (done, fields = {}) => bar.update(done, fields),
    show: (done, total, part = String(total)) => {
      if (shown !== part) bar.start(total, done, { part });
      shown = part;
      bar.setTotal(total);
      bar.update(done);
    },
    [Symbol.dispose]: () => bar.stop(),
  };
}
