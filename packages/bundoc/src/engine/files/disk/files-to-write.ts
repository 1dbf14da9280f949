import type { SharedFolder } from '@bundoc/shared/files/data-folder';

// What the main thread and the thread that writes document files say to each other.

/**
 * Files to write, in full, or to remove. Names and contents come in one piece each, which costs a tenth of
 * objects and copies of their own; the memory of the contents is handed over.
 */
export interface FilesToWrite {
  /** Below the data folder, joined by NUL. */
  readonly paths: string;
  /** Bytes of each content; {@link REMOVED} for a file to remove. */
  readonly bytes: Float64Array;
  readonly contents: Uint8Array;
  /** Folders were removed or renamed since the last message. */
  readonly forgetFolders: boolean;
}

export const REMOVED = -1;

/** Where the thread writes, and the modes of what it makes. */
export interface WritePlace {
  readonly folder: SharedFolder;
  readonly fileMode: number;
  readonly directoryMode: number;
}

/** Asks the thread to close what it holds and to end. */
export const END = 'end';

/**
 * A file that could not be written: its place among those that were asked for, and the error's code and
 * message.
 */
export interface WriteFailure {
  readonly at: number;
  readonly code: string | undefined;
  readonly message: string;
}
