import type { IncomingMessage } from 'node:http';
import { AppError } from '../contract/app-error.ts';

/**
 * A host with an optional port (RFC 3986, section 3.2.2): a name, an IPv4 address, or another address in
 * brackets.
 */
const HOST =
  /^(?:\[[0-9A-Fa-f:.]+\]|\[v[0-9A-Fa-f]+\.[\w.~!$&'()*+,;=:-]+\]|(?:[\w.~!$&'()*+;=-]|%[0-9A-Fa-f]{2})+)(?::\d*)?$/;

/** The latest valid host: most requests have the same one. */
let validHost: string | undefined;

/**
 * Why a request must be refused although it could be parsed: its version, framing, host or target (RFC 9110,
 * RFC 9112). Undefined for nearly all requests. A refusal for faulty framing must also end the connection,
 * because the end of the request is unknown.
 */
export function requestFault(request: IncomingMessage): AppError | undefined {
  const { httpVersion, headers } = request;
  if (httpVersion !== '1.1' && httpVersion !== '1.0') return new AppError('http_version_unsupported');
  const coding = headers['transfer-encoding'];
  if (coding !== undefined) {
    if (coding.toLowerCase() !== 'chunked') return new AppError('transfer_coding_unsupported');
    if (httpVersion === '1.0')
      return new AppError('invalid_request', { detail: 'HTTP/1.0 has no Transfer-Encoding' });
  }
  if (headers.host !== validHost || validHost === undefined) {
    const fault = faultOfHost(headers.host, httpVersion);
    if (fault !== undefined) return new AppError('invalid_request', { detail: fault });
  }
  if (request.url?.includes('#') === true)
    return new AppError('invalid_request', { detail: 'the request target must not have a fragment' });
  if (request.url === '*' && request.method !== 'OPTIONS')
    return new AppError('invalid_request', { detail: 'the request target must be a path' });
  if (headers['content-encoding'] !== undefined)
    return new AppError('unsupported_media_type', { detail: 'the body must not have a Content-Encoding' });
  return undefined;
}

function faultOfHost(host: string | undefined, httpVersion: string): string | undefined {
  if (host === undefined) return httpVersion === '1.1' ? 'the Host header is missing' : undefined;
  // Two Host headers arrive as one value with a comma.
  if (!HOST.test(host)) return 'the Host header must be one host with an optional port';
  validHost = host;
  return undefined;
}
