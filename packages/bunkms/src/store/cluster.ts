/** A holder's claim on a task. Times are ISO 8601 in UTC. */
export interface TaskClaim {
  readonly task: string;
  readonly holder: string;
  readonly now: string;
  readonly until: string;
}

/** A service that is up. Times are ISO 8601 in UTC. */
export interface Presence {
  readonly service: string;
  readonly kekIds: readonly string[];
  readonly now: string;
  readonly until: string;
}

/**
 * The processes that share a store. Nothing here needs the key of the chain. Errors of every method: see
 * `KmsStore`.
 */
export interface ClusterStore {
  /**
   * Claims a task for a holder until a time, or extends the holder's claim, so that only one process does it.
   *
   * @param claim an existing claim that ends after `until` was made before the clock was set back, and counts
   * as expired.
   * @returns false when another holder has the task.
   */
  claim(claim: TaskClaim): Promise<boolean>;

  /** Ends a holder's claim. Does nothing when the holder has none. */
  release(claim: Pick<TaskClaim, 'task' | 'holder'>): Promise<void>;

  /**
   * Records until when a service is up, and its KEKs. So no KEK becomes current that a running service lacks.
   */
  announce(presence: Presence): Promise<void>;

  /** Records that a service is down. */
  withdraw(service: string): Promise<void>;
}
