import { Presets, SingleBar } from 'cli-progress';

const MIB = 1_048_576;
const SWEEP_INTERVAL_MS = 100;

/**
 * How far a transfer is: a bar on standard error, or a count where the whole is not known; nothing where that
 * is no terminal.
 */
export interface TransferBar extends Disposable {
  update(bytes: number, documents: number): void;
}

/** @param totalBytes undefined when it is not known. */
export function createTransferBar(totalBytes: number | undefined): TransferBar {
  if (!process.stderr.isTTY) return { update: () => undefined, [Symbol.dispose]: () => undefined };
  const bar = new SingleBar(
    {
      stream: process.stderr,
      clearOnComplete: true,
      hideCursor: true,
      fps: 1_000 / SWEEP_INTERVAL_MS,
      format:
        totalBytes === undefined
          ? '{documents} documents, {mib} MiB, {rate} documents/s'
          : '{bar} {percentage}% {documents} documents, {rate}/s, {eta_formatted} left',
    },
    Presets.shades_grey,
  );
  const begun = performance.now();
  bar.start(Math.max(1, totalBytes ?? 1), 0, { documents: 0, mib: '0.0', rate: 0 });
  let first: number | undefined;
  return {
    update: (bytes, documents) => {
      first ??= documents;
      const seconds = (performance.now() - begun) / 1_000;
      const rate = seconds < 0.5 ? 0 : Math.round((documents - first) / seconds);
      const mib = (bytes / MIB).toFixed(1);
      bar.update(totalBytes === undefined ? 0 : Math.min(bytes, totalBytes), { documents, mib, rate });
    },
    [Symbol.dispose]: () => bar.stop(),
  };
}
