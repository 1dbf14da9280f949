import { defined } from '@bundoc/shared/contract/defined';
import { generationSchema, storageIdSchema } from '@bundoc/shared/contract/storages';
import type { BearerAuth } from '@bundoc/shared/http/bearer-auth';
import { registerHealthRoute } from '@bundoc/shared/http/service-routes';
import { RETRY_AFTER } from '@bundoc/shared/openapi/answer-headers';
import { describe, PUBLIC } from '@bundoc/shared/openapi/description';
import type { Drain } from '@bundoc/shared/process/drain';
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import { isFromService } from './access.ts';

/**
 * The answer of `/ready`. Once a generation is confirmed, `kms` and its events are informational: warm
 * projects work without BunKMS.
 */
const readinessSchema = z.object({
  storage: z.enum(['ok', 'failing']),
  storage_id: storageIdSchema,
  /** The confirmed generation. Only for service tokens with `docs:metrics`. */
  generation: generationSchema.optional(),
  /** The data folder, and what its file system has left. Only for service tokens with `docs:metrics`. */
  disk: z.object({ folder: z.string(), free_bytes: z.int().nonnegative() }).optional(),
  /** Why documents cannot be stored. `kms_unavailable`: BunKMS has not confirmed a generation yet. */
  reason: z.enum(['storage_unavailable', 'kms_unavailable', 'storage_superseded']).optional(),
  kms: z.enum(['up', 'down']),
  /** Without events, changed keys and tokens stay usable until they expire. */
  kms_events: z.enum(['live', 'down']),
});
export type Readiness = z.infer<typeof readinessSchema>;
const readySchema = z.object({
  service: z.literal('bundoc'),
  status: z.enum(['ready', 'not ready', 'draining']),
  ...readinessSchema.shape,
});

/**
 * `/health`: the process is alive. `/ready`: it can store documents. Both need no token and reveal nothing
 * else, except to a monitor: who knows the generation of the storage can act as it with a stolen token.
 */
export function registerHealth(
  app: FastifyInstance,
  readiness: () => Promise<Readiness>,
  auth: BearerAuth,
  drain: Drain,
): void {
  registerHealthRoute(app);

  const ready = describe({
    id: 'ready',
    tag: 'service',
    summary: 'Whether documents can be stored',
    description:
      'BunKMS decides until it has confirmed the generation of the storage. Later it is shown, but does not decide: projects whose key is cached work without it. `generation` and `disk` (for files) are only for a service token with the scope `docs:metrics`. Any other token has no effect.',
    access: PUBLIC,
    answers: {
      200: { description: 'They can', schema: readySchema },
      503: {
        description: 'They cannot, or the service drains: it stops in a moment and still answers',
        schema: readySchema,
        headers: { 'Retry-After': RETRY_AFTER },
      },
    },
    examples: {
      ask: {
        status: 200,
        answer: {
          service: 'bundoc',
          status: 'ready',
          storage: 'ok',
          kms: 'up',
          kms_events: 'live',
          storage_id: '3c0e2b62-8f5c-4c0e-9a55-0f8f0c9d5a01',
        },
      },
    },
  });
  app.get('/ready', { config: ready }, async (request, reply) => {
    const [{ generation, disk, ...state }, isMonitor] = await Promise.all([
      readiness(),
      isFromService(auth, request, 'docs:metrics'),
    ]);
    const able = state.reason === undefined ? 'ready' : 'not ready';
    const status = drain.isDraining ? 'draining' : able;
    if (status !== 'ready') reply.code(503).header('retry-after', '1');
    return { service: 'bundoc', status, ...state, ...(isMonitor ? defined({ generation, disk }) : {}) };
  });
}
