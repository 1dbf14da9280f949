import { createProgress } from '@bundoc/shared/cli/progress';

/** Progress in documents, per project or per step. */
export const DOCUMENTS_FORMAT = '{part} {bar} {value}/{total} documents, {eta_formatted} left';
export const MIB = 1_048_576;

/** Shows the progress of a transfer: a bar, or a count when the total is unknown. */
export interface TransferBar extends Disposable {
  update(bytes: number, documents: number): void;
}

/** @param totalBytes undefined when unknown. */
export function createTransferBar(totalBytes: number | undefined): TransferBar {
  const progress = createProgress(
    totalBytes === undefined
      ? '{documents} documents, {mib} MiB, {rate} documents/s'
      : '{bar} {percentage}% {documents} documents, {rate}/s, {eta_formatted} left',
  );
  const begun = performance.now();
  progress.start(Math.max(1, totalBytes ?? 1), { documents: 0, mib: '0.0', rate: 0 });
  let first: number | undefined;
  return {
    update: (bytes, documents) => {
      first ??= documents;
      const seconds = (performance.now() - begun) / 1_000;
      const rate = seconds < 0.5 ? 0 : Math.round((documents - first) / seconds);
      const mib = (bytes / MIB).toFixed(1);
      progress.update(totalBytes === undefined ? 0 : Math.min(bytes, totalBytes), { documents, mib, rate });
    },
    [Symbol.dispose]: progress[Symbol.dispose],
  };
}
