import { describe, PUBLIC } from '@bundoc/shared/openapi/description';
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';

/** What readiness says; `kms` and its events are told, but do not decide: warm projects work without BunKMS. */
const readinessSchema = z.object({
  storage: z.enum(['ok', 'failing']),
  kms: z.enum(['up', 'down']),
  /** Without events, what happens to keys and tokens takes effect at their end. */
  kms_events: z.enum(['live', 'down']),
});
export type Readiness = z.infer<typeof readinessSchema>;
const readySchema = z.object({ status: z.enum(['ready', 'not ready']), ...readinessSchema.shape });

/** `/health`: the process lives. `/ready`: it can store documents. Both are open and say nothing else. */
export function registerHealth(app: FastifyInstance, readiness: () => Promise<Readiness>): void {
  const health = describe({
    id: 'health',
    tag: 'service',
    summary: 'Whether the process lives',
    access: PUBLIC,
    answers: { 200: { description: 'It does', schema: z.object({ status: z.literal('ok') }) } },
    examples: { ask: { status: 200, answer: { status: 'ok' } } },
  });
  app.get('/health', { config: health }, async () => ({ status: 'ok' }));

  const ready = describe({
    id: 'ready',
    tag: 'service',
    summary: 'Whether documents can be stored',
    description: 'BunKMS is told of, but does not decide: projects whose key is cached work without it.',
    access: PUBLIC,
    answers: {
      200: { description: 'They can', schema: readySchema },
      503: { description: 'They cannot', schema: readySchema },
    },
    examples: {
      ask: { status: 200, answer: { status: 'ready', storage: 'ok', kms: 'up', kms_events: 'live' } },
    },
  });
  app.get('/ready', { config: ready }, async (_request, reply) => {
    const state = await readiness();
    const isReady = state.storage === 'ok';
    return reply.code(isReady ? 200 : 503).send({ status: isReady ? 'ready' : 'not ready', ...state });
  });
}
