import type { Figure } from '@bundoc/shared/contract/query';
import { encodeExactly } from '../values/key.ts';
import type { Value } from '../values/value.ts';
import { sortInSteps } from '../work/sort-in-steps.ts';
import type { Work } from '../work/work.ts';

interface Entry {
  readonly value: Value;
  count: number;
}

/** Memory of an entry without its key and its value. */
const ENTRY_BYTES = 100;

/** The different values without null, and how many documents have each. */
export class Tally {
  readonly #entries = new Map<string, Entry>();
  #count = 0;
  #sorted: Promise<readonly string[]> | undefined;
  bytes = 0;

  add(value: Value | undefined): void {
    if (value === undefined || value === null) return;
    this.#count++;
    const key = encodeExactly(value);
    const entry = this.#entries.get(key);
    if (entry !== undefined) entry.count++;
    else {
      this.#entries.set(key, { value, count: 1 });
      this.bytes += ENTRY_BYTES + 2 * key.length;
    }
  }

  async result(figure: Figure, work: Work): Promise<Value> {
    if (figure.op === 'countDistinct') return this.#entries.size;
    this.#sorted ??= sortInSteps([...this.#entries.keys()], work);
    const keys = await this.#sorted;
    return figure.op === 'percentile'
      ? this.#atRank(keys, figure.percent)
      : keys.map((key) => this.#entry(key).value);
  }

  /** The nearest rank: of n values in order, the one at place n · percent / 100, rounded up. */
  #atRank(keys: readonly string[], percent: number): Value {
    // In thousandths of a percent, which are whole numbers: nothing is rounded on the way.
    const rank = Math.ceil((this.#count * Math.round(percent * 1_000)) / 100_000);
    let place = 0;
    for (const key of keys) {
      const { value, count } = this.#entry(key);
      place += count;
      if (place >= rank) return value;
    }
    return null;
  }

  #entry(key: string): Entry {
    return this.#entries.get(key) as Entry;
  }
}
