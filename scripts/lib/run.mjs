import { spawn } from 'node:child_process';
import { text } from 'node:stream/consumers';
import { UserError } from './root.mjs';

/** A tool that goes on after SIGTERM is killed after this time. */
const STOP_WITHIN_MS = 1_000;

/**
 * Runs a tool and returns its exit code. The tool has a separate process group. So an abort ends all its
 * processes (npx and pnpm start children), and Ctrl-C in the terminal reaches only the supervisor.
 *
 * @param {string} command
 * @param {readonly string[]} args
 * @param {{ cwd: string, env: NodeJS.ProcessEnv, stdout?: 'inherit' | 'stderr', signal?: AbortSignal }}
 *   options `stdout: 'stderr'` (the default) keeps standard output free for the output of the script.
 * @returns {Promise<number>} 128 + n for a tool that was killed, as in a shell.
 */
export function run(command, args, { cwd, env, stdout = 'stderr', signal }) {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const child = spawn(command, args, {
      cwd,
      env,
      stdio: ['ignore', stdout === 'stderr' ? 2 : stdout, 'inherit'],
      detached: true,
    });
    // A native compiler ends only when it is done. What it leaves half written is built again.
    const stop = () => {
      killGroup(child, 'SIGTERM');
      const insist = setTimeout(() => killGroup(child, 'SIGKILL'), STOP_WITHIN_MS);
      child.once('close', () => clearTimeout(insist));
    };
    signal?.addEventListener('abort', stop, { once: true });
    child.once('error', (error) => {
      signal?.removeEventListener('abort', stop);
      reject(new UserError(`${command} could not be run: ${error.message}`));
    });
    child.once('close', (code) => {
      signal?.removeEventListener('abort', stop);
      if (signal?.aborted) reject(signal.reason);
      else resolve(code ?? 128 + 15);
    });
  });
}

/**
 * As {@link run}, but throws an error that names a failing tool.
 * @param {string} command
 * @param {readonly string[]} args
 * @param {Parameters<typeof run>[2]} options
 */
export async function mustRun(command, args, options) {
  const code = await run(command, args, options);
  if (code !== 0) throw new UserError(`"${[command, ...args].join(' ')}" failed (exit code ${code})`);
}

/**
 * Runs a tool and returns its trimmed standard output; its standard error passes through.
 * @param {string} command
 * @param {readonly string[]} args
 * @param {{ cwd: string, env: NodeJS.ProcessEnv }} options
 * @returns {Promise<string | undefined>} undefined when it could not be run or failed.
 */
export function outputOf(command, args, { cwd, env }) {
  return new Promise((resolve) => {
    const child = spawn(command, args, { cwd, env, stdio: ['ignore', 'pipe', 'inherit'] });
    const output = text(child.stdout);
    child.once('error', () => resolve(undefined));
    child.once('close', async (code) => resolve(code === 0 ? (await output).trim() : undefined));
  });
}

/**
 * Signals a detached child and all its descendants.
 * @param {import('node:child_process').ChildProcess} child
 * @param {NodeJS.Signals} signal
 */
export function killGroup(child, signal) {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, signal);
  } catch {
    // It has already exited.
  }
}
