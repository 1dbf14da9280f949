import { request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import type { Stack } from './stack.ts';

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
}

/** A client of Bundoc's REST API at the published port. */
export interface BundocClient {
  readonly token: string;
  put(project: string, collection: string, id: string, body: string): Promise<Answer>;
  get(project: string, collection: string, id: string): Promise<Answer>;
}

/** @param projects the projects that the client's token is for. */
export async function bundocClient(stack: Stack, ...projects: string[]): Promise<BundocClient> {
  const token = await stack.token(
    ...['--typ', 'client', '--sub', 'test', '--scope', 'docs:read docs:write'],
    ...projects.flatMap((project) => ['--project', project]),
  );
  const base = await stack.url('bundoc');
  const path = (project: string, collection: string, id: string) =>
    `${base}/v1/projects/${project}/collections/${collection}/documents/${id}`;
  return {
    token,
    put: (project, collection, id, body) =>
      ask(path(project, collection, id), { method: 'PUT', token, body }),
    get: (project, collection, id) => ask(path(project, collection, id), { token }),
  };
}

export interface Question {
  readonly method?: string;
  readonly token?: string;
  /** JSON. */
  readonly body?: string;
  /** The certificate authority to trust, for https. */
  readonly ca?: string;
}

/** Sends a request, and waits for the whole answer. */
export function ask(url: string, question: Question = {}): Promise<Answer> {
  const { method = 'GET', token, body, ca } = question;
  const headers = {
    ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
    ...(body === undefined
      ? {}
      : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) }),
  };
  const signal = AbortSignal.timeout(60_000);
  return new Promise((resolve, reject) => {
    const request = url.startsWith('https:') ? httpsRequest : httpRequest;
    const sent = request(url, { method, headers, signal, agent: false, ...(ca && { ca }) }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (chunk: string) => {
        text += chunk;
      });
      response.on('error', reject);
      response.on('end', () =>
        resolve({
          status: Number(response.statusCode),
          headers: new Headers(
            Object.entries(response.headers).map(([name, value]) => [name, String(value)]),
          ),
          text,
        }),
      );
    });
    sent.on('error', reject);
    sent.end(body);
  });
}
