/**
 * How long nobody may look at the documents of a project that may expire, milliseconds. A look fetches its
 * key, which BunKMS records.
 */
export const SWEEP_INTERVAL_MS = 3_600_000;

/** A project that somebody was given to look at. */
export interface DueProject {
  readonly project: string;
  /** What tells this turn from later ones. */
  readonly turn: number;
}

/**
 * Which projects have collections whose documents expire, so that these go from disk though nobody opens the
 * project. Kept with the project, in the clear: that is all that it says.
 */
export interface ExpiryMarks {
  /**
   * Keeps, durably, that documents of a project are about to get a time to live, and has it looked at an hour
   * later.
   */
  mark(project: string): Promise<void>;

  /** The same of a project that has such documents already, which changes nothing where it is marked. */
  ensureMarked(project: string): Promise<void>;

  /**
   * Gives out a project that is due, which nobody is given again for an hour; undefined when there is none.
   */
  take(): Promise<DueProject | undefined>;

  /**
   * Has a project that was taken looked at again after `afterMs`. Nothing happens when it was marked or taken
   * since.
   */
  reschedule(due: DueProject, afterMs: number): Promise<void>;

  /**
   * Forgets a project that was taken: nothing of it expires any more. Nothing happens when it was marked or
   * taken since.
   */
  unmark(due: DueProject): Promise<void>;
}
