import { setTimeout as sleep } from 'node:timers/promises';
import { PATIENT_MS } from '@bundoc/shared/testing/timing';
import { isLinearizable, type Timed } from '../../packages/bunkms/test/support/linearizability.ts';

/**
 * An operation on one document. Every value is written only once in the whole history, so a value identifies
 * its write.
 */
export type Operation = Timed &
  (
    | { readonly kind: 'read'; readonly value: number | undefined }
    | { readonly kind: 'write'; readonly value: number }
    /** Replaced `expected` with `value`, or was `refused` because the document had another value. */
    | {
        readonly kind: 'compare and set';
        readonly expected: number;
        readonly value: number;
        readonly refused: boolean;
      }
  );

/**
 * Whether the history of one document is linearizable. Writes without an answer may have taken effect at any
 * time, or not at all.
 */
export function isRegister(history: readonly Operation[]): boolean {
  const seen = new Set<number | undefined>();
  for (const operation of history) {
    if (operation.kind === 'read') seen.add(operation.value);
    if (operation.kind === 'compare and set' && !operation.refused) seen.add(operation.expected);
  }
  // An unanswered write that no read saw can be ignored.
  const certain = history.filter(
    (operation) =>
      operation.kind === 'read' ||
      operation.answeredAt < Number.POSITIVE_INFINITY ||
      seen.has(operation.value),
  );
  return isLinearizable<number | null, Operation>(null, certain, (state, operation) => {
    switch (operation.kind) {
      case 'read':
        return (operation.value ?? null) === state ? [state] : [];
      case 'write':
        return [operation.value];
      case 'compare and set':
        if (operation.refused) return state === operation.expected ? [] : [state];
        return state === operation.expected ? [operation.value] : [];
    }
  });
}

export interface Reply {
  readonly status: number;
  readonly text: string;
  readonly rev: string | undefined;
}

export interface Figures {
  answered: number;
  /** Requests without an answer: their node was killed. */
  cutOff: number;
  /** 503 with Retry-After. */
  unavailable: number;
}

/** A plain round-robin client of several nodes. It tries the next node when one refuses the connection. */
export class RoundRobin {
  readonly #nodes: readonly { readonly url: string | undefined }[];
  readonly #token: string;
  readonly figures: Figures = { answered: 0, cutOff: 0, unavailable: 0 };
  readonly unexpected: string[] = [];
  #next = 0;

  constructor(nodes: readonly { readonly url: string | undefined }[], token: string) {
    this.#nodes = nodes;
    this.#token = token;
  }

  /** @returns undefined when the outcome of the request is unknown. */
  async send(
    method: string,
    path: string,
    body?: string,
    headers: Record<string, string> = {},
  ): Promise<Reply | undefined> {
    for (;;) {
      const { url } = this.#nodes[this.#next++ % this.#nodes.length] as { url: string | undefined };
      if (url === undefined) continue;
      try {
        const response = await fetch(url + path, {
          method,
          headers: { authorization: `Bearer ${this.#token}`, 'content-type': 'application/json', ...headers },
          signal: AbortSignal.timeout(PATIENT_MS),
          ...(body === undefined ? {} : { body }),
        });
        const text = await response.text();
        this.figures.answered++;
        if (response.status === 503 && response.headers.has('retry-after')) {
          this.figures.unavailable++;
          await sleep(20);
          return undefined;
        }
        if (response.status >= 500) this.unexpected.push(`${method} ${path}: ${response.status} ${text}`);
        return { status: response.status, text, rev: response.headers.get('etag')?.slice(1, -1) };
      } catch (error) {
        const { name, cause } = error as Error;
        // The node is down, and nothing was sent.
        if ((cause as { code?: string } | undefined)?.code === 'ECONNREFUSED') {
          await sleep(2);
          continue;
        }
        if (name === 'TimeoutError') this.unexpected.push(`${method} ${path}: no answer in time`);
        this.figures.cutOff++;
        return undefined;
      }
    }
  }
}
