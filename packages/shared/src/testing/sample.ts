/**
 * `count` of these items, in their order. Each seed has its own sample, and over many seeds each item comes
 * equally often.
 */
export function sampleOf<T>(items: readonly T[], count: number, seed: number): T[] {
  let state = seed;
  const drawn = items.map((item, index) => {
    // A step of mulberry32.
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return { item, index, rank: (mixed ^ (mixed >>> 14)) >>> 0 };
  });
  drawn.sort((a, b) => a.rank - b.rank);
  return drawn
    .slice(0, count)
    .sort((a, b) => a.index - b.index)
    .map(({ item }) => item);
}
