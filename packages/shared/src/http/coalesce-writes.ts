import type { FastifyInstance } from 'fastify';

/**
 * Writes the answers that become ready in one turn of the event loop one right after the other at its end, as
 * Redis does, instead of each in the midst of the work for the next. Anyone who reads them on this machine is
 * woken once a turn and not once an answer, which costs as much as all else of an answer; it also keeps the
 * work of a kind together.
 *
 * Register it after every other `onSend` hook.
 */
export function coalesceWrites(app: FastifyInstance): void {
  let ready: (() => void)[] = [];
  const writeAll = (): void => {
    const all = ready;
    ready = [];
    for (const write of all) write();
  };
  app.addHook('onSend', (_request, _reply, payload, done) => {
    if (ready.length === 0) setImmediate(writeAll);
    ready.push(() => done(null, payload));
  });
}
