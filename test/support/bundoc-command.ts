import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { runBundoc } from '@bundoc/bundoc/cli/program';
import { capturedRun, type Finished } from '@bundoc/shared/testing/captured-run';

const MAIN = fileURLToPath(new URL('../../packages/bundoc/src/cli/main.ts', import.meta.url));

/** Runs `bundoc` in this process. Its standard streams are those of the tests: for them, {@link bundocProcess}. */
export function bundocCommand(
  environment: Record<string, string>,
  args: readonly string[],
): Promise<Finished> {
  // What guards a process's memory is not for that of the tests.
  return capturedRun(() => runBundoc(args, { NODE_ENV: 'test', ...environment }));
}

/** Runs `bundoc` as an operator does, with something on its standard input. */
export async function bundocProcess(
  environment: Record<string, string>,
  args: readonly string[],
  input = '',
): Promise<Finished> {
  const child = spawn(process.execPath, ['--conditions=@bundoc/source', MAIN, ...args], {
    env: environment,
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  child.stdin.on('error', () => undefined);
  child.stdin.end(input);
  const output = { stdout: '', stderr: '' };
  child.stdout.on('data', (chunk) => {
    output.stdout += String(chunk);
  });
  child.stderr.on('data', (chunk) => {
    output.stderr += String(chunk);
  });
  const [code] = (await once(child, 'close')) as [number | null];
  return { code, ...output };
}
