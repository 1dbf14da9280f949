import { requireService } from '@bundoc/shared/contract/grants';
import type { BearerAuth } from '@bundoc/shared/http/bearer-auth';
import { describe } from '@bundoc/shared/openapi/description';
import { METRICS_ANSWER } from '@bundoc/shared/openapi/metrics-answer';
import type { Registry } from '@prometheus-io/client';
import type { FastifyInstance } from 'fastify';

/** `/metrics` for Prometheus. Its port is the clients' port, so it asks for a token. */
export function registerMetrics(app: FastifyInstance, registry: Registry, auth: BearerAuth): void {
  app.get(
    '/metrics',
    {
      config: describe({
        id: 'metrics',
        tag: 'service',
        summary: 'Metrics for Prometheus',
        access: { kind: 'token', scopes: ['docs:metrics'], serviceOnly: true },
        answers: { 200: METRICS_ANSWER },
        examples: { scrape: { status: 200 } },
      }),
      onRequest: async (request) => {
        requireService(await auth.authenticate(request), 'docs:metrics');
      },
    },
    async (_request, reply) =>
      reply.header('content-type', registry.contentType).send(await registry.metrics()),
  );
}
