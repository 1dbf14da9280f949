import type { SharedFolder } from '@bundoc/shared/files/data-folder';

// Messages between the main thread and the thread that writes document files.

/**
 * Files to write in full, or to remove. Names and contents are each one buffer, which costs a tenth of
 * separate objects and copies; the memory of the contents is transferred.
 */
export interface FilesToWrite {
  /** Paths below the data folder, joined by NUL. */
  readonly paths: string;
  /** The length of each content; {@link REMOVED} for a file to remove. */
  readonly bytes: Float64Array;
  readonly contents: Uint8Array;
  /** Whether folders were removed or renamed since the last message. */
  readonly forgetFolders: boolean;
}

export const REMOVED = -1;

/** The folder that the thread writes to, and the modes of new files and folders. */
export interface WritePlace {
  readonly folder: SharedFolder;
  readonly fileMode: number;
  readonly directoryMode: number;
}

/** Tells the thread to close its folders and end. */
export const END = 'end';

/** A failed write: the index of its file, and the error's code and message. */
export interface WriteFailure {
  readonly at: number;
  readonly code: string | undefined;
  readonly message: string;
}
