import { hasCode } from '@bundoc/shared/contract/app-error';
import type { Clock } from '@bundoc/shared/runtime/clock';
import type { Logger } from '@bundoc/shared/runtime/logger';

export interface SpreadRotationsOptions {
  /** Has the key service make a new version of a project's key. */
  readonly rotate: (project: string, version: number) => Promise<void>;
  readonly clock: Pick<Clock, 'monotonic'>;
  readonly logger: Logger;
}

/** How long no key is rotated after the key service did not answer, milliseconds. */
const PAUSE_MS = 60_000;

/**
 * Keys that have sealed much wait here until they are rotated, a few at a time. After a take-over, all keys
 * of a storage are due with their next writes; there is room for millions of seals until they must be.
 */
export class SpreadRotations {
  readonly #options: SpreadRotationsOptions;
  /** Versions that are to be replaced, by project; those that wait longest first. */
  readonly #due = new Map<string, number>();
  #pausedUntilMs = Number.NEGATIVE_INFINITY;

  constructor(options: SpreadRotationsOptions) {
    this.#options = options;
  }

  /** Keys that wait. */
  get waiting(): number {
    return this.#due.size;
  }

  /** A version of a project's key is to be replaced. It may be said again. */
  due(project: string, version: number): void {
    this.#due.set(project, version);
  }

  /** Rotates keys that wait, `max` at most. Never rejects. @returns their projects. */
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
          // Behind the others, unless somebody has said it again.
          if (!this.#due.has(project)) this.#due.set(project, version);
          // A key that cannot be rotated holds up no other.
          if (hasCode(error, 'kms_unavailable')) this.#pausedUntilMs = clock.monotonic() + PAUSE_MS;
        }
      }),
    );
    return rotated;
  }
}
