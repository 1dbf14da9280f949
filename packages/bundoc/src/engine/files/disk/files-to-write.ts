import type { SharedFolder } from '@bundoc/shared/files/data-folder';
import type { SentError } from '@bundoc/shared/threads/calls';

// What the main thread and the thread that writes document files send each other.

/**
 * Files to write in full, or to remove. Names and contents are each one buffer, which costs a tenth of
 * separate objects and copies; the memory of the contents is transferred.
 */
export interface FilesToWrite {
  /** Paths below the data folder, joined by NUL. */
  readonly paths: string;
  /** The length of each content; {@link REMOVED} for a file to remove. */
  readonly bytes: Float64Array<ArrayBuffer>;
  readonly contents: Uint8Array<ArrayBuffer>;
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

/** A failed write: the index of its file, and its error. */
export interface WriteFailure {
  readonly at: number;
  readonly error: SentError;
}

/** The functions that the thread serves. */
export interface FileWrites {
  write(files: FilesToWrite): readonly WriteFailure[];
}
