import type { FastifyInstance } from 'fastify';
import { collectDefaultMetrics, Registry } from 'prom-client';
import { RequestTimes } from './request-times.ts';

/** The registry of a service, with the metrics of its process. */
export function createRegistry(): Registry {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  return registry;
}

/**
 * Counts and times the requests of an app. Labels are route patterns, never paths, so that their number is bounded and no
 * id is among them.
 *
 * @param prefix of the service's own metrics, with its underscore: `bundoc_`.
 */
export function measureRequests(app: FastifyInstance, registry: Registry, prefix: string): void {
  const times = new RequestTimes(`${prefix}http_request_seconds`, registry);
  app.addHook('onResponse', (request, reply, done) => {
    times.add(
      request.routeOptions.url ?? 'none',
      request.method,
      reply.statusCode,
      reply.elapsedTime / 1_000,
    );
    done();
  });
}
