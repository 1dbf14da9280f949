import type { FastifyInstance } from 'fastify';
import type { Registry } from 'prom-client';
import type { Guard } from '../http/guard.ts';
import { OPEN_WHILE_SEALED } from '../http/sealed-hook.ts';

/**
 * Prometheus metrics. `guard` is undefined where the network is the guard: on the internal listener, which answers while the
 * service is sealed as well, so that `bunkms_sealed` can be seen.
 */
export function registerMetricsRoute(
  app: FastifyInstance,
  registry: Registry,
  guard: Guard | undefined,
): void {
  app.get(
    '/metrics',
    guard === undefined ? OPEN_WHILE_SEALED : { onRequest: guard },
    async (_request, reply) => {
      reply.header('content-type', registry.contentType);
      return registry.metrics();
    },
  );
}
