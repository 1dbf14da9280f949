import { type Answering, answeringSchema } from '@bundoc/shared/contract/service-info';
import { jwksSchema } from '@bundoc/shared/contract/tokens';
import { registerHealthRoute } from '@bundoc/shared/http/service-routes';
import { RETRY_AFTER } from '@bundoc/shared/openapi/answer-headers';
import { describe, PUBLIC } from '@bundoc/shared/openapi/description';
import type { Drain } from '@bundoc/shared/process/drain';
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import type { PublicJwk } from '../records/installation.ts';
import type { Readiness } from './readiness.ts';
import { OPEN_WHILE_SEALED } from './sealed-hook.ts';

export interface PublicDeps {
  readonly service: Answering;
  readonly readiness: () => Promise<Readiness>;
  readonly drain: Drain;
  readonly jwks: () => readonly PublicJwk[];
}

const readinessSchema = z.object({
  service: answeringSchema.extract(['bunkms', 'bunkms-internal']).describe('The listener that answers'),
  status: z.enum(['ready', 'sealed', 'unavailable', 'draining']),
  checks: z.object({ unsealed: z.boolean(), store: z.boolean(), audit: z.boolean() }),
  faults: z
    .array(z.string())
    .optional()
    .describe('Objects in the database, or records, for which BunKMS does not trust it'),
  sealed: z
    .object({ reason: z.string(), next_try_at: z.iso.datetime() })
    .optional()
    .describe('Why the KEK ring opens nothing, and when the service tries again'),
  outside_keys_faults: z
    .int()
    .optional()
    .describe(
      'Faults of the file BUNKMS_OUTSIDE_KEYS_FILE, whose last good state is in use; its log names them',
    ),
});

/**
 * How long clients may cache the JWKS, seconds. Only a new installation, or a restore that revokes all
 * tokens, changes the key.
 */
const JWKS_MAX_AGE_S = 300;

/**
 * Routes without authentication. The JWKS is not served while the service is sealed. The public key in the
 * store is not authenticated. Anyone who can write to the store could replace it and make Bundoc accept
 * forged tokens (ADR 0006).
 */
export function registerPublicRoutes(
  app: FastifyInstance,
  { service, readiness, drain, jwks }: PublicDeps,
): void {
  registerHealthRoute(app, OPEN_WHILE_SEALED);

  const ready = describe({
    id: 'ready',
    tag: 'service',
    summary: 'Whether the service is unsealed, and its store and audit chain are writable',
    access: PUBLIC,
    answers: {
      200: { description: 'The service is ready', schema: readinessSchema },
      503: {
        description: 'The service is not ready, or it is draining before it stops',
        schema: readinessSchema,
        headers: { 'Retry-After': RETRY_AFTER },
      },
    },
    examples: {
      ask: {
        status: 200,
        answer: { service, status: 'ready', checks: { unsealed: true, store: true, audit: true } },
      },
    },
  });
  app.get('/ready', { config: { ...OPEN_WHILE_SEALED, ...ready } }, async (_request, reply) => {
    const state = { service, ...(await readiness()) };
    const answer = drain.isDraining ? { ...state, status: 'draining' } : state;
    if (answer.status !== 'ready') reply.code(503).header('retry-after', '1');
    return answer;
  });

  const published = describe({
    id: 'readJwks',
    tag: 'tokens',
    summary: 'The public keys of token signatures',
    access: PUBLIC,
    answers: { 200: { description: 'A JSON Web Key Set (RFC 7517)', schema: jwksSchema } },
    refusals: ['sealed'],
    examples: { read: { status: 200 } },
  });
  app.get('/.well-known/jwks.json', { config: published }, async (_request, reply) => {
    reply.header('cache-control', `public, max-age=${JWKS_MAX_AGE_S}`);
    return { keys: jwks() };
  });
}
