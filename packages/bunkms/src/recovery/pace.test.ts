import { describe, expect, it } from 'vitest';
import { inSlices } from './pace.ts';

/** Keeps the event loop for so long, milliseconds. */
function work(ms: number): void {
  for (const endMs = performance.now() + ms; performance.now() < endMs; );
}

describe('long work in slices', () => {
  it('lets others have the event loop after each slice, for longer than the slice took', async () => {
    const pace = inSlices(new AbortController().signal);
    for (let slice = 0; slice < 5; slice++) {
      work(5);
      let turns = 0;
      const turn = setInterval(() => turns++, 1);
      const beganMs = performance.now();
      const rest = pace();
      expect(rest).toBeInstanceOf(Promise);
      await rest;
      clearInterval(turn);
      expect(performance.now() - beganMs).toBeGreaterThan(5);
      expect(turns).toBeGreaterThan(0);
    }
  });

  it('ends with the reason of its signal, at the next step and during a rest', async () => {
    const stopping = new AbortController();
    const pace = inSlices(stopping.signal);
    work(5);
    const rest = pace();
    stopping.abort();
    await expect(rest).rejects.toMatchObject({ name: 'AbortError' });
    expect(pace).toThrow(stopping.signal.reason);
  });
});
