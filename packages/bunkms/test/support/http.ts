import { request } from 'node:http';

export interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly text: string;
  /** The body as JSON. Throws when it is not JSON. */
  // biome-ignore lint/suspicious/noExplicitAny: tests inspect any JSON.
  json(): any;
}

export interface Call {
  readonly method?: string;
  readonly token?: string | undefined;
  readonly body?: string | Buffer | object;
  readonly headers?: Readonly<Record<string, string>>;
  /** Disconnects after a success status; then the text is empty. */
  readonly statusOnly?: boolean | undefined;
}

/**
 * Sends one request over a separate connection. Not with `fetch`, which rewrites paths: the paths of tests
 * must arrive unchanged.
 */
export function call(origin: string, path: string, options: Call = {}): Promise<Answer> {
  const { hostname, port } = new URL(origin);
  const body =
    options.body === undefined || typeof options.body === 'string' || Buffer.isBuffer(options.body)
      ? options.body
      : JSON.stringify(options.body);
  const headers = {
    ...(options.token === undefined ? {} : { authorization: `Bearer ${options.token}` }),
    ...(body === undefined
      ? {}
      : { 'content-type': 'application/json', 'content-length': String(Buffer.byteLength(body)) }),
    ...options.headers,
  };
  const method = options.method ?? (body === undefined ? 'GET' : 'POST');
  return new Promise((resolve, reject) => {
    const sent = request({ hostname, port, path, method, headers, agent: false }, (response) => {
      const status = Number(response.statusCode);
      if (options.statusOnly === true && status === 200) {
        response.destroy();
        resolve({ status, headers: response.headers, text: '', json: () => undefined });
        return;
      }
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('error', reject);
      response.on('end', () => {
        const text = Buffer.concat(chunks).toString('utf8');
        resolve({
          status,
          headers: response.headers,
          text,
          json: () => JSON.parse(text),
        });
      });
    });
    sent.on('error', reject);
    sent.end(body);
  });
}
