import type { FastifyInstance } from 'fastify';
import type { Registry } from 'prom-client';
import type { Guard } from '../http/guard.ts';

/** Prometheus metrics. `guard` is undefined where the network is the guard: on the internal listener. */
export function registerMetricsRoute(
  app: FastifyInstance,
  registry: Registry,
  guard: Guard | undefined,
): void {
  app.get('/metrics', guard === undefined ? {} : { onRequest: guard }, async (_request, reply) => {
    reply.header('content-type', registry.contentType);
    return registry.metrics();
  });
}
