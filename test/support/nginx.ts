import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { freePort } from '@bundoc/shared/testing/free-port';
import { ProxyProcess } from './proxy-process.ts';

/**
 * Debian's main configuration around the files of `/etc/nginx/conf.d`, with its folders in a folder of the
 * test.
 */
const around = (folder: string, documented: string) => `
daemon off;
master_process off;
pid ${folder}/nginx.pid;
events {}
http {
  access_log off;
  ${['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((of) => `${of}_temp_path ${folder}/${of};`).join(' ')}
${documented}
}
`;

/** nginx in front of a local server, with the configuration from a page of the documentation. */
export class Nginx implements AsyncDisposable {
  readonly #process: ProxyProcess;
  readonly url: string;

  private constructor(process: ProxyProcess, url: string) {
    this.#process = process;
    this.url = url;
  }

  /**
   * @param folder the folder of `bundoc.crt` and `bundoc.key`.
   * @param documented the configuration, whose addresses and folder are replaced.
   */
  static async start(folder: string, documented: string, server: string): Promise<Nginx> {
    const port = await freePort();
    const file = join(folder, 'nginx.conf');
    const configuration = documented
      .replace('listen 443', `listen 127.0.0.1:${port}`)
      .replaceAll('/etc/nginx', folder)
      .replace('127.0.0.1:8080', server);
    writeFileSync(file, around(folder, configuration));
    const args = ['-p', folder, '-e', 'stderr', '-c', file];
    return new Nginx(await ProxyProcess.start('nginx', args, port), `https://127.0.0.1:${port}`);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#process[Symbol.asyncDispose]();
  }
}
