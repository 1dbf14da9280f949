import { getPriority, setPriority } from 'node:os';

/** Niceness of a thread in the background, in the scale of nice(1). */
export const BACKGROUND_NICENESS = 10;

/**
 * Lets other threads go before the calling one. It never raises a priority: without a privilege, that fails.
 *
 * On Linux, a priority is that of a thread; elsewhere it would be that of the whole process.
 */
export function yieldToOthers(): void {
  if (process.platform === 'linux' && getPriority() < BACKGROUND_NICENESS) setPriority(BACKGROUND_NICENESS);
}
