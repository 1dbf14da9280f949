import { randomBytes, timingSafeEqual } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { canonicalRequest, parseAuthorization, sha256, signatureOf } from '../src/testing/sigv4.ts';

export interface KnownCredential {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  /** Empty for an access key of a user. */
  readonly sessionToken: string;
  isExpired: boolean;
}

export interface S3Request {
  readonly method: string;
  /** With the query. */
  readonly url: string;
  readonly headers: IncomingMessage['headers'];
  readonly body: Buffer;
}

export interface S3Reply {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Uint8Array | string;
}

/** @returns undefined when it answers by the response itself. */
export type Answering = (
  request: S3Request,
  response: ServerResponse,
) => S3Reply | undefined | Promise<S3Reply | undefined>;

const SKEW_MS = 15 * 60_000;
export const REGION = 'eu-central-1';

/** A server that verifies each request as S3 does, with a second implementation of signatures. */
export class S3Server implements AsyncDisposable {
  readonly credentials = new Map<string, KnownCredential>();
  /** Requests with a valid signature, in order. */
  readonly requests: S3Request[] = [];
  /** Answers them. */
  answer: Answering;
  readonly #server: Server;
  readonly #scheme: string;

  private constructor(server: Server, scheme: string, answer: Answering) {
    this.#server = server;
    this.#scheme = scheme;
    this.answer = answer;
  }

  /** @param pair with it, the server speaks TLS. */
  static async start(answer: Answering, pair?: { cert: string; key: string }): Promise<S3Server> {
    const server = pair === undefined ? createServer() : createTlsServer(pair);
    const s3 = new S3Server(server, pair === undefined ? 'http' : 'https', answer);
    server.on('request', (request, response) => void s3.#take(request, response));
    await once(server.listen(0, '127.0.0.1'), 'listening');
    return s3;
  }

  get url(): string {
    return `${this.#scheme}://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  newCredential({ isTemporary = true } = {}): KnownCredential {
    const credential = {
      accessKeyId: `ASIA${randomBytes(8).toString('hex').toUpperCase()}`,
      secretAccessKey: randomBytes(30).toString('base64'),
      sessionToken: isTemporary ? randomBytes(96).toString('base64') : '',
      isExpired: false,
    };
    this.credentials.set(credential.accessKeyId, credential);
    return credential;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, 'close');
  }

  async #take(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { method = '', url = '', headers } = request;
    const sent = { method, url, headers, body: Buffer.concat(await request.toArray()) };
    const refusal = this.#refuse(sent);
    if (refusal === undefined) this.requests.push(sent);
    const reply = refusal ?? (await this.answer(sent, response));
    if (reply !== undefined) send(response, reply);
  }

  /** @returns undefined for a request that S3 would accept. */
  #refuse({ method, url, headers, body }: S3Request): S3Reply | undefined {
    const header = parseAuthorization(headers.authorization ?? '');
    if (header === undefined) return error(403, 'AccessDenied');
    const known = this.credentials.get(header.accessKeyId);
    if (known === undefined) return error(403, 'InvalidAccessKeyId', header.accessKeyId);
    const names = Object.keys(headers).filter((name) =>
      /^(?:host|content-md5|if-none-match|x-amz-.*)$/.test(name),
    );
    const isWhole = ['x-amz-content-sha256', 'x-amz-date', ...names].every((name) =>
      header.signedHeaders.includes(name),
    );
    const [day, region, service] = header.scope;
    const time = String(headers['x-amz-date']);
    const isScope = region === REGION && service === 's3' && time.startsWith(day);
    if (!isScope) return error(400, 'AuthorizationHeaderMalformed', '', REGION);
    const [path = '', query = ''] = url.split('?');
    const sorted = query.split('&').sort().join('&');
    const signed = { method, path, query: sorted, headers: headers as Record<string, string>, body };
    const canonical = canonicalRequest(signed, header.signedHeaders);
    const expected = signatureOf(canonical, header, time, known.secretAccessKey);
    const isSame = timingSafeEqual(Buffer.from(expected), Buffer.from(header.signature));
    if (!isWhole || !isSame) return error(403, 'SignatureDoesNotMatch', canonical);
    if (headers['x-amz-content-sha256'] !== sha256(body)) return error(400, 'XAmzContentSHA256Mismatch');
    if ((headers['x-amz-security-token'] ?? '') !== known.sessionToken) return error(400, 'InvalidToken');
    const sentMs = Date.parse(time.replace(/^(....)(..)(..T..)(..)(..Z)$/, '$1-$2-$3:$4:$5'));
    if (!(Math.abs(Date.now() - sentMs) < SKEW_MS)) return error(403, 'RequestTimeTooSkewed', time);
    if (known.isExpired) return error(400, 'ExpiredToken', known.sessionToken);
    return undefined;
  }
}

/** An error document of S3, which repeats what a careless service repeats. */
export function error(status: number, code: string, repeated = '', region?: string): S3Reply {
  const escaped = repeated.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
  const place = region === undefined ? '' : `<Region>${region}</Region>`;
  const body = `<?xml version="1.0"?>\n<Error><Code>${code}</Code><Message>No: ${escaped}</Message>${place}</Error>`;
  return { status, headers: { 'content-type': 'application/xml' }, body };
}

function send(response: ServerResponse, { status, headers, body = '' }: S3Reply): void {
  const length = { 'content-length': String(Buffer.byteLength(body)) };
  response.writeHead(status, { ...length, ...headers }).end(body);
}

/** As moto, at this URL. */
export function answeringAs(moto: string): Answering {
  return (request) => forward(moto, request);
}

async function forward(moto: string, { method, url, headers, body }: S3Request): Promise<S3Reply> {
  const sent = Object.entries(headers).filter(([name]) => !/^(?:host|connection|content-length)$/.test(name));
  const answer = await fetch(moto + url, {
    method,
    headers: Object.fromEntries(sent) as Record<string, string>,
    ...(method === 'PUT' && { body }),
  });
  const bytes = new Uint8Array(await answer.arrayBuffer());
  const kept = [...answer.headers].filter(
    ([name]) => !/^(?:connection|content-length|transfer-encoding)$/.test(name),
  );
  return { status: answer.status, headers: Object.fromEntries(kept), body: bytes };
}
