/**
 * The container's health check: asks both configured listeners whether they are ready, and exits with code 0
 * or 1. It connects to the internal listener with the service's own certificate, which must then be valid for
 * clients too.
 */
import { readFileSync } from 'node:fs';
import { request as httpRequest } from 'node:http';
import { request as httpsRequest, type RequestOptions } from 'node:https';
import type { TlsFiles } from '@bundoc/shared/tls/files';
import { readConfig } from './config.ts';

const TIMEOUT_MS = 2_000;
/** A wildcard includes the loopback address. */
const OWN_ADDRESS: Readonly<Record<string, string>> = { '0.0.0.0': '127.0.0.1', '::': '::1' };

/** Whether a listener on this machine answers that it is ready. */
function isReady(host: string, port: number, tls: TlsFiles | undefined): Promise<boolean> {
  const read = (file: TlsFiles['cert']) => (file === undefined ? undefined : readFileSync(file.path));
  const options: RequestOptions = {
    host: OWN_ADDRESS[host] ?? host,
    port,
    path: '/ready',
    timeout: TIMEOUT_MS,
    // This is a local listener, and nothing secret is sent to it, so its certificate need not be verified.
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
