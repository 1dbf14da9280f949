import type { Registry } from '@prometheus-io/client';
import type { FastifyContextConfig, FastifyInstance } from 'fastify';
import { z } from 'zod';
import { defined } from '../contract/defined.ts';
import { describe, PUBLIC, type RouteAccess } from '../openapi/description.ts';
import { VERSION } from '../process/version.ts';
import { FOR_OPERATORS } from './answer-bytes.ts';
import { WITHOUT_PLACE } from './gate-door.ts';
import type { Guard } from './guard.ts';

const healthSchema = z.object({ status: z.literal('ok'), version: z.string() });

/**
 * `/health`: whether the process is alive.
 *
 * @param config the configuration of the route besides its description.
 */
export function registerHealthRoute(app: FastifyInstance, config: FastifyContextConfig = {}): void {
  const description = describe({
    id: 'health',
    tag: 'service',
    summary: 'Whether the process is alive',
    access: PUBLIC,
    answers: { 200: { description: 'The process is alive', schema: healthSchema } },
    examples: { ask: { status: 200, answer: { status: 'ok', version: VERSION } } },
  });
  app.get('/health', { config: { ...config, ...description } }, async () => ({
    status: 'ok',
    version: VERSION,
  }));
}

export interface MetricsRoute {
  readonly access: RouteAccess;
  /** Absent when the network restricts access. */
  readonly guard?: Guard | undefined;
  /** The configuration of the route besides its description. */
  readonly config?: FastifyContextConfig;
}

/** `/metrics` for Prometheus. */
export function registerMetricsRoute(
  app: FastifyInstance,
  registry: Registry,
  { access, guard, config = {} }: MetricsRoute,
): void {
  const description = describe({
    id: 'metrics',
    tag: 'service',
    summary: 'Metrics for Prometheus',
    access,
    answers: {
      200: {
        description: 'Text in the exposition format of Prometheus',
        schema: z.string(),
        contentType: 'text/plain',
      },
    },
    examples: { scrape: { status: 200 } },
  });
  app.get(
    '/metrics',
    {
      config: { ...config, ...description, ...FOR_OPERATORS, ...WITHOUT_PLACE },
      ...defined({ onRequest: guard }),
    },
    async (_request, reply) =>
      reply.header('content-type', registry.contentType).send(await registry.metrics()),
  );
}
