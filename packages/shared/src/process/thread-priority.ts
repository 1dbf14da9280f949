import { readdirSync, readFileSync } from 'node:fs';
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

/** Niceness of V8's helper threads. */
export const HELPER_NICENESS = 5;
/** Beginning of their names, since Node 24. */
const HELPER_NAME = 'V8Worker';
/** A folder for each thread of this process. */
const THREADS = '/proc/self/task';

/**
 * Lets the event loop go before V8's helper threads, which collect garbage and compile. There are four of
 * them. When clients hold many answers, V8 collects several times a second. On a machine with few processors,
 * the event loop then waits for a processor up to half of the time.
 *
 * Linux only. It never raises a priority, and never fails.
 */
export function lowerHelperThreads(): void {
  if (process.platform !== 'linux') return;
  try {
    for (const thread of readdirSync(THREADS)) {
      const name = readFileSync(`${THREADS}/${thread}/comm`, 'latin1');
      const id = Number(thread);
      if (name.startsWith(HELPER_NAME) && getPriority(id) < HELPER_NICENESS) setPriority(id, HELPER_NICENESS);
    }
  } catch {
    // There is no /proc, a thread has just ended, or a sandbox forbids it. The process works without it.
  }
}
