import { AppError } from '../contract/app-error.ts';
import { serveCalls } from '../threads/serve-calls.ts';

// A thread for tests of `thread.ts`.

const operations = {
  echo: (...args: readonly unknown[]) => args,
  later: async (value: unknown) => value,
  hang: () => void Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0),
  never: () => new Promise<void>(() => undefined),
  crash: () =>
    new Promise<void>(() => {
      setImmediate(() => {
        throw new Error('boom');
      });
    }),
  end: () => process.exit(3),
  refuse: () => {
    throw new AppError('key_exists', { detail: 'what', retryAfterS: 2, cause: new Error('why') });
  },
  uncopied: (isError: boolean): unknown => {
    const part = { part: () => undefined };
    if (isError) throw Object.assign(new Error('why'), part);
    return part;
  },
  fail: () => {
    throw Object.assign(new Error('why'), { code: 'ENOSPC' });
  },
};
export type EchoOperations = typeof operations;

serveCalls(() => operations, { quick: new Set(['echo', 'uncopied']) });
