import { fileURLToPath } from 'node:url';
import { runBundoc } from '@bundoc/bundoc/cli/program';
import { capturedRun, type Finished } from '@bundoc/shared/testing/captured-run';
import { runNode } from '@bundoc/shared/testing/node-process';

const MAIN = fileURLToPath(new URL('../../packages/bundoc/src/cli/main.ts', import.meta.url));

/**
 * Runs `bundoc` in this process, with the standard streams of the tests. To control these, use {@link
 * bundocProcess}.
 */
export function bundocCommand(
  environment: Record<string, string>,
  args: readonly string[],
): Promise<Finished> {
  // Without production mode, which would protect the memory of the test process.
  return capturedRun(() => runBundoc(args, { NODE_ENV: 'test', ...environment }));
}

/** Runs `bundoc` as an operator does, with text on its standard input. */
export function bundocProcess(
  environment: Record<string, string>,
  args: readonly string[],
  input = '',
): Promise<Finished> {
  return runNode([MAIN, ...args], environment, input);
}
