import { describe, PUBLIC } from '@bundoc/shared/openapi/description';
import { METRICS_ANSWER } from '@bundoc/shared/openapi/metrics-answer';
import type { Registry } from '@prometheus-io/client';
import type { FastifyInstance } from 'fastify';
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
  const description = describe({
    id: 'metrics',
    tag: 'service',
    summary: 'Metrics for Prometheus',
    access: guard === undefined ? PUBLIC : { kind: 'token', scopes: ['kms:metrics'], serviceOnly: true },
    answers: { 200: METRICS_ANSWER },
    examples: { scrape: { status: 200 } },
  });
  app.get(
    '/metrics',
    guard === undefined
      ? { config: { ...OPEN_WHILE_SEALED, ...description } }
      : { onRequest: guard, config: description },
    async (_request, reply) => {
      reply.header('content-type', registry.contentType);
      return registry.metrics();
    },
  );
}
