import type { Logger } from '@bundoc/shared/runtime/logger';
import type { ShareKey } from '@bundoc/shared/shares/share-key';

/** How often {@link ProcessorUse.report} is to be called, milliseconds. */
export const USE_EVERY_MS = 60_000;
/** Use that is reported: that of half a processor. */
const BUSY_MS = USE_EVERY_MS / 2;
/** Users that are counted one by one. Beyond it, the half that used least is forgotten. */
export const USERS_MAX = 4_096;
/** Users that a report names. */
const NAMED = 5;

interface Use {
  /** Absent for the service's own work. */
  readonly subject?: string;
  /** Absent for work without a project. */
  readonly project?: string;
  us: number;
}

/**
 * Counts who uses the processor for long work, so that the log can name them while the service is busy. A
 * metric cannot: it has no label for a tenant.
 */
export class ProcessorUse {
  readonly #logger: Pick<Logger, 'info'>;
  readonly #byUser = new Map<string, Use>();
  #us = 0;

  constructor(logger: Pick<Logger, 'info'>) {
    this.#logger = logger;
  }

  count({ subject, project }: ShareKey, us: number): void {
    this.#us += us;
    const user = `${subject} ${project}`;
    const use = this.#byUser.get(user);
    if (use !== undefined) use.us += us;
    else {
      if (this.#byUser.size >= USERS_MAX) this.#forgetLeast();
      this.#byUser.set(user, {
        ...(subject === '' ? {} : { subject }),
        ...(project === '' ? {} : { project }),
        us,
      });
    }
  }

  #forgetLeast(): void {
    const most = [...this.#byUser].sort(([, a], [, b]) => b.us - a.us).slice(0, USERS_MAX / 2);
    this.#byUser.clear();
    for (const [user, use] of most) this.#byUser.set(user, use);
  }

  /** Logs those who used most since the last call, if all together used half of a processor. */
  report(): void {
    const usedMs = this.#us / 1_000;
    if (usedMs >= BUSY_MS) {
      const most = [...this.#byUser.values()]
        .sort((a, b) => b.us - a.us)
        .slice(0, NAMED)
        .map(({ us, ...user }) => ({ ...user, ms: Math.round(us / 1_000) }));
      this.#logger.info(
        { ms: Math.round(usedMs), most },
        'long work took over half of a processor in this minute',
      );
    }
    this.#us = 0;
    this.#byUser.clear();
  }
}
