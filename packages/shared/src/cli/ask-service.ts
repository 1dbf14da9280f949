import { request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { isIP } from 'node:net';
import type { TLSSocket } from 'node:tls';
import type { Checkup } from './checkup.ts';

/** The TLS material of `doctor`'s requests; PEM. */
export interface Trust {
  readonly ca?: string | undefined;
  readonly cert?: string | undefined;
  readonly key?: string | undefined;
}

export interface ServiceAnswer {
  readonly status: number;
  readonly date: string | undefined;
  /** The body, if it is a JSON object. */
  readonly body: Readonly<Record<string, unknown>>;
  /** When the certificate of the service expires, milliseconds since 1970; undefined without TLS. */
  readonly certificateEndsMs: number | undefined;
  readonly beforeMs: number;
  readonly afterMs: number;
}

const ANSWERS_WITHIN_MS = 5_000;
const BODY_BYTES_MAX = 65_536;

/**
 * Sends one GET. The certificate is verified whatever the environment says.
 *
 * @throws the error that prevented an answer.
 */
export function askService(
  url: URL,
  trust: Trust = {},
  headers: Readonly<Record<string, string>> = {},
  withinMs = ANSWERS_WITHIN_MS,
): Promise<ServiceAnswer> {
  const { promise, resolve, reject } = Promise.withResolvers<ServiceAnswer>();
  const beforeMs = Date.now();
  const ask = url.protocol === 'https:' ? httpsRequest : httpRequest;
  const request = ask(url, {
    ...trust,
    rejectUnauthorized: true,
    agent: false,
    headers,
    signal: AbortSignal.timeout(withinMs),
  });
  request.on('error', reject);
  request.on('response', (response) => {
    const afterMs = Date.now();
    const chunks: Buffer[] = [];
    let bytes = 0;
    response.on('error', reject);
    response.on('data', (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes > BODY_BYTES_MAX) response.destroy(new Error('the answer is too long for this service'));
      else chunks.push(chunk);
    });
    response.on('end', () => {
      resolve({
        status: response.statusCode ?? 0,
        date: response.headers.date,
        body: objectOf(Buffer.concat(chunks).toString('utf8')),
        certificateEndsMs: endOfCertificate(response.socket as Partial<TLSSocket>),
        beforeMs,
        afterMs,
      });
    });
  });
  request.end();
  return promise;
}

/** How long before its expiry a certificate becomes a warning. */
const CERTIFICATE_WARN_MS = 14 * 86_400_000;

/**
 * Checks whether a service answers at its URL, and its certificate.
 *
 * @param where the option or variable that names the URL.
 * @returns the answer of `/health`; undefined when there is none.
 */
export async function checkService(
  checkup: Checkup,
  service: { readonly name: string; readonly url: string; readonly where: string; readonly trust?: Trust },
): Promise<ServiceAnswer | undefined> {
  const { name, url: text, where, trust } = service;
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || !/^https?:$/.test(url.protocol)) {
    checkup.fail(
      'url',
      `"${text}" is not an http or https URL`,
      `give one such as http://127.0.0.1:8080 (${where})`,
    );
    return undefined;
  }
  try {
    const answer = await askService(below(url, '/health'), trust);
    if (answer.status !== 200 || answer.body['status'] !== 'ok') {
      checkup.fail(
        'url',
        `${url.origin} answers, but is not ${name} (status ${answer.status})`,
        `check ${where}`,
      );
      return undefined;
    }
    checkup.ok('url', `${name} answers at ${url.origin}`);
    checkTransport(checkup, name, url, answer.certificateEndsMs);
    return answer;
  } catch (error) {
    const [check, found, remedy] = faultOf(error as NodeJS.ErrnoException, url, name, where);
    checkup.fail(check, found, remedy);
    return undefined;
  }
}

/** A path of a service below its URL. */
export function below(url: URL | string, path: string): URL {
  const at = new URL(url);
  at.pathname = at.pathname.replace(/\/+$/, '') + path;
  return at;
}

function checkTransport(checkup: Checkup, name: string, url: URL, endsMs: number | undefined): void {
  if (endsMs === undefined) {
    if (isThisMachine(url.hostname)) checkup.ok('tls', 'not needed on this machine');
    else
      checkup.warn('tls', `tokens go to ${url.origin} unencrypted`, `serve ${name} over TLS, and use https`);
    return;
  }
  const day = new Date(endsMs).toISOString().slice(0, 10);
  if (endsMs - Date.now() < CERTIFICATE_WARN_MS)
    checkup.warn(
      'tls',
      `the certificate of ${url.host} expires on ${day}`,
      'renew it; the service reads new files automatically',
    );
  else checkup.ok('tls', `the certificate of ${url.host} is valid until ${day}`);
}

function isThisMachine(host: string): boolean {
  const bare = host.replace(/^\[|\]$/g, '');
  return bare === 'localhost' || bare === '::1' || (isIP(bare) === 4 && bare.startsWith('127.'));
}

function faultOf(
  { code = '', message }: NodeJS.ErrnoException,
  url: URL,
  name: string,
  where: string,
): [check: string, found: string, remedy: string] {
  switch (code) {
    case 'ECONNREFUSED':
      return ['url', `nothing listens at ${url.host}`, `start ${name}, or name its address (${where})`];
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return [
        'url',
        `the host name ${url.hostname} does not resolve`,
        `correct the host (${where}), or the DNS of this machine`,
      ];
    case 'ABORT_ERR':
    case 'ETIMEDOUT':
      return ['url', `${url.host} does not answer within 5 s`, 'look for a firewall or a proxy in between'];
    case 'ECONNRESET':
    case 'HPE_INVALID_CONSTANT':
      return url.protocol === 'http:'
        ? ['url', `${url.host} does not speak plain HTTP`, `try https://${url.host} (${where})`]
        : [
            'tls',
            `${url.host} closes the connection`,
            'give the client certificate that the service requires',
          ];
    case 'EPROTO':
    case 'ERR_SSL_WRONG_VERSION_NUMBER':
    case 'ERR_SSL_PACKET_LENGTH_TOO_LONG':
      return [
        'tls',
        `${url.host} does not speak TLS`,
        `use http://${url.host} (${where}), or give the service a certificate`,
      ];
    case 'CERT_HAS_EXPIRED':
      return [
        'tls',
        `the certificate of ${url.host} has expired`,
        'renew it; the service reads new files automatically',
      ];
    case 'ERR_TLS_CERT_ALTNAME_INVALID':
      return [
        'tls',
        `the certificate is not for ${url.hostname}`,
        'use a name that the certificate has, or issue one for this name',
      ];
    case 'DEPTH_ZERO_SELF_SIGNED_CERT':
    case 'SELF_SIGNED_CERT_IN_CHAIN':
    case 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY':
    case 'UNABLE_TO_VERIFY_LEAF_SIGNATURE':
      return [
        'tls',
        `the authority of the certificate of ${url.host} is unknown`,
        'name its file with --ca-file',
      ];
    default:
      return ['url', `${name} does not answer at ${url.origin}: ${message}`, `check ${where}`];
  }
}

function endOfCertificate(socket: Partial<TLSSocket>): number | undefined {
  const { valid_to: end } = socket.getPeerCertificate?.() ?? {};
  return end === undefined ? undefined : Date.parse(end);
}

function objectOf(text: string): Readonly<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? { ...value } : {};
  } catch {
    return {};
  }
}
