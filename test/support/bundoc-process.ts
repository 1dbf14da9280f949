import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { PATIENT_MS } from '@bundoc/shared/testing/patient';

const MAIN = fileURLToPath(new URL('../../packages/bundoc/src/main.ts', import.meta.url));

/** Bundoc as a process of its own, which a test may kill. */
export class BundocProcess implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #exited: Promise<unknown>;
  #log = '';
  #url: string | undefined;

  private constructor(environment: Readonly<Record<string, string>>) {
    this.#child = spawn(process.execPath, ['--conditions=@bundoc/source', MAIN], {
      env: { BUNDOC_PORT: '0', ...environment },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    // Not 'exit': by then its last lines may not have been read.
    this.#exited = once(this.#child, 'close');
  }

  /** Resolves once it listens. @throws when it ends before, with what it wrote. */
  static async start(environment: Readonly<Record<string, string>>): Promise<BundocProcess> {
    const started = new BundocProcess(environment);
    const child = started.#child;
    const listening = new Promise<string>((resolve, reject) => {
      child.stderr?.on('data', (chunk) => {
        started.#log += String(chunk);
      });
      if (child.stdout === null) throw new Error('there is no standard output');
      createInterface({ input: child.stdout }).on('line', (line) => {
        started.#log += `${line}\n`;
        if (line.includes('"msg":"Bundoc is listening"'))
          resolve(String((JSON.parse(line) as { url: unknown }).url));
      });
      const fail = (why: string) => reject(new Error(`Bundoc ${why}: ${started.#log}`));
      const timer = setTimeout(() => fail('did not listen in time'), PATIENT_MS);
      child.once('close', (code, signal) => {
        clearTimeout(timer);
        fail(`ended with ${code ?? signal}`);
      });
    });
    try {
      started.#url = await listening;
    } catch (error) {
      await started.kill();
      throw error;
    }
    return started;
  }

  get url(): string {
    if (this.#url === undefined) throw new Error('Bundoc does not listen');
    return this.#url;
  }

  /** All that it has logged. */
  get log(): string {
    return this.#log;
  }

  /** `kill -9`. Resolves once it is gone. */
  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#exited;
  }

  /** SIGTERM. @returns its exit code. */
  async stop(): Promise<number | null> {
    this.#child.kill('SIGTERM');
    await this.#exited;
    return this.#child.exitCode;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) await this.kill();
  }
}
