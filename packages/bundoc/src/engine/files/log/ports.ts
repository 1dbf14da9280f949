/**
 * The disk as the log uses it, so that a simulated one can stand in.
 *
 * Errors of every method: AppError `disk_full` or `storage_unavailable`.
 */
export interface LogDisk {
  /** Names in a folder, unordered; undefined when there is none. */
  list(directory: string): Promise<string[] | undefined>;
  /** Makes a folder unless it exists. Durable once its parent is synced. */
  makeDirectory(path: string): Promise<boolean>;
  /** Makes a new file and syncs its content. Its name is durable once its folder is synced. */
  createFile(path: string, content: Buffer | AsyncIterable<Buffer>): Promise<void>;
  rename(from: string, to: string): Promise<void>;
  /** False when there was none. Durable once its folder is synced. */
  remove(path: string): Promise<boolean>;
  syncDirectory(path: string): Promise<void>;
  /** Opens an existing file. */
  openLogFile(path: string): Promise<LogFile>;
  /**
   * A buffer whose bytes {@link LogFile.writeDurably} takes with the least copying; one frame at a time lies
   * in it.
   */
  frameBuffer(bytes: number): Buffer;
}

/** The part of a disk that changes nothing. */
export type ReadableLogDisk = Pick<LogDisk, 'list' | 'openLogFile'>;

/** An open file. One write at a time; reads beside it are allowed. */
export interface LogFile {
  /** How long it was when it was opened. */
  readonly bytes: number;
  /** So many bytes, fewer at the end of the file. */
  read(offset: number, bytes: number): Promise<Buffer>;
  /**
   * Overwrites bytes within the file's length, and makes them durable as `fdatasync` does. Once rejected, any
   * part of them may be there, durably or not.
   */
  writeDurably(offset: number, bytes: Buffer): Promise<void>;
  close(): Promise<void>;
}

/** What the log reports, for metrics. */
export interface LogObserver {
  /** A frame is durable. @param seconds from its hand-over to the disk. */
  readonly onFrame?: (commits: number, bytes: number, seconds: number) => void;
  /** A write failed, and the log continues in a new segment. */
  readonly onCut?: (error: unknown) => void;
  /** Writes have stopped, until {@link onResumed}. */
  readonly onStopped?: (error: unknown) => void;
  readonly onResumed?: () => void;
  /** The log has ended, since no segment may be begun any more: the data folder is another's. */
  readonly onLost?: (error: unknown) => void;
  /**
   * The log fills: the oldest segment should be freed; `handle` waits for its own parts to be covered, if it
   * is given.
   */
  readonly onPressure?: (handle: string | undefined) => void;
}
