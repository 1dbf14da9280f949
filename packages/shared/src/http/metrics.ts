import type { FastifyInstance } from 'fastify';
import { Counter, collectDefaultMetrics, Histogram, Registry } from 'prom-client';

/**
 * The metrics every service has: those of the process, and requests by route. Labels are route patterns, never paths,
 * so that their number is bounded and no id is among them.
 *
 * @param prefix of the service's own metrics, with its underscore: `bundoc_`.
 */
export function createMetrics(prefix: string): Registry {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  registry.registerMetric(
    new Counter({
      name: `${prefix}http_requests_total`,
      help: 'Requests by route, method and status.',
      labelNames: ['route', 'method', 'status'],
      registers: [],
    }),
  );
  registry.registerMetric(
    new Histogram({
      name: `${prefix}http_request_seconds`,
      help: 'Time from a request to its answer, by route and method.',
      labelNames: ['route', 'method'],
      buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5],
      registers: [],
    }),
  );
  return registry;
}

/** Counts and times the requests of an app into the metrics of {@link createMetrics}. */
export function measureRequests(app: FastifyInstance, registry: Registry, prefix: string): void {
  const requests = registry.getSingleMetric(`${prefix}http_requests_total`) as Counter;
  const seconds = registry.getSingleMetric(`${prefix}http_request_seconds`) as Histogram;
  app.addHook('onResponse', (request, reply, done) => {
    const route = request.routeOptions.url ?? 'none';
    const { method } = request;
    requests.inc({ route, method, status: reply.statusCode });
    seconds.observe({ route, method }, reply.elapsedTime / 1000);
    done();
  });
}
