import { defined } from '../contract/defined.ts';

/**
 * The environment of a worker thread. It has no secrets of the process, only where Node keeps compiled code,
 * which tests set. Without it, each thread of a test would strip types again, by WebAssembly code: V8 can
 * crash when threads end while that is compiled.
 */
export function workerEnvironment(): Record<string, string> {
  const { NODE_COMPILE_CACHE: cache } = process.env;
  return defined({ NODE_COMPILE_CACHE: cache });
}
