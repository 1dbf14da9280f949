import type { FastifyInstance } from 'fastify';
import { createGate, type Gate, gateBytes } from '../admission/gate.ts';
import type { ServiceMetrics } from '../metrics/metrics.ts';
import { type Clock, systemClock } from '../runtime/clock.ts';
import { memoryLimit } from '../runtime/memory-limit.ts';
import { Connections } from './connection-limit.ts';
import { cutOffsOf } from './cut-offs.ts';

/** The resources that all listeners of a process share. */
export interface HttpShares {
  readonly gate: Gate;
  readonly connections: Connections;
}

/** Settings of {@link HttpShares}. */
export interface HttpShareSizes {
  /** Bytes of the gate; an eighth of the memory by default. */
  readonly bytes?: number;
  readonly connectionsMax?: number;
  readonly connectionsOfAddressMax?: number;
  readonly isProxy?: ((address: string) => boolean) | undefined;
}

export function createHttpShares(sizes: HttpShareSizes = {}, clock: Clock = systemClock): HttpShares {
  const gate = createGate(clock, sizes.bytes ?? gateBytes(memoryLimit()));
  return {
    gate,
    connections: new Connections({
      clock,
      max: sizes.connectionsMax,
      ofAddressMax: sizes.connectionsOfAddressMax,
      isProxy: sizes.isProxy,
    }),
  };
}

/** Shows the shares of a server. */
export function watchHttpShares(
  metrics: Pick<ServiceMetrics, 'watchShares' | 'watchCuts'>,
  app: FastifyInstance,
  { gate: { places, bytes }, connections }: HttpShares,
): void {
  metrics.watchShares([places, bytes, connections.share, connections.forwarded]);
  metrics.watchCuts(bytes, () => cutOffsOf(app).cuts);
}
