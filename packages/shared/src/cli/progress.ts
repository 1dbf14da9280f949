import { SingleBar } from 'cli-progress';
import { progressLine } from './progress-line.ts';

/**
 * Names in a format, in addition to the bar's own `{bar}`, `{value}`, `{total}`, `{percentage}` and
 * `{eta_formatted}`.
 */
export type ProgressFields = Readonly<Record<string, string | number>>;

/** The progress of long work on a terminal. Disposing it clears it from the screen. */
export interface Progress extends Disposable {
  start(total: number, fields?: ProgressFields): void;
  update(done: number, fields?: ProgressFields): void;
  /**
   * For work in several parts, whose totals may change while they run. Each part restarts the estimate of the
   * time left.
   *
   * @param part is `{part}` in the format. Without it, a changed total starts a new part.
   */
  show(done: number, total: number, part?: string): void;
}

const ignore = () => undefined;

/** A bar on standard error. Shows nothing when that is not a terminal, so that output can be captured. */
export function createProgress(format: string): Progress {
  if (!process.stderr.isTTY) return { start: ignore, update: ignore, show: ignore, [Symbol.dispose]: ignore };
  const bar = new SingleBar({
    stream: process.stderr,
    clearOnComplete: true,
    hideCursor: true,
    // The library's own formatter cuts "NULL" and "INF" to "LLs" and "NFs", and shows a full bar for 0 of 0.
    format: (_options, params, payload) => progressLine(format, params, payload),
  });
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
