import { fileURLToPath } from 'node:url';
import { runBundoc } from '@bundoc/bundoc/cli/program';
import { capturedRun, type Finished } from '@bundoc/shared/testing/captured-run';
import { runNode } from '@bundoc/shared/testing/node-process';

const MAIN = fileURLToPath(new URL('../../packages/bundoc/src/cli/main.ts', import.meta.url));

/**
 * Runs `bundoc` in this process. Its standard streams are those of the tests: for them,
 * {@link bundocProcess}.
 */
export function bundocCommand(
  environment: Record<string, string>,
  args: readonly string[],
): Promise<Finished> {
  // What guards a process's memory is not for that of the tests.
  return capturedRun(() => runBundoc(args, { NODE_ENV: 'test', ...environment }));
}

/** Runs `bundoc` as an operator does, with something on its standard input. */
export function bundocProcess(
  environment: Record<string, string>,
  args: readonly string[],
  input = '',
): Promise<Finished> {
  return runNode([MAIN, ...args], environment, input);
}
