import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { pathOf } from '@bundoc/shared/testing/programs';
import { PATIENT_MS } from '@bundoc/shared/testing/timing';

/** A proxy that runs in the foreground, so that it ends with the test. */
export class ProxyProcess implements AsyncDisposable {
  readonly #child: ChildProcess;

  private constructor(child: ChildProcess) {
    this.#child = child;
  }

  /** Resolves once the program listens on a port. */
  static async start(
    name: 'haproxy' | 'nginx',
    args: readonly string[],
    port: number,
  ): Promise<ProxyProcess> {
    const child = spawn(pathOf(name) ?? name, args, { stdio: ['ignore', 'ignore', 'pipe'] });
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
