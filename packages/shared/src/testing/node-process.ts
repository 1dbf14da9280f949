import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Readable, Writable } from 'node:stream';
import type { Finished } from './captured-run.ts';

/**
 * Starts Node with arguments, which may name sources of the project, in this environment, with a compile
 * cache. Its standard input is empty.
 */
export function spawnNode(
  args: readonly string[],
  environment: Readonly<Record<string, string>>,
  input = '',
): ChildProcessByStdio<Writable, Readable, Readable> {
  // See vitest.workspace.ts.
  const { NODE_COMPILE_CACHE = '' } = process.env;
  const child = spawn(process.execPath, ['--conditions=@bundoc/source', ...args], {
    env: { NODE_COMPILE_CACHE, ...environment },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  // The child may exit before it reads that.
  child.stdin.on('error', () => undefined);
  child.stdin.end(input);
  return child;
}

/** As {@link spawnNode}; waits until it exits. */
export async function runNode(
  args: readonly string[],
  environment: Readonly<Record<string, string>>,
  input?: string,
): Promise<Finished> {
  const child = spawnNode(args, environment, input);
  const output = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr'] as const)
    child[name].on('data', (chunk) => {
      output[name] += String(chunk);
    });
  const [code] = (await once(child, 'close')) as [number | null];
  return { code, ...output };
}
