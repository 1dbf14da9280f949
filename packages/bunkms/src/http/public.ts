import { type Jwks, jwksSchema } from '@bundoc/shared/contract/tokens';
import { registerHealthRoute } from '@bundoc/shared/http/service-routes';
import { describe, PUBLIC } from '@bundoc/shared/openapi/description';
import type { Drain } from '@bundoc/shared/runtime/drain';
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import type { Readiness } from './readiness.ts';
import { OPEN_WHILE_SEALED } from './sealed-hook.ts';

export interface PublicDeps {
  readonly readiness: () => Promise<Readiness>;
  readonly drain: Drain;
  readonly jwks: Jwks;
}

const readinessSchema = z.object({
  status: z.enum(['ready', 'sealed', 'unavailable', 'draining']),
  checks: z.object({ unsealed: z.boolean(), store: z.boolean(), audit: z.boolean() }),
});

/** How long others may keep the JWKS, seconds. The key changes with the installation only. */
const JWKS_MAX_AGE_S = 300;

/**
 * What anybody may ask. The JWKS is not given while the service is sealed: the store has the public key in
 * clear, and anyone who can write to the store could put another there and so make Bundoc take tokens of
 * their own (ADR 0006).
 */
export function registerPublicRoutes(app: FastifyInstance, { readiness, drain, jwks }: PublicDeps): void {
  registerHealthRoute(app, OPEN_WHILE_SEALED);

  const ready = describe({
    id: 'ready',
    tag: 'service',
    summary: 'Whether the service is unsealed, its store takes writes and audit records can be made',
    access: PUBLIC,
    answers: {
      200: { description: 'It does its work', schema: readinessSchema },
      503: {
        description: 'It does not, or it drains: it stops in a moment and still answers',
        schema: readinessSchema,
        headers: { 'Retry-After': 'Seconds after which trying again makes sense' },
      },
    },
    examples: {
      ask: {
        status: 200,
        answer: { status: 'ready', checks: { unsealed: true, store: true, audit: true } },
      },
    },
  });
  app.get('/ready', { config: { ...OPEN_WHILE_SEALED, ...ready } }, async (_request, reply) => {
    const state = await readiness();
    const answer = drain.isDraining ? { ...state, status: 'draining' } : state;
    if (answer.status !== 'ready') reply.code(503).header('retry-after', '1');
    return answer;
  });

  const published = describe({
    id: 'readJwks',
    tag: 'tokens',
    summary: 'The keys that tokens are signed with',
    access: PUBLIC,
    answers: { 200: { description: 'A JSON Web Key Set (RFC 7517)', schema: jwksSchema } },
    refusals: ['sealed'],
    examples: { read: { status: 200 } },
  });
  app.get('/.well-known/jwks.json', { config: published }, async (_request, reply) => {
    reply.header('cache-control', `public, max-age=${JWKS_MAX_AGE_S}`);
    return jwks;
  });
}
