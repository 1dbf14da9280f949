import { freeMemory } from '@bundoc/shared/process/free-memory';
import type { Work } from './work.ts';

/** Bytes copied before other work gets its turn. */
const STEP_BYTES = 1_048_576;

/** Joins all parts into one buffer, and frees them. Yields between the steps. */
export async function joinInSteps(parts: readonly (string | Buffer)[], work: Work): Promise<Buffer> {
  const buffers = parts.map((part) => (typeof part === 'string' ? Buffer.from(part) : part));
  const whole = Buffer.allocUnsafeSlow(buffers.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  let stepEnd = 0;
  for (const buffer of buffers) {
    if (at >= stepEnd) {
      const turn = work.pause();
      if (turn !== undefined) await turn;
      stepEnd = at + STEP_BYTES;
    }
    buffer.copy(whole, at);
    at += buffer.length;
    freeMemory(buffer);
  }
  work.leave();
  return whole;
}
