import type { FastifyInstance } from 'fastify';
import { every } from '../runtime/clock.ts';

/** Calls `sweep` again and again, until the server is closed. */
export function sweepUntilClosed(app: FastifyInstance, everyMs: number, sweep: () => void): void {
  const sweeps = every(everyMs, sweep);
  app.addHook('onClose', async () => sweeps[Symbol.dispose]());
}
