import type { BackupFacts } from './write-backup.ts';

/** What a destination has of one installation. */
export interface FolderContent {
  /** Whether a backup is recent enough that none is due. */
  readonly isFresh: boolean;
  /** Whether another process is writing a backup here, or ended lately while it did. */
  readonly isBeingWritten: boolean;
  /** Names of temporary files of processes that ended. */
  readonly left: readonly string[];
  /** Names of the backups that are no longer kept. */
  readonly surplus: readonly string[];
}

/** Where the service's own backups go: a folder, or an archive. */
export interface BackupDestination {
  /** For logs. */
  readonly path: string;
  /** The time of the newest backup as far as it is known, milliseconds since 1970; 0 without one. */
  readonly newestMs: number;
  /** Prepares the destination. @throws the system's error. */
  make(): Promise<void>;
  /** @throws the error of the destination or of the store. */
  read(nowMs: number): Promise<FolderContent>;
  /** The path of the file of a backup as of a time, to the second. Call it after `read`. */
  pathOf(timeMs: number): string;
  /** Removes backups and files of these names. */
  remove(names: readonly string[]): Promise<void>;
  /**
   * Stores the file of a complete and verified backup. Absent when its path is where it stays.
   *
   * @param onProgress called when a part of it is stored.
   * @throws the error of the destination.
   */
  ship?(path: string, facts: BackupFacts, onProgress: () => void): Promise<void>;
}
