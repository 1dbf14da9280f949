import { extname } from 'node:path';
import { Worker, type WorkerOptions } from 'node:worker_threads';
import { defined } from '../contract/defined.ts';

/**
 * Starts a thread with a module, from `dist` or from the sources, whose types Node strips.
 *
 * The thread has no secrets of the process in its environment, only where Node keeps compiled code, which
 * tests set. Without it, each thread of a test would strip types again, by WebAssembly code: V8 can crash
 * when threads end while that is compiled.
 *
 * @param from `import.meta.url` of the caller.
 * @param module relative to it, without extension.
 */
export function startThread(from: string, module: string, options: WorkerOptions): Worker {
  const extension = extname(from);
  const { NODE_COMPILE_CACHE } = process.env;
  return new Worker(new URL(`${module}${extension}`, from), {
    ...options,
    env: defined({ NODE_COMPILE_CACHE }),
    execArgv:
      extension === '.ts' ? ['--conditions=@bundoc/source', '--disable-warning=ExperimentalWarning'] : [],
  });
}
