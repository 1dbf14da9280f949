import { createHash, createHmac } from 'node:crypto';

export interface SignedRequest {
  readonly method: string;
  readonly path: string;
  /** Without the question mark, in the order of the names, encoded. */
  readonly query: string;
  /** Names in lower case. */
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Uint8Array;
}

/** What the header `authorization` says. */
export interface Sigv4Header {
  readonly accessKeyId: string;
  /** Day, region, service and "aws4_request". */
  readonly scope: readonly [string, string, string, string];
  readonly signedHeaders: readonly string[];
  readonly signature: string;
}

const AUTHORIZATION =
  /^AWS4-HMAC-SHA256 Credential=([^/]+)\/(\d{8})\/([^/]+)\/([^/]+)\/(aws4_request), ?SignedHeaders=([\w;-]+), ?Signature=([0-9a-f]{64})$/;

/** @returns undefined for a header that is no signature of version 4. */
export function parseAuthorization(text: string): Sigv4Header | undefined {
  const [, accessKeyId, day, region, service, end, names, signature] = AUTHORIZATION.exec(text) ?? [];
  if (accessKeyId === undefined) return undefined;
  const scope = [day, region, service, end] as Sigv4Header['scope'];
  return { accessKeyId, scope, signedHeaders: String(names).split(';'), signature: String(signature) };
}

export function canonicalRequest(request: SignedRequest, signedHeaders: readonly string[]): string {
  const { method, path, query, headers, body } = request;
  const lines = signedHeaders.map((name) => `${name}:${(headers[name] ?? '').trim().replace(/ +/g, ' ')}\n`);
  return [method, path, query, lines.join(''), signedHeaders.join(';'), sha256(body)].join('\n');
}

/**
 * The signature of a request in hex.
 *
 * Source: "Create a signed AWS API request" in the AWS Identity and Access Management User Guide.
 */
export function signatureOf(
  canonical: string,
  { scope }: Pick<Sigv4Header, 'scope'>,
  time: string,
  secret: string,
): string {
  const toSign = ['AWS4-HMAC-SHA256', time, scope.join('/'), sha256(canonical)].join('\n');
  const key = scope.reduce<Uint8Array>((below, part) => hmac(below, part), Buffer.from(`AWS4${secret}`));
  return hmac(key, toSign).toString('hex');
}

export function sha256(bytes: string | Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

function hmac(key: Uint8Array, text: string): Buffer {
  return createHmac('sha256', key).update(text).digest();
}
