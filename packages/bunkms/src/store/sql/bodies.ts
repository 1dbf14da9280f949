import type { KmsStore, OperationName } from '../port.ts';
import type { ChainWriter } from './chain-writer.ts';
import type { Sql } from './statement.ts';

type Result<Name extends OperationName> = Awaited<ReturnType<KmsStore[Name]>>;

/** Operations of the port that look and change nothing, as work on the database. */
export type ReadBodies<Name extends OperationName> = {
  readonly [N in Name]: (...args: Parameters<KmsStore[N]>) => Sql<Result<N>>;
};

/** Operations of the port that write, each as a part of one transaction in which nobody else writes. */
export type WriteBodies<Name extends OperationName> = {
  readonly [N in Name]: (chain: ChainWriter, ...args: Parameters<KmsStore[N]>) => Sql<Result<N>>;
};

type Body = (...args: never[]) => Sql<unknown>;

/**
 * Makes operations of bodies, all run by `how`. Each takes the arguments of its body, or those behind the
 * chain, and gives its result.
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
