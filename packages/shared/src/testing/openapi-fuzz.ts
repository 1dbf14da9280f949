import { request } from 'node:http';
import fc from 'fast-check';
import type { OpenapiReader, Operation, SeenAnswer } from './openapi.ts';
import { examplesOf, type FuzzRequest, requestOf } from './openapi-requests.ts';
import { PATIENT_MS } from './timing.ts';

export interface FuzzOptions {
  readonly reader: OpenapiReader;
  readonly origin: string;
  readonly tokens: Readonly<Record<FuzzRequest['token'], string | undefined>>;
  /** Requests of each operation, at most. */
  readonly runs: number;
  /** Longest time for all of it, milliseconds; each operation has its share. */
  readonly msMax: number;
  /** The one that a failure tells, to have the same requests again. */
  readonly seed: number;
  /** Operations whose answer may not end, or not come, by itself. */
  readonly endless: readonly string[];
  /** Makes of a request what fits the present state, before it is sent. */
  readonly prepare: (request: FuzzRequest, operation: Operation) => Promise<FuzzRequest> | FuzzRequest;
  readonly onAnswer?: (operation: Operation, answer: SeenAnswer) => void;
}

/** How long an answer is waited for that may not come by itself, milliseconds. */
const ENDLESS_MS = 200;

/**
 * Sends requests of every operation, from sound to nonsense, and holds each answer against the document: no
 * 5xx, no status, code or body that it does not tell of.
 *
 * @returns how often each status came.
 * @throws Error with the operation, the seed and the shrunk request of the first answer at fault.
 */
export async function fuzz(options: FuzzOptions): Promise<ReadonlyMap<number, number>> {
  const statuses = new Map<number, number>();
  for (const [at, operation] of options.reader.operations.entries()) {
    const endsAtMs = performance.now() + options.msMax / options.reader.operations.length;
    let runs = 0;
    const property = fc.asyncProperty(requestOf(options.reader, operation), async (generated) => {
      // Not by fast-check's own limit: that leaves a request under way, and fails when not even the first was
      // answered by then.
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
      // Operations that are alike get different requests.
      await fc.assert(property, {
        seed: options.seed + at,
        // Whatever chance makes of the others, what is asked for is sent.
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

/** @returns undefined when nothing came, or nothing that ends, where that may be. */
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
        ...{ hostname, port, path, method, agent: false },
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
