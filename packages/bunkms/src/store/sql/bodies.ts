import type { KmsStore, OperationName } from '../port.ts';
import type { ChainWriter } from './chain-writer.ts';
import type { Sql } from './statement.ts';

type Result<Name extends OperationName> = Awaited<ReturnType<KmsStore[Name]>>;

/** Read operations of the port as work on the database. */
export type ReadBodies<Name extends OperationName> = {
  readonly [N in Name]: (...args: Parameters<KmsStore[N]>) => Sql<Result<N>>;
};

/** Write operations of the port, each as part of a transaction in which nobody else writes. */
export type WriteBodies<Name extends OperationName> = {
  readonly [N in Name]: (chain: ChainWriter, ...args: Parameters<KmsStore[N]>) => Sql<Result<N>>;
};

type Body = (...args: never[]) => Sql<unknown>;

/**
 * Converts bodies to operations, all run by `how`. Each takes the arguments of its body, without the chain,
 * and returns its result.
 */
export function bindBodies<Name extends string>(
  bodies: Readonly<Record<Name, Body>>,
  how: (body: (...args: unknown[]) => Sql<unknown>, args: unknown[]) => unknown,
): Record<Name, (...args: unknown[]) => unknown> {
  const bound = Object.entries<Body>(bodies).map(([name, body]) => [
    name,
    (...args: unknown[]) => how(body as (...args: unknown[]) => Sql<unknown>, args),
  ]);
  return Object.fromEntries(bound) as Record<Name, (...args: unknown[]) => unknown>;
}
