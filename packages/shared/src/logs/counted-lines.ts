import { type Clock, systemClock } from '../runtime/clock.ts';
import { Minutes, OTHERS } from './minutes.ts';

/** Maximum of examples of counted events in a line. */
export const EXAMPLES_MAX = 10;

/** Events without a line of their own. */
export interface Counted {
  /** Absent for none. */
  readonly count?: number;
  /** Absent for none. */
  readonly examples?: readonly string[];
  /** Present if the events belong to several owners. */
  readonly owner?: typeof OTHERS;
}

interface Lines {
  count: number;
  /** {@link EXAMPLES_MAX} at most. */
  readonly examples: Set<string>;
  /** Writes a line for the counted events if no other event follows. */
  write: (counted: Counted) => void;
  /** Whether a minute has passed since the line, so that the next event gets a line. */
  isDue: boolean;
}

/**
 * Bounds the lines in the log: one a minute for each name of an owner. Further events are counted. The next
 * line has their count, or a separate one if none follows within another minute. Beyond a number of owners,
 * the others share the lines of a name.
 */
export class CountedLines implements Disposable {
  readonly #minutes: Minutes<Lines>;

  constructor({ clock = systemClock, max }: { readonly clock?: Clock; readonly max?: number } = {}) {
    this.#minutes = new Minutes({
      clock,
      ...(max === undefined ? {} : { max }),
      onEnd: ({ owner, name, value }) => {
        if (value.count === 0) return;
        if (!value.isDue && this.#minutes.begin(owner, name, { ...value, isDue: true })) return;
        this.#minutes.begin(owner, name, newLines(value.write));
        value.write(countedIn(owner, value));
      },
    });
  }

  /**
   * Counts an event. @returns undefined when it has no line. Otherwise what its line says of earlier events.
   *
   * @param write writes a line for this event if it is only counted, and no other follows.
   */
  take(
    owner: string,
    name: string,
    write: (counted: Counted) => void,
    example?: string,
  ): Counted | undefined {
    const lines = this.#minutes.get(owner, name);
    if (lines === undefined || lines.isDue) {
      const isCounted = this.#minutes.begin(owner, name, newLines(write));
      if (!isCounted && owner !== OTHERS) return this.take(OTHERS, name, write, example);
      return countedIn(owner, lines);
    }
    lines.count++;
    lines.write = write;
    if (example !== undefined && lines.examples.size < EXAMPLES_MAX) lines.examples.add(example);
    return undefined;
  }

  /** Writes a line for an event, or counts it. */
  say(owner: string, name: string, write: (counted: Counted) => void): void {
    const counted = this.take(owner, name, write);
    if (counted !== undefined) write(counted);
  }

  /** Writes all counts now. */
  flush(): void {
    this.#minutes.flush();
  }

  /** Writes all counts. From then on, each event has a line. */
  [Symbol.dispose](): void {
    this.#minutes[Symbol.dispose]();
  }
}

function newLines(write: Lines['write']): Lines {
  return { count: 0, examples: new Set(), write, isDue: false };
}

function countedIn(owner: string, lines: Lines | undefined): Counted {
  const { count = 0, examples = new Set<string>() } = lines ?? {};
  return {
    ...(count > 0 ? { count } : {}),
    ...(examples.size > 0 ? { examples: [...examples] } : {}),
    ...(owner === OTHERS ? { owner } : {}),
  };
}
