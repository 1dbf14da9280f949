import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { PATIENT_MS } from '@bundoc/shared/testing/timing';
import { describe } from 'vitest';

/** A program of Debian that tests put in front of services. */
export interface ProxyProgram {
  /** The name of its package. */
  readonly name: string;
  /** Where the package puts it. */
  readonly path: string;
  /** The variable that makes a lack of it a failure. */
  readonly variable: string;
}

/** Skips, and says so in its name, where the program is not installed; its variable makes that a failure. */
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

  /** Resolves once it listens on a port. */
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
