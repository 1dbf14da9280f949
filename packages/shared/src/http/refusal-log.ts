import type { Clock } from '../runtime/clock.ts';
import type { Logger } from '../runtime/logger.ts';

/** Shortest interval between lines for one client and kind of refusal, milliseconds. */
export const REFUSAL_EVERY_MS = 60_000;
/** Pairs of client and kind that are tracked. Beyond it, clients share one entry per kind. */
export const REFUSALS_MAX = 1_024;
/** Projects of counted refusals that a line names. */
export const PROJECTS_MAX = 10;
/** Stands for the clients that are not tracked separately. */
export const OTHER_CLIENTS = 'others';

/** The level at which a kind of refusal is logged. */
export type RefusalLevel = 'info' | 'error';

interface Refusals {
  readonly client: string;
  readonly kind: string;
  readonly level: RefusalLevel;
  untilMs: number;
  /** Refusals since the last line. */
  count: number;
  /** Projects of these, {@link PROJECTS_MAX} at most. */
  readonly projects: Set<string>;
}

/** What a line says of the refusals before its own that had no line. */
export interface EarlierRefusals {
  /** Absent for none. */
  readonly count?: number;
  readonly projects?: readonly string[];
  /** Present if they are of several clients. */
  readonly client?: typeof OTHER_CLIENTS;
}

function earlier({ client, count, projects }: Refusals): EarlierRefusals {
  return {
    ...(count > 0 ? { count } : {}),
    ...(projects.size > 0 ? { projects: [...projects] } : {}),
    ...(client === OTHER_CLIENTS ? { client } : {}),
  };
}

/**
 * Bounds the lines that one client can cause in the log: one per minute for each kind of refusal. Further
 * refusals are counted. The next line has the count, or a separate line after a minute without refusals.
 */
export class RefusalLog {
  readonly #logger: Pick<Logger, RefusalLevel>;
  readonly #clock: Pick<Clock, 'monotonic'>;
  readonly #byKey = new Map<string, Refusals>();
  #timer: NodeJS.Timeout | undefined;

  constructor(logger: Pick<Logger, RefusalLevel>, clock: Pick<Clock, 'monotonic'>) {
    this.#logger = logger;
    this.#clock = clock;
  }

  /**
   * What the line of this refusal says of those before it; undefined if it gets no line and is only counted.
   *
   * @param project of the request, if it is authorized.
   */
  take(client: string, kind: string, level: RefusalLevel, project?: string): EarlierRefusals | undefined {
    const known = this.#byKey.get(`${client} ${kind}`);
    if (known === undefined && this.#byKey.size >= REFUSALS_MAX) {
      this.flush();
      if (this.#byKey.size >= REFUSALS_MAX && client !== OTHER_CLIENTS)
        return this.take(OTHER_CLIENTS, kind, level, project);
    }
    const nowMs = this.#clock.monotonic();
    const refusals = known ?? { client, kind, level, untilMs: 0, count: 0, projects: new Set() };
    if (known === undefined) this.#byKey.set(`${client} ${kind}`, refusals);
    else if (nowMs < refusals.untilMs) {
      refusals.count++;
      if (project !== undefined && refusals.projects.size < PROJECTS_MAX) refusals.projects.add(project);
      this.#timer ??= setTimeout(() => this.flush(), REFUSAL_EVERY_MS).unref();
      return undefined;
    }
    const before = earlier(refusals);
    restart(refusals, nowMs);
    return before;
  }

  /** Writes all counts, due or not. */
  close(): void {
    for (const refusals of this.#byKey.values()) refusals.untilMs = -REFUSAL_EVERY_MS;
    this.flush();
    clearTimeout(this.#timer);
  }

  /** Writes the counts that no line has reported yet, and forgets clients without recent refusals. */
  flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const nowMs = this.#clock.monotonic();
    let isWaiting = false;
    for (const [key, refusals] of this.#byKey) {
      const { client, kind, level, count, untilMs } = refusals;
      if (count === 0) {
        if (nowMs >= untilMs) this.#byKey.delete(key);
      } else if (nowMs >= untilMs + REFUSAL_EVERY_MS) {
        this.#logger[level]({ client, kind, ...earlier(refusals) }, 'more refusals, not logged one by one');
        restart(refusals, nowMs);
      } else isWaiting = true;
    }
    if (isWaiting) this.#timer = setTimeout(() => this.flush(), REFUSAL_EVERY_MS).unref();
  }
}

/** After a line. */
function restart(refusals: Refusals, nowMs: number): void {
  refusals.count = 0;
  refusals.projects.clear();
  refusals.untilMs = nowMs + REFUSAL_EVERY_MS;
}
