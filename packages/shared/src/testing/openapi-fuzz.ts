import { request } from 'node:http';
import fc from 'fast-check';
import type { OpenapiReader, Operation, SeenAnswer } from './openapi.ts';
import { examplesOf, type FuzzRequest, requestOf } from './openapi-requests.ts';
import { PATIENT_MS } from './timing.ts';

export interface FuzzOptions {
  readonly reader: OpenapiReader;
  readonly origin: string;
  readonly tokens: Readonly<Record<FuzzRequest['token'], string | undefined>>;
  /** Maximum requests of each operation. */
  readonly runs: number;
  /** Maximum time in total, milliseconds; each operation gets an equal part. */
  readonly msMax: number;
  /** The seed in a failure message, to repeat the same requests. */
  readonly seed: number;
  /** Operations that may never answer, or whose answer may never end. */
  readonly endless: readonly string[];
  /** Adapts a request to the present state before it is sent. */
  readonly prepare: (request: FuzzRequest, operation: Operation) => Promise<FuzzRequest> | FuzzRequest;
  readonly onAnswer?: (operation: Operation, answer: SeenAnswer) => void;
}

/** How long to wait for an answer that may never come, milliseconds. */
const ENDLESS_MS = 200;

/**
 * Sends requests of every operation, from valid to nonsense, and checks each answer: no 5xx, and no
 * undocumented status, header, code or body. Every operation with an example that is served is served at
 * least once, and every one that needs a token refuses requests without one.
 *
 * @returns how often each status occurred.
 * @throws Error with the operation, the seed and the shrunk request of the first wrong answer.
 */
export async function fuzz(options: FuzzOptions): Promise<ReadonlyMap<number, number>> {
  const statuses = new Map<number, number>();
  for (const [at, operation] of options.reader.operations.entries()) {
    try {
      const seen = await fuzzOperation(options, operation, at);
      for (const [status, count] of seen) statuses.set(status, (statuses.get(status) ?? 0) + count);
      if (!options.endless.includes(operation.operationId))
        requireServedAndGuarded(operation, [...seen.keys()]);
    } catch (cause) {
      const { message } = cause as Error;
      throw new Error(`${operation.operationId}, FUZZ_SEED=${options.seed}: ${message}`, { cause });
    }
  }
  return statuses;
}

/** @returns how often each status occurred. */
async function fuzzOperation(
  options: FuzzOptions,
  operation: Operation,
  at: number,
): Promise<ReadonlyMap<number, number>> {
  const statuses = new Map<number, number>();
  const endsAtMs = performance.now() + options.msMax / options.reader.operations.length;
  const examples = examplesOf(options.reader, operation);
  let runs = 0;
  const property = fc.asyncProperty(requestOf(options.reader, operation), async (generated) => {
    // Not by fast-check's own limit: it abandons a running request, and fails if not even the first one was
    // answered.
    if (runs++ >= examples.length && performance.now() > endsAtMs) return;
    const prepared = await options.prepare(generated, operation);
    const answer = await send(options, operation, prepared);
    if (answer === undefined) return;
    statuses.set(answer.status, (statuses.get(answer.status) ?? 0) + 1);
    const fault =
      answer.status >= 500 && !isStateGone(answer.text)
        ? `${answer.status}: ${answer.text}`
        : options.reader.faultOf(operation, answer);
    if (fault !== undefined) throw new Error(fault);
    options.onAnswer?.(operation, answer);
  });
  await fc.assert(property, {
    // Similar operations get different requests.
    seed: options.seed + at,
    // The documented examples are always sent, besides the random requests.
    examples: examples.map((example) => [example]),
    numRuns: Math.max(options.runs, examples.length),
    includeErrorInReport: true,
  });
  return statuses;
}

/**
 * @throws Error when an operation was never served, although it has such an example, or needs a token and
 *   refused no request for its lack.
 */
function requireServedAndGuarded(operation: Operation, statuses: readonly number[]): void {
  const isServed = (status: number) => status < 400;
  if (Object.values(operation['x-example-status']).some(isServed) && !statuses.some(isServed))
    throw new Error(`never served: ${statuses.join(', ')}`);
  if (operation.security.length > 0 && !statuses.includes(401)) throw new Error('served without a token');
}

/** @returns undefined when no answer came, or none that ends, and the operation allows that. */
function send(
  { origin, tokens, endless }: FuzzOptions,
  { operationId }: Operation,
  { method, path, headers, body, token }: FuzzRequest,
): Promise<SeenAnswer | undefined> {
  const { hostname, port } = new URL(origin);
  const mayWait = endless.includes(operationId);
  const bearer = tokens[token];
  return new Promise((resolve, reject) => {
    const sent = request(
      {
        hostname,
        port,
        path,
        method,
        agent: false,
        headers: {
          ...headers,
          ...(bearer === undefined ? {} : { authorization: `Bearer ${bearer}` }),
          ...(body === undefined ? {} : { 'content-length': String(body.length) }),
        },
        signal: AbortSignal.timeout(mayWait ? ENDLESS_MS : PATIENT_MS),
      },
      (response) => {
        const status = Number(response.statusCode);
        const { headers: seen } = response;
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('error', (error) => (mayWait ? resolve(undefined) : reject(error)));
        response.on('end', () =>
          resolve({ status, headers: seen, text: Buffer.concat(chunks).toString('utf8') }),
        );
        if (status === 200 && seen['content-type']?.startsWith('text/event-stream')) {
          resolve({ status, headers: seen, text: '' });
          response.destroy();
        }
      },
    );
    sent.on('error', (error) =>
      mayWait && error.name === 'AbortError' ? resolve(undefined) : reject(error),
    );
    sent.end(body);
  });
}

/** Documented: a request may ask for a state that is no longer kept. */
const isStateGone = (text: string): boolean => text.includes('"code":"snapshot_too_old"');
