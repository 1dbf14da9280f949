import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { freePort } from '@bundoc/shared/testing/free-port';
import { ProxyProcess } from './proxy-process.ts';

/** HAProxy in front of local servers, with the configuration from a page of the documentation. */
export class Haproxy implements AsyncDisposable {
  readonly #process: ProxyProcess;
  readonly #statisticsUrl: string;
  readonly url: string;

  private constructor(process: ProxyProcess, url: string, statisticsPort: number) {
    this.#process = process;
    this.#statisticsUrl = `http://127.0.0.1:${statisticsPort}/;csv`;
    this.url = url;
  }

  /**
   * @param folder the folder of `bundoc.pem`, if the configuration names it.
   * @param documented the configuration, whose addresses and folder are replaced.
   */
  static async start(folder: string, documented: string, servers: readonly string[]): Promise<Haproxy> {
    const [port, statisticsPort] = [await freePort(), await freePort()];
    const file = join(folder, 'haproxy.cfg');
    const rest = [...servers];
    const configuration = documented
      .replace(/bind :\d+/, `bind 127.0.0.1:${port}`)
      .replaceAll('/etc/haproxy', folder)
      .replace(/(server node-\d) \S+/g, (_, name: string) => `${name} ${rest.shift()}`);
    const statistics = `\nfrontend statistics\n  bind 127.0.0.1:${statisticsPort}\n  stats enable\n  stats uri /\n`;
    writeFileSync(file, `${configuration}${statistics}`);
    // In the foreground.
    const process = await ProxyProcess.start('haproxy', ['-db', '-f', file], port);
    const scheme = /bind \S+ ssl/.test(configuration) ? 'https' : 'http';
    return new Haproxy(process, `${scheme}://127.0.0.1:${port}`, statisticsPort);
  }

  /** The state of each server by its health checks: `UP` or `DOWN`. */
  async states(): Promise<string[]> {
    const [header = '', ...rows] = (await (await fetch(this.#statisticsUrl)).text()).trim().split('\n');
    const columns = header.replace(/^# /, '').split(',');
    const [name, status] = [columns.indexOf('svname'), columns.indexOf('status')];
    const servers = rows.map((row) => row.split(',')).filter((row) => row[name]?.startsWith('node-'));
    return servers.map((row) => String(row[status]));
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#process[Symbol.asyncDispose]();
  }
}
