/**
 * Interval of sweeps of a project that is not open, milliseconds. A sweep fetches its key, which BunKMS
 * records.
 */
export const SWEEP_INTERVAL_MS = 3_600_000;

/** A project that the caller shall sweep. */
export interface DueProject {
  readonly project: string;
  /** Distinguishes this turn from later ones. */
  readonly turn: number;
}

/**
 * The projects that have collections with a time to live, so that a sweep finds expired documents even when
 * nobody opens the project. The mark lies with the project in the clear, and says nothing else.
 */
export interface ExpiryMarks {
  /**
   * Marks, durably, that documents of a project are about to get a time to live. Its first sweep is due an
   * hour later.
   */
  mark(project: string): Promise<void>;

  /** {@link mark} for a project that already has such documents; it does nothing where the mark exists. */
  ensureMarked(project: string): Promise<void>;

  /** Takes a project that is due and postpones its next turn by an hour; undefined when there is none. */
  take(): Promise<DueProject | undefined>;

  /**
   * Sets the next turn of a taken project to `afterMs` from now. Does nothing if it was marked or taken
   * since.
   */
  reschedule(due: DueProject, afterMs: number): Promise<void>;

  /**
   * Removes the mark of a taken project that has no time to live any more. Does nothing if it was marked or
   * taken since.
   */
  unmark(due: DueProject): Promise<void>;
}
