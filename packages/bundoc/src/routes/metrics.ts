import { requireScope } from '@bundoc/shared/grants';
import type { BearerAuth } from '@bundoc/shared/http/bearer-auth';
import type { FastifyInstance } from 'fastify';
import type { Registry } from 'prom-client';

/** `/metrics` for Prometheus. Its port is the clients' port, so it asks for a token. */
export function registerMetrics(app: FastifyInstance, registry: Registry, auth: BearerAuth): void {
  app.get(
    '/metrics',
    {
      onRequest: async (request) => {
        requireScope(await auth.authenticate(request), 'docs:admin');
      },
    },
    async (_request, reply) =>
      reply.header('content-type', registry.contentType).send(await registry.metrics()),
  );
}
