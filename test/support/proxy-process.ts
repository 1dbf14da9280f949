import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { PATIENT_MS } from '@bundoc/shared/testing/timing';
import { describe } from 'vitest';

/** A proxy from a Debian package that tests put in front of services. */
export interface ProxyProgram {
  /** The name of its package. */
  readonly name: string;
  /** The path of the installed program. */
  readonly path: string;
  /** The variable that turns a missing program into a failure. */
  readonly variable: string;
}

/**
 * Skips the tests and marks their name when the program is not installed. Its variable turns that into a
 * failure.
 */
export function describeWithProxy({ name, path, variable }: ProxyProgram, title: string, tests: () => void) {
  const isInstalled = existsSync(path);
  if (!isInstalled && process.env[variable] === '1')
    throw new Error(`${variable}=1, and ${name} is not installed`);
  if (isInstalled) describe(title, tests);
  else describe.skip(`${title} [skipped: ${name} is not installed]`, tests);
}

/** A proxy that runs in the foreground, so that it ends with the test. */
export class ProxyProcess implements AsyncDisposable {
  readonly #child: ChildProcess;

  private constructor(child: ChildProcess) {
    this.#child = child;
  }

  /** Resolves once the program listens on a port. */
  static async start(
    { name, path }: ProxyProgram,
    args: readonly string[],
    port: number,
  ): Promise<ProxyProcess> {
    const child = spawn(path, args, { stdio: ['ignore', 'ignore', 'pipe'] });
    let output = '';
    child.stderr.on('data', (chunk) => {
      output += String(chunk);
    });
    const started = new ProxyProcess(child);
    const deadline = Date.now() + PATIENT_MS;
    while (!(await accepts(port))) {
      if (child.exitCode !== null || Date.now() > deadline) {
        await started[Symbol.asyncDispose]();
        throw new Error(`${name} does not listen: ${output}`);
      }
      await sleep(20);
    }
    return started;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const exited = once(this.#child, 'exit');
    this.#child.kill('SIGKILL');
    await exited;
  }
}

function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ port, host: '127.0.0.1' });
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}
