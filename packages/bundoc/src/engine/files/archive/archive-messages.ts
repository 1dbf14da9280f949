import type { LogEnd } from '../log/log-api.ts';

// Messages between `archive-thread.ts` and `archive-worker.ts`.

/** What the thread begins with. */
export interface ArchiveThreadData {
  /** `BUNDOC_ARCHIVE`. */
  readonly setting: string;
  /** The variables of AWS, if there are any. */
  readonly environment: Readonly<Record<string, string>>;
  readonly dataDir: string;
  readonly projectsDir: string;
  readonly tmp: string;
  /** 32 hexadecimal digits. */
  readonly storageId: string;
}

/** A question of the thread. */
export type ArchiveQuestion =
  | { readonly id: number; readonly ask: 'log end'; readonly from: number | undefined }
  | { readonly id: number; readonly ask: 'changed projects' }
  | { readonly id: number; readonly ask: 'shipped'; readonly segment: number };

export type ArchiveAnswer = LogEnd | readonly string[] | undefined;

/** How far the archive is. */
export interface ArchiveReport {
  /** When everything was read that is shipped now, milliseconds since 1970; undefined while more waits. */
  readonly completeAtMs: number | undefined;
  /** Objects shipped with this report: 0 or 1. */
  readonly objects: number;
  /** Whether it began another chain, since the former one cannot be continued. */
  readonly isRoot: boolean;
  readonly basesWaiting: number;
  /** Projects whose folders could not be read. */
  readonly failed: readonly string[];
  /** When the newest complete round began, milliseconds since 1970. */
  readonly roundBeganMs: number | undefined;
  /** When the last good drill ended, milliseconds since 1970. */
  readonly drilledMs: number | undefined;
  /** Why nothing was shipped. */
  readonly error: string | undefined;
}

export type FromArchiveThread = ArchiveQuestion | { readonly report: ArchiveReport };
export type ToArchiveThread = { readonly id: number; readonly answer: ArchiveAnswer } | 'close';
