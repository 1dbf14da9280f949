import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { spawnNode } from './node-process.ts';
import { PATIENT_MS } from './timing.ts';

/** A service in a separate process, which a test may kill. */
export class ServiceProcess implements AsyncDisposable {
  readonly process: ChildProcess;
  /** Resolves once it has exited for any reason and all its output is in {@link log}. */
  readonly exited: Promise<unknown>;
  #log = '';

  private constructor(child: ChildProcess) {
    this.process = child;
    // Not 'exit': at that time its last lines may be unread.
    this.exited = once(child, 'close');
  }

  /**
   * Starts a service and waits until it listens.
   *
   * @param message of the log record that says so.
   * @returns the service and that record.
   * @throws with its output when it exits before, or takes too long. It is killed then.
   */
  static async start(
    main: string,
    environment: Readonly<Record<string, string>>,
    message: string,
  ): Promise<{ readonly service: ServiceProcess; readonly record: Readonly<Record<string, string>> }> {
    const child = spawnNode([main], environment);
    const service = new ServiceProcess(child);
    const listening = new Promise<Record<string, string>>((resolve, reject) => {
      child.stderr.on('data', (chunk) => {
        service.#log += String(chunk);
      });
      createInterface({ input: child.stdout }).on('line', (line) => {
        service.#log += `${line}\n`;
        if (line.includes(`"msg":"${message}"`)) resolve(JSON.parse(line) as Record<string, string>);
      });
      const fail = (why: string) => reject(new Error(`the service ${why}: ${service.#log}`));
      const timer = setTimeout(() => fail('did not listen in time'), PATIENT_MS);
      child.once('close', (code, signal) => {
        clearTimeout(timer);
        fail(`ended with ${code ?? signal}`);
      });
    });
    try {
      return { service, record: await listening };
    } catch (error) {
      await service.kill();
      throw error;
    }
  }

  /** All its output, from both streams. */
  get log(): string {
    return this.#log;
  }

  /** Kills it with SIGKILL. Resolves once it has exited. */
  async kill(): Promise<void> {
    this.process.kill('SIGKILL');
    await this.exited;
  }

  /** SIGTERM. @returns its exit code. */
  async stop(): Promise<number | null> {
    this.process.kill('SIGTERM');
    await this.exited;
    return this.process.exitCode;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}
