import type { ClientBase, QueryArrayResult } from 'pg';

/**
 * Runs statements without parameters on one connection. @param timeoutMs how long their answer is awaited; as
 * long as that of any statement when absent. @returns the rows of the last one, each in the order of its
 * columns.
 */
export type Run = (text: string, timeoutMs?: number) => Promise<readonly (readonly unknown[])[]>;

/** {@link Run} of a connection, with the errors of the driver. */
export function runOn(client: ClientBase): Run {
  return async (text, timeoutMs) => {
    const timeout = timeoutMs === undefined ? {} : { query_timeout: timeoutMs };
    // The types do not know the timeout of one query, nor that several statements have several results.
    const config = { text, rowMode: 'array', ...timeout } as { text: string; rowMode: 'array' };
    const results = (await client.query(config)) as QueryArrayResult | QueryArrayResult[];
    return (Array.isArray(results) ? results.at(-1) : results)?.rows ?? [];
  };
}
