import { createGate, type Gate, gateBytes } from '../admission/gate.ts';
import type { Pool } from '../admission/pool.ts';
import { memoryLimit } from '../process/memory-limit.ts';
import { systemClock } from '../runtime/clock.ts';
import { Connections, type ConnectionsOptions } from './connection-limit.ts';
import { CutOffs } from './cut-offs.ts';

/** The resources that all listeners of a process share. */
export interface HttpShares {
  readonly gate: Gate;
  readonly connections: Connections;
  /** Cuts off transfers that hold bytes of the gate. */
  readonly cutOffs: CutOffs;
}

export function createHttpShares(options: ConnectionsOptions = {}): HttpShares {
  const gate = createGate(options.clock ?? systemClock, gateBytes(memoryLimit()));
  return { gate, connections: new Connections(options), cutOffs: new CutOffs(gate.bytes) };
}

/** The pools that the metrics show. */
export function poolsOf({ gate: { places, bytes }, connections }: HttpShares): readonly Pool[] {
  return [places, bytes, connections.share, connections.forwarded];
}
