import type { ClientBase, QueryArrayResult } from 'pg';
import { defined } from '../contract/defined.ts';

/**
 * Runs statements without parameters on one connection. @param timeoutMs how long to wait for the answer; by
 * default as long as for any statement. @returns the rows of the last statement, as arrays of columns.
 */
export type Run = (text: string, timeoutMs?: number) => Promise<readonly (readonly unknown[])[]>;

/** {@link Run} on a connection; throws the driver's errors. */
export function runOn(client: ClientBase): Run {
  return async (text, timeoutMs) => {
    const timeout = defined({ query_timeout: timeoutMs });
    // The types lack the timeout of a query, and the several results of several statements.
    const config = { text, rowMode: 'array', ...timeout } as { text: string; rowMode: 'array' };
    const results = (await client.query(config)) as QueryArrayResult | QueryArrayResult[];
    return (Array.isArray(results) ? results.at(-1) : results)?.rows ?? [];
  };
}
