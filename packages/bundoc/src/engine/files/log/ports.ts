/**
 * The disk of the log, so that tests can simulate one.
 *
 * Errors of every method: AppError `disk_full` or `storage_unavailable`.
 */
export interface LogDisk {
  /** Names in a folder, unordered; undefined when there is none. */
  list(directory: string): Promise<string[] | undefined>;
  /** Creates a folder unless it exists. Durable once its parent is synced. */
  makeDirectory(path: string): Promise<boolean>;
  /** Creates a new file and syncs its content. Its name is durable once its folder is synced. */
  createFile(path: string, content: Buffer | AsyncIterable<Buffer>): Promise<void>;
  rename(from: string, to: string): Promise<void>;
  /** False when there was none. Durable once its folder is synced. */
  remove(path: string): Promise<boolean>;
  syncDirectory(path: string): Promise<void>;
  /** Opens an existing file. */
  openLogFile(path: string): Promise<LogFile>;
  /**
   * A buffer that {@link LogFile.writeDurably} writes with the least copying; it contains one frame at a
   * time.
   */
  frameBuffer(bytes: number): Buffer;
}

/** The part of a disk that changes nothing. */
export type ReadableLogDisk = Pick<LogDisk, 'list' | 'openLogFile'>;

/** An open file. One write at a time; reads may run at the same time. */
export interface LogFile {
  /** Its length when it was opened. */
  readonly bytes: number;
  /** Reads this many bytes, fewer at the end of the file. */
  read(offset: number, bytes: number): Promise<Buffer>;
  /**
   * Overwrites bytes within the file's length, and makes them durable like `fdatasync`. After a rejection,
   * any part of them may have been written, durably or not.
   */
  writeDurably(offset: number, bytes: Buffer): Promise<void>;
  close(): Promise<void>;
}

/** What the log reports, for metrics. */
export interface LogObserver {
  /** A frame is durable. @param seconds from the start of its write. */
  readonly onFrame?: (commits: number, bytes: number, seconds: number) => void;
  /** A write failed, and the log continues in a new segment. */
  readonly onCut?: (error: unknown) => void;
  /** Writes have stopped, until {@link onResumed}. */
  readonly onStopped?: (error: unknown) => void;
  readonly onResumed?: () => void;
  /** The log has ended for good, because another process holds the data folder. */
  readonly onLost?: (error: unknown) => void;
  /**
   * The log fills, so the oldest segment should be freed. A given `handle` waits for its own parts to be
   * covered.
   */
  readonly onPressure?: (handle: string | undefined) => void;
}
