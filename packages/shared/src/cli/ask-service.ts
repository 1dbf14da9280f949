import { once } from 'node:events';
import type { IncomingMessage } from 'node:http';
import { request as httpsRequest } from 'node:https';
import type { TLSSocket } from 'node:tls';
import { parseJson } from '../json/parse-json.ts';
import { request as httpRequest } from '../runtime/node-http.ts';
import { readText } from './read-text.ts';

/** The TLS material of a command's requests; PEM. */
export interface Trust {
  readonly ca?: string | undefined;
  readonly cert?: string | undefined;
  readonly key?: string | undefined;
  /** Whether a certificate in `ca` is trusted itself, without its authority. */
  readonly allowPartialTrustChain?: boolean | undefined;
}

/**
 * What a command trusts of a service.
 *
 * @param certFile the certificate that the service serves by its own variables: on its machine, that file
 *   says as much as its authority.
 * @throws CommandError when the file cannot be read.
 */
export async function trustOf(caFile: string | undefined, certFile?: string): Promise<Trust> {
  if (caFile !== undefined) return { ca: await readText(caFile) };
  return certFile === undefined ? {} : { ca: await readText(certFile), allowPartialTrustChain: true };
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

export const ANSWERS_WITHIN_MS = 5_000;
const BODY_LENGTH_MAX = 65_536;

/**
 * Sends one GET. The certificate is verified whatever the environment says.
 *
 * @throws the error that prevented an answer.
 */
export async function askService(
  url: URL,
  trust: Trust = {},
  sent: Readonly<Record<string, string>> = {},
  withinMs = ANSWERS_WITHIN_MS,
): Promise<ServiceAnswer> {
  const beforeMs = Date.now();
  const ask = url.protocol === 'https:' ? httpsRequest : httpRequest;
  const signal = AbortSignal.timeout(withinMs);
  const request = ask(url, { ...trust, rejectUnauthorized: true, agent: false, headers: sent, signal });
  request.end();
  const [response] = (await once(request, 'response')) as [IncomingMessage];
  const afterMs = Date.now();
  // The response reports later errors as well.
  request.on('error', () => undefined);
  const { valid_to: end } = (response.socket as Partial<TLSSocket>).getPeerCertificate?.() ?? {};
  let text = '';
  for await (const chunk of response.setEncoding('utf8')) {
    text += chunk;
    if (text.length > BODY_LENGTH_MAX) throw new Error('the answer is too long for this service');
  }
  const { statusCode: status = 0, headers } = response;
  const certificateEndsMs = end === undefined ? undefined : Date.parse(end);
  const value = parseJson(text);
  const body = typeof value === 'object' && value !== null ? { ...value } : {};
  return { status, date: headers.date, body, certificateEndsMs, beforeMs, afterMs };
}

/** A path of a service below its URL. */
export function below(url: URL | string, path: string): URL {
  const at = new URL(url);
  at.pathname = at.pathname.replace(/\/+$/, '') + path;
  return at;
}

/** The URL of a listener from its own machine. */
export function ownUrl(listener: {
  readonly host: string;
  readonly port: number;
  readonly tls?: unknown;
}): string {
  const { host, port, tls } = listener;
  const reached = host === '0.0.0.0' || host === '::' ? '127.0.0.1' : host;
  const name = reached.includes(':') ? `[${reached}]` : reached;
  return `${tls === undefined ? 'http' : 'https'}://${name}:${port}`;
}
