import type { HandleIndex } from './handle-index.ts';
import type { LogLimits } from './log-api.ts';
import type { Attached } from './log-turns.ts';
import type { Segments } from './segments.ts';

/** From this fill of the log on, sources with too many uncovered bytes wait. */
const WAIT_FROM = 0.75;
/**
 * From this fill on, all sources of a subject with too many bytes wait. A single subject may use the rest of
 * the log.
 */
const SUBJECT_WAITS_FROM = 0.875;
/**
 * Divisors for the share of a project and of a subject. The service's own work only has the share of a
 * project.
 */
const SHARES = 8;
const SUBJECT_SHARES = 4;

/** The shares of projects and subjects in a nearly full log. */
export class LogShares {
  readonly #limits: LogLimits;
  readonly #segments: Segments;
  readonly #index: HandleIndex;
  readonly #attached: ReadonlyMap<string, Attached>;
  /** Bytes by subject, cached while one frame is composed: only a nearly full log needs them. */
  #uncovered: ReadonlyMap<string, number> | undefined;
  #ofReserve: ReadonlyMap<string, number> | undefined;

  /** @param attached all projects that write, by handle. */
  constructor(
    limits: LogLimits,
    segments: Segments,
    index: HandleIndex,
    attached: ReadonlyMap<string, Attached>,
  ) {
    this.#limits = limits;
    this.#segments = segments;
    this.#index = index;
    this.#attached = attached;
  }

  beginFrame(): void {
    this.#uncovered = undefined;
    this.#ofReserve = undefined;
  }

  /** Whether a source has used up its part of the reserve. */
  isOverReserve({ reserveBytes, subject }: Attached): boolean {
    const bytes = 2 * this.#limits.segmentBytes;
    if (reserveBytes > bytes / SHARES) return true;
    if (subject === '') return false;
    this.#ofReserve ??= this.#bySubject((attached) => attached.reserveBytes);
    return (this.#ofReserve.get(subject) ?? 0) > bytes / SUBJECT_SHARES;
  }

  /**
   * In a nearly full log, large sources wait first, and then large subjects. The shares shrink with the
   * remaining space.
   *
   * @returns whose share is used up.
   */
  exceeded({ source: { handle }, subject }: Attached): 'project' | 'subject' | undefined {
    const { fill } = this.#segments;
    if (fill < WAIT_FROM) return undefined;
    const { segmentBytes, segmentsMax } = this.#limits;
    const left = (Math.max(0, 1 - fill) / (1 - WAIT_FROM)) * segmentBytes * segmentsMax;
    const bytes = Math.max(left, segmentBytes);
    if (this.#index.uncoveredBytesOf(handle) > bytes / SHARES) return 'project';
    if (fill < SUBJECT_WAITS_FROM || subject === '') return undefined;
    this.#uncovered ??= this.#bySubject(({ source }) => this.#index.uncoveredBytesOf(source.handle));
    return (this.#uncovered.get(subject) ?? 0) > bytes / SUBJECT_SHARES ? 'subject' : undefined;
  }

  #bySubject(bytesOf: (attached: Attached) => number): Map<string, number> {
    const sums = new Map<string, number>();
    for (const attached of this.#attached.values()) {
      const { subject } = attached;
      sums.set(subject, (sums.get(subject) ?? 0) + bytesOf(attached));
    }
    return sums;
  }
}
