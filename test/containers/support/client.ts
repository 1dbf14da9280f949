import type { Stack } from './stack.ts';

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
  readonly elapsedMs: number;
}

/** A client of Bundoc's REST API, reaching it at the published port. */
export interface BundocClient {
  readonly token: string;
  put(project: string, collection: string, id: string, body: string): Promise<Answer>;
  get(project: string, collection: string, id: string): Promise<Answer>;
}

/** @param projects what the client's token is for. */
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
}

/** Asks and measures; waits longer than any answer may take, so that a slow one is seen as such. */
export async function ask(url: string, question: Question = {}): Promise<Answer> {
  const startedAt = performance.now();
  const response = await fetch(url, {
    method: question.method ?? 'GET',
    headers: {
      ...(question.token === undefined ? {} : { authorization: `Bearer ${question.token}` }),
      ...(question.body === undefined ? {} : { 'content-type': 'application/json' }),
    },
    ...(question.body === undefined ? {} : { body: question.body }),
    signal: AbortSignal.timeout(20_000),
  });
  const text = await response.text();
  return {
    status: response.status,
    headers: response.headers,
    text,
    elapsedMs: performance.now() - startedAt,
  };
}
