import { setTimeout as delay } from 'node:timers/promises';

/**
 * Called between small steps of long work on the event loop. @returns undefined, or a promise to wait for
 * before the next step.
 */
export type Pace = () => Promise<void> | undefined;

/** How long steps may run before requests have the event loop, milliseconds. */
const SLICE_MS = 4;
/** How much longer a rest is than the slice before it: the work takes about a third of the thread. */
const REST_FACTOR = 2;

/** For work that has its process to itself. */
export const unpaced: Pace = () => undefined;

/**
 * Lets requests have the event loop during long work: it runs in slices, with rests in between.
 *
 * @param signal ends the work: from then on, each call and each rest throws its reason.
 */
export function inSlices(signal: AbortSignal): Pace {
  let begunMs = performance.now();
  const rest = async (ms: number): Promise<void> => {
    await delay(ms, undefined, { signal });
    begunMs = performance.now();
  };
  return () => {
    signal.throwIfAborted();
    const ranMs = performance.now() - begunMs;
    // A wait for the disk or the store within a slice was a rest itself.
    return ranMs < SLICE_MS ? undefined : rest(Math.min(ranMs, SLICE_MS) * REST_FACTOR);
  };
}
