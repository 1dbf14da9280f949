/** A bounded piece of work for a holder. Times are ISO 8601 in UTC. */
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
   * Claims a task for a holder until a time, or prolongs the holder's claim, so that one of several processes
   * does it.
   *
   * @param claim an existing claim that reaches further than `until` was made by a clock that was set back
   * since: it counts as over.
   * @returns false when another holder has the task.
   */
  claim(claim: TaskClaim): Promise<boolean>;

  /** Ends a holder's claim. Does nothing when the holder has none. */
  release(claim: Pick<TaskClaim, 'task' | 'holder'>): Promise<void>;

  /**
   * Records until when a service is up, and its KEKs, so that no KEK becomes the current one that a service
   * lacks.
   */
  announce(presence: Presence): Promise<void>;

  /** Records that a service is not up any more. */
  withdraw(service: string): Promise<void>;
}
