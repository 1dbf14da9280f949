/** Places that are sorted at once, before runs of them are merged. */
const RUN = 512;

/**
 * The places of numbers in their ascending order. A merge sort from the bottom up that yields after every
 * `step` places, because a sort of all in one call would hold the event loop.
 */
export function* sortedPlaces(numbers: Float64Array, step: number): Generator<void, Uint32Array> {
  const { length } = numbers;
  let from = new Uint32Array(length);
  for (let at = 0; at < length; at++) from[at] = at;
  let to = new Uint32Array(length);
  const numberOf = (places: Uint32Array, at: number) => numbers[places[at] as number] as number;
  let sinceYield = 0;
  for (let start = 0; start < length; start += RUN) {
    const run = from.subarray(start, start + RUN);
    run.sort((a, b) => (numbers[a] as number) - (numbers[b] as number));
    sinceYield += run.length;
    if (sinceYield < step) continue;
    sinceYield = 0;
    yield;
  }
  for (let run = RUN; run < length; run *= 2) {
    for (let start = 0; start < length; start += 2 * run) {
      const middle = Math.min(start + run, length);
      const end = Math.min(start + 2 * run, length);
      let left = start;
      let right = middle;
      // Usual, because documents are stored in the order of their creation.
      if (middle === end || numberOf(from, middle - 1) <= numberOf(from, middle)) {
        to.set(from.subarray(start, end), start);
        continue;
      }
      for (let at = start; at < end; at++) {
        const isLeft = left < middle && (right >= end || numberOf(from, left) <= numberOf(from, right));
        to[at] = from[isLeft ? left++ : right++] as number;
        if (++sinceYield < step) continue;
        sinceYield = 0;
        yield;
      }
    }
    [from, to] = [to, from];
  }
  return from;
}
