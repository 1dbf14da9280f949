import { performance } from 'node:perf_hooks';

/** The user asked to stop; nothing has failed. */
export class Stopped extends Error {}

/**
 * npm forwards Ctrl-C, which the supervisor also gets from the terminal. Signals within this time count as
 * one.
 */
const ECHO_MS = 500;

/**
 * Turns SIGINT, SIGTERM and SIGHUP into an abort. A second signal calls `onImpatience`.
 * @param {() => void} onImpatience
 * @returns {AbortSignal}
 */
export function stopSignal(onImpatience) {
  const controller = new AbortController();
  let firstAt = 0;
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'])
    process.on(name, () => {
      if (!controller.signal.aborted) {
        firstAt = performance.now();
        controller.abort(new Stopped(name));
      } else if (performance.now() - firstAt > ECHO_MS) onImpatience();
    });
  return controller.signal;
}
