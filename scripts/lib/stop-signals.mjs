import { performance } from 'node:perf_hooks';

/** The person asked to stop; nothing went wrong. */
export class Stopped extends Error {}

/**
 * npm passes on the terminal's Ctrl-C, which the supervisor got from the terminal too: signals this close
 * together are one wish.
 */
const ECHO_MS = 500;

/**
 * Turns SIGINT, SIGTERM and SIGHUP into an abort; a second one, meant as such, calls `onImpatience`.
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
