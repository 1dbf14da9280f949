import { download } from './download.ts';

/** A file that is written piece by piece. Nothing is in its place before it is closed. */
export interface FileSink {
  write(piece: string | Uint8Array<ArrayBuffer>): Promise<void>;
  /** Puts the file where its user wants it. */
  close(): Promise<void>;
  /** Leaves no file. */
  abandon(): Promise<void>;
}

/** Whether this browser writes files piece by piece. */
export const canStreamToFiles = typeof globalThis.showSaveFilePicker === 'function';

/** Bytes that are collected where the browser does not write files piece by piece. */
export const COLLECTED_BYTES_MAX = 268_435_456;

/** Asks where the file is to be. @returns undefined when its user does not want it. */
export async function openFileSink(name: string, type: string): Promise<FileSink | undefined> {
  if (globalThis.showSaveFilePicker === undefined) return collected(name, type);
  try {
    const file = await globalThis.showSaveFilePicker({ suggestedName: name });
    const stream = await file.createWritable();
    return {
      write: (piece) => stream.write(piece),
      close: () => stream.close(),
      abandon: async () => {
        await stream.abort();
        // The file was made when it was chosen.
        if ((await file.getFile()).size === 0) await file.remove?.();
      },
    };
  } catch (error) {
    if (error instanceof DOMException && error.name === 'AbortError') return undefined;
    throw error;
  }
}

function collected(name: string, type: string): FileSink {
  let pieces: Blob[] = [];
  let bytes = 0;
  return {
    write: async (piece) => {
      const blob = new Blob([piece]);
      bytes += blob.size;
      if (bytes > COLLECTED_BYTES_MAX) {
        pieces = [];
        throw new Error(
          'This browser holds a file in memory, and 256 MiB are the bound. No file was written. Use a browser that writes files piece by piece, such as Chromium, or the command line.',
        );
      }
      pieces.push(blob);
    },
    close: async () => download(name, new Blob(pieces, { type })),
    abandon: async () => {
      pieces = [];
    },
  };
}
