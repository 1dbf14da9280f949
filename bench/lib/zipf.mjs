// Repeatable random choices with a Zipf distribution.

/** Numbers from 0 to 1, the same in each run. */
export function seeded(seed) {
  let state = seed >>> 0;
  // mulberry32
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/**
 * Numbers from 1 to `count` with a Zipf distribution: rank r has a weight of 1 / r^exponent. Ranks are
 * assigned at random, so that neighbours differ in popularity.
 */
export function zipfPicks(count, exponent, length, random) {
  const sums = new Float64Array(count);
  let sum = 0;
  for (let rank = 0; rank < count; rank++) {
    sum += 1 / (rank + 1) ** exponent;
    sums[rank] = sum;
  }
  const dealt = shuffled(
    Array.from({ length: count }, (_, at) => at + 1),
    random,
  );
  return Array.from({ length }, () => dealt[firstAbove(sums, random() * sum)]);
}

function shuffled(items, random) {
  for (let at = items.length - 1; at > 0; at--) {
    const other = Math.floor(random() * (at + 1));
    [items[at], items[other]] = [items[other], items[at]];
  }
  return items;
}

function firstAbove(sums, value) {
  let low = 0;
  let high = sums.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sums[middle] > value) high = middle;
    else low = middle + 1;
  }
  return low;
}
