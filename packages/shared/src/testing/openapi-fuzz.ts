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
 * undocumented status, code or body.
 *
 * @returns how often each status occurred.
 * @throws Error with the operation, the seed and the shrunk request of the first wrong answer.
 */
export async function fuzz(options: FuzzOptions): Promise<ReadonlyMap<number, number>> {
  const statuses = new Map<number, number>();
  for (const [at, operation] of options.reader.operations.entries()) {
    const endsAtMs = performance.now() + options.msMax / options.reader.operations.length;
    let runs = 0;
    const property = fc.asyncProperty(requestOf(options.reader, operation), async (generated) => {
      // Not by fast-check's own limit: it abandons a running request, and fails if not even the first one was
      // answered.
      if (runs++ > 0 && performance.now() > endsAtMs) return;
      const prepared = await options.prepare(generated, operation);
      const answer = await send(options, operation, prepared);
      if (answer === undefined) return;
      statuses.set(answer.status, (statuses.get(answer.status) ?? 0) + 1);
      const fault =
        answer.status >= 500 ? `${answer.status}: ${answer.text}` : options.reader.faultOf(operation, answer);
      if (fault !== undefined) throw new Error(fault);
      options.onAnswer?.(operation, answer);
    });
    try {
      // Similar operations get different requests.
      await fc.assert(property, {
        seed: options.seed + at,
        // The documented examples are always sent, besides the random requests.
        examples: examplesOf(options.reader, operation).map((example) => [example]),
        numRuns: options.runs,
        includeErrorInReport: true,
      });
    } catch (cause) {
      const { message } = cause as Error;
      throw new Error(`${operation.operationId}, FUZZ_SEED=${options.seed}: ${message}`, { cause });
    }
  }
  return statuses;
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
        const contentType = response.headers['content-type'];
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('error', (error) => (mayWait ? resolve(undefined) : reject(error)));
        response.on('end', () =>
          resolve({ status, contentType, text: Buffer.concat(chunks).toString('utf8') }),
        );
        if (status === 200 && contentType?.startsWith('text/event-stream')) {
          resolve({ status, contentType, text: '' });
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
