import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { freePort } from '@bundoc/shared/testing/free-port';
import { PATIENT_MS } from '@bundoc/shared/testing/timing';
import { describe } from 'vitest';

/** Where Debian's package puts it. */
const PROGRAM = '/usr/sbin/haproxy';

const isInstalled = existsSync(PROGRAM);
if (!isInstalled && process.env['REQUIRE_HAPROXY'] === '1')
  throw new Error('REQUIRE_HAPROXY=1, and haproxy is not installed');

/**
 * Skips, and says so in its name, where HAProxy is not installed; `REQUIRE_HAPROXY=1` makes that a failure.
 */
export function describeWithHaproxy(name: string, tests: () => void): void {
  if (isInstalled) describe(name, tests);
  else describe.skip(`${name} [skipped: haproxy is not installed]`, tests);
}

/**
 * HAProxy in front of servers on this machine, by the configuration that `docs/operations/scaling.md` gives.
 */
export class Haproxy implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #statisticsUrl: string;
  readonly url: string;

  private constructor(child: ChildProcess, port: number, statisticsPort: number) {
    this.#child = child;
    this.#statisticsUrl = `http://127.0.0.1:${statisticsPort}/;csv`;
    this.url = `http://127.0.0.1:${port}`;
  }

  /** @param documented the configuration, whose addresses are replaced. */
  static async start(folder: string, documented: string, servers: readonly string[]): Promise<Haproxy> {
    const [port, statisticsPort] = [await freePort(), await freePort()];
    const file = join(folder, 'haproxy.cfg');
    const rest = [...servers];
    const configuration = documented
      .replace('bind :8080', `bind 127.0.0.1:${port}`)
      .replace(/(server node-\d) \S+/g, (_, name: string) => `${name} ${rest.shift()}`);
    const statistics = `\nfrontend statistics\n  bind 127.0.0.1:${statisticsPort}\n  stats enable\n  stats uri /\n`;
    writeFileSync(file, `${configuration}${statistics}`);
    // In the foreground, without a daemon: it ends with the test.
    const child = spawn(PROGRAM, ['-db', '-f', file], { stdio: ['ignore', 'ignore', 'pipe'] });
    let output = '';
    child.stderr.on('data', (chunk) => {
      output += String(chunk);
    });
    const started = new Haproxy(child, port, statisticsPort);
    const deadline = Date.now() + PATIENT_MS;
    while (!(await accepts(port))) {
      if (child.exitCode !== null || Date.now() > deadline) {
        await started[Symbol.asyncDispose]();
        throw new Error(`HAProxy does not listen: ${output}`);
      }
      await sleep(20);
    }
    return started;
  }

  /** What it makes of each server by its checks: `UP`, `DOWN`. */
  async states(): Promise<string[]> {
    const [header = '', ...rows] = (await (await fetch(this.#statisticsUrl)).text()).trim().split('\n');
    const columns = header.replace(/^# /, '').split(',');
    const [name, status] = [columns.indexOf('svname'), columns.indexOf('status')];
    const servers = rows.map((row) => row.split(',')).filter((row) => row[name]?.startsWith('node-'));
    return servers.map((row) => String(row[status]));
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
