/**
 * For the container's health check: asks both listeners whether they are ready, as the configuration says
 * that they listen, and ends with code 0 or 1. The internal listener is asked with the service's own
 * certificate, which must then serve clients as well.
 */
import { readFileSync } from 'node:fs';
import { request as httpRequest } from 'node:http';
import { request as httpsRequest, type RequestOptions } from 'node:https';
import type { TlsFiles } from '@bundoc/shared/tls/files';
import { readConfig } from './config.ts';

const TIMEOUT_MS = 2_000;
/** A wildcard stands for every address, this machine's own among them. */
const OWN_ADDRESS: Readonly<Record<string, string>> = { '0.0.0.0': '127.0.0.1', '::': '::1' };

/** Whether a listener of this machine answers that it is ready. */
function isReady(host: string, port: number, tls: TlsFiles | undefined): Promise<boolean> {
  const read = (file: TlsFiles['cert']) => (file === undefined ? undefined : readFileSync(file.path));
  const options: RequestOptions = {
    ...{ host: OWN_ADDRESS[host] ?? host, port, path: '/ready', timeout: TIMEOUT_MS },
    // It is this machine's own listener, and nothing secret is sent to it: whose its certificate is does not
    // matter here.
    ...(tls === undefined ? {} : { rejectUnauthorized: false }),
    ...(tls?.ca === undefined ? {} : { cert: read(tls.cert), key: read(tls.key) }),
  };
  return new Promise((resolve) => {
    const sent = (tls === undefined ? httpRequest : httpsRequest)(options, (response) => {
      response.resume();
      resolve(response.statusCode === 200);
    });
    sent.on('timeout', () => sent.destroy());
    sent.on('error', () => resolve(false));
    sent.end();
  });
}

const { host, port, tls, internalHost, internalPort, internalTls } = readConfig(process.env);
const ready = await Promise.all([isReady(host, port, tls), isReady(internalHost, internalPort, internalTls)]);
process.exit(ready.every(Boolean) ? 0 : 1);
