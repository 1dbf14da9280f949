import { type Clock, systemClock } from '../runtime/clock.ts';

/** The real clock with an adjustable offset. */
export class MovedClock implements Clock {
  movedMs = 0;
  now(): number {
    return systemClock.now() + this.movedMs;
  }
  monotonic(): number {
    return systemClock.monotonic() + this.movedMs;
  }
}
