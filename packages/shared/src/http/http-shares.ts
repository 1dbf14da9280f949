import { createGate, type Gate, gateBytes } from '../admission/gate.ts';
import type { Pool } from '../admission/pool.ts';
import { type Clock, systemClock } from '../runtime/clock.ts';
import { memoryLimit } from '../runtime/memory-limit.ts';
import { CONNECTIONS_MAX, CONNECTIONS_OF_ADDRESS_MAX, Connections } from './connection-limit.ts';
import { CutOffs } from './cut-offs.ts';

/** The resources that all listeners of a process share. */
export interface HttpShares {
  readonly gate: Gate;
  readonly connections: Connections;
  /** Those of transfers, which hold bytes of the gate. */
  readonly cutOffs: CutOffs;
}

/** Settings of {@link HttpShares}. */
export interface HttpShareSizes {
  /** Bytes of the gate; an eighth of the memory by default. */
  readonly bytes: number;
  readonly connectionsMax: number;
  readonly connectionsOfAddressMax: number;
  readonly isProxy: ((address: string) => boolean) | undefined;
}

export function createHttpShares(
  sizes: Partial<HttpShareSizes> = {},
  clock: Clock = systemClock,
): HttpShares {
  const gate = createGate(clock, sizes.bytes ?? gateBytes(memoryLimit()));
  return {
    gate,
    cutOffs: new CutOffs(gate.bytes),
    connections: new Connections({
      clock,
      max: sizes.connectionsMax ?? CONNECTIONS_MAX,
      ofAddressMax: sizes.connectionsOfAddressMax ?? CONNECTIONS_OF_ADDRESS_MAX,
      isProxy: sizes.isProxy,
    }),
  };
}

/** All that the metrics show of them. */
export function poolsOf({ gate: { places, bytes }, connections }: HttpShares): readonly Pool[] {
  return [places, bytes, connections.share, connections.forwarded];
}
