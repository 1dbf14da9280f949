import { download } from './download.ts';

/** A file that is written in pieces. It appears only when it is closed. */
export interface FileSink {
  write(piece: string | Uint8Array<ArrayBuffer>): Promise<void>;
  /** Saves the file at the chosen place. */
  close(): Promise<void>;
  /** Discards the file. */
  abandon(): Promise<void>;
}

/** Whether this browser can stream to files. */
export const canStreamToFiles = typeof globalThis.showSaveFilePicker === 'function';

/** Maximum bytes to collect in memory if the browser cannot stream to files. */
export const COLLECTED_BYTES_MAX = 268_435_456;

/** Asks where to save the file. @returns undefined when the user cancels. */
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
        // The browser created the file when it was chosen.
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
          'This browser keeps the file in memory, with a limit of 256 MiB. No file was written. Use a browser that can stream to files, such as Chromium, or the command line.',
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
