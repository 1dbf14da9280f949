import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { freePort } from '@bundoc/shared/testing/free-port';
import { processes } from '@bundoc/shared/testing/processes';
import { expect } from 'vitest';

const root = fileURLToPath(new URL('../..', import.meta.url));
const LAST_WORDS = 'Another token: ';

export interface Script {
  readonly child: ChildProcess;
  /** The output so far. */
  output(): string;
  readonly exit: Promise<{ code: number | null; stdout: string; stderr: string }>;
}

/** The setup of `npm start` in a folder and on ports of its own. Disposal ends all its processes. */
export class DevSetup implements AsyncDisposable {
  readonly dataDir = mkdtempSync(join(tmpdir(), 'bundoc start '));
  readonly environment: Readonly<Record<string, string>>;
  readonly #running = new Set<ChildProcess>();
  /** Process ids of services that may still run. */
  readonly #services = new Set<number>();

  private constructor(ports: Record<string, string>) {
    this.environment = { BUNDOC_DATA_DIR: this.dataDir, ...ports };
  }

  static async make(): Promise<DevSetup> {
    return new DevSetup(await freePorts());
  }

  /** Runs a script of the project, with arguments or more variables. */
  script(name: string, ...more: (string | Record<string, string>)[]): Script {
    const args = more.filter((part) => typeof part === 'string');
    const env = Object.assign(
      { ...process.env, ...this.environment },
      ...more.filter((part) => typeof part !== 'string'),
    );
    const child = spawn(process.execPath, [join(root, 'scripts', name), ...args], { cwd: root, env });
    this.#running.add(child);
    let stdout = '';
    let stderr = '';
    child.stdout.on('data', (chunk) => {
      stdout += chunk;
    });
    child.stderr.on('data', (chunk) => {
      stderr += chunk;
    });
    const exit = once(child, 'close').then(([code]) => {
      this.#running.delete(child);
      return { code, stdout, stderr };
    });
    return { child, exit, output: () => stdout };
  }

  /** Runs `npm start` until it has printed all that it prints. */
  async start(): Promise<Script> {
    const start = this.script('start.mjs');
    const ended = start.exit.then(({ stdout, stderr }) => {
      throw new Error(`it ended before it was ready\n${stdout}\n${stderr}`);
    });
    while (!start.output().includes(LAST_WORDS))
      await Promise.race([ended, new Promise((resolve) => setTimeout(resolve, 50))]);
    ended.catch(() => undefined);
    this.servicesOf(start.child);
    return start;
  }

  /** The processes of both services, by name. */
  servicesOf(supervisor: ChildProcess): { bunkms: number; bundoc: number } {
    const children = processes().filter(({ parent }) => parent === supervisor.pid);
    const pidOf = (name: string) =>
      children.find(({ args }) => args.includes(`packages/${name}/dist/main.js`))?.pid ?? Number.NaN;
    const pids = { bunkms: pidOf('bunkms'), bundoc: pidOf('bundoc') };
    for (const pid of Object.values(pids)) this.#services.add(pid);
    expect(Object.values(pids)).not.toContain(Number.NaN);
    return pids;
  }

  /** Expects that no service process is left. Free ports alone would not show that. */
  async expectAllStopped(): Promise<void> {
    await expect.poll(() => processes().filter(({ pid }) => this.#services.has(pid))).toEqual([]);
    this.#services.clear();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const child of this.#running) child.kill('SIGKILL');
    for (const { pid } of processes()) if (this.#services.delete(pid)) process.kill(pid, 'SIGKILL');
    await Promise.all([...this.#running].map((child) => once(child, 'close')));
    rmSync(this.dataDir, { recursive: true, force: true, maxRetries: 10, retryDelay: 200 });
  }
}

export async function freePorts(): Promise<Record<string, string>> {
  const names = ['BUNDOC_PORT', 'BUNKMS_PORT', 'BUNKMS_INTERNAL_PORT'];
  return Object.fromEntries(await Promise.all(names.map(async (name) => [name, String(await freePort())])));
}
