import assert from 'node:assert/strict';
import { parentPort } from 'node:worker_threads';
import { type Answer, type Call, CLOSE, sentError } from './calls.ts';

export interface ServeOptions {
  /**
   * Names of operations that take microseconds. Their answers share one message, because a message costs more
   * than they do. Earlier answers are sent before any other operation begins.
   */
  readonly quick?: ReadonlySet<string>;
  /** What an error of an operation becomes for the caller. */
  readonly toError?: (error: unknown) => unknown;
  /** Called after the last call. */
  readonly onClose?: () => void;
}

/**
 * Serves the calls of a {@link Thread} in this thread, in order of arrival.
 *
 * @param operations gives the functions by name; called for each call, so that its error is an answer too.
 */
export function serveCalls(operations: () => object, options: ServeOptions = {}): void {
  const { quick, toError = (error) => error, onClose } = options;
  assert(parentPort !== null, 'a thread serves calls');
  const port = parentPort;
  let answers: Answer[] = [];
  const send = (some: readonly Answer[]): void => {
    try {
      port.postMessage(some);
    } catch (error) {
      // An answer that cannot be copied fails alone.
      const [one] = some;
      if (some.length === 1 && one !== undefined)
        port.postMessage([{ id: one.id, error: { message: String(error), reason: undefined } }]);
      else for (const each of some) send([each]);
    }
  };
  const post = (): void => {
    const some = answers;
    answers = [];
    if (some.length > 0) send(some);
  };
  const failure = (id: number, error: unknown): Answer => ({ id, error: sentError(toError(error)) });
  const serve = ({ id, name, args }: Call): void => {
    try {
      const functions = operations() as Record<string, (...args: readonly unknown[]) => unknown>;
      const value = functions[name]?.(...args);
      if (value instanceof Promise)
        void value
          .then(
            (done: unknown): Answer => ({ id, value: done }),
            (error: unknown) => failure(id, error),
          )
          .then((answer) => send([answer]));
      else answers.push({ id, value });
    } catch (error) {
      answers.push(failure(id, error));
    }
  };
  port.on('message', (calls: readonly Call[] | typeof CLOSE) => {
    if (calls === CLOSE) {
      onClose?.();
      port.close();
      return;
    }
    for (const call of calls) {
      if (quick?.has(call.name) !== true) post();
      // Nobody waits for an expired call any more, so it must not take effect now.
      if (call.expiresAtNs === undefined || process.hrtime.bigint() <= call.expiresAtNs) serve(call);
    }
    post();
  });
}
