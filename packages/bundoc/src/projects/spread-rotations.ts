import { hasCode } from '@bundoc/shared/contract/app-error';
import type { Logger } from '@bundoc/shared/logs/logger';
import type { Clock } from '@bundoc/shared/runtime/clock';

export interface SpreadRotationsOptions {
  /** Rotates a project's key at the key service. */
  readonly rotate: (project: string, version: number) => Promise<void>;
  readonly clock: Pick<Clock, 'monotonic'>;
  readonly logger: Logger;
}

/** Pause of all rotations after the key service was unavailable, milliseconds. */
const PAUSE_MS = 60_000;

/**
 * A queue of keys that have sealed many times, which are rotated a few at a time. After a take-over, all keys
 * of a storage are due with their next writes; millions of seals are left before they must be.
 */
export class SpreadRotations {
  readonly #options: SpreadRotationsOptions;
  /** Versions to replace, by project, oldest first. */
  readonly #due = new Map<string, number>();
  #pausedUntilMs = Number.NEGATIVE_INFINITY;

  constructor(options: SpreadRotationsOptions) {
    this.#options = options;
  }

  /** Number of queued keys. */
  get waiting(): number {
    return this.#due.size;
  }

  /** Queues the rotation of a project's key. Idempotent. */
  due(project: string, version: number): void {
    this.#due.set(project, version);
  }

  /** Rotates up to `max` queued keys. Never rejects. @returns their projects. */
  async run(max: number): Promise<readonly string[]> {
    const { rotate, clock, logger } = this.#options;
    if (clock.monotonic() < this.#pausedUntilMs) return [];
    const some = [...this.#due].slice(0, Math.max(0, max));
    const rotated: string[] = [];
    await Promise.all(
      some.map(async ([project, version]) => {
        this.#due.delete(project);
        try {
          await rotate(project, version);
          rotated.push(project);
        } catch (error) {
          logger.error({ project, version, err: error }, 'failed to rotate a key that has sealed many times');
          // To the end of the queue, unless it was queued again.
          if (!this.#due.has(project)) this.#due.set(project, version);
          // Other errors only concern this key.
          if (hasCode(error, 'kms_unavailable')) this.#pausedUntilMs = clock.monotonic() + PAUSE_MS;
        }
      }),
    );
    return rotated;
  }
}
