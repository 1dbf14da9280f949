import type { Jwks } from '@bundoc/shared/contract/tokens';
import type { FastifyInstance } from 'fastify';
import { OPEN_WHILE_SEALED } from '../http/sealed-hook.ts';
import type { Readiness } from '../service/readiness.ts';

export interface PublicPorts {
  readonly readiness: () => Promise<Readiness>;
  readonly jwks: Jwks;
}

/** How long others may keep the JWKS, seconds. The key changes with the installation only. */
const JWKS_MAX_AGE_S = 300;

/**
 * What anybody may ask. The JWKS is not given while the service is sealed: the store has the public key in clear, and whoever
 * can write to the store could put another there and so make Bundoc take tokens of their own (ADR 0006).
 */
export function registerPublicRoutes(app: FastifyInstance, { readiness, jwks }: PublicPorts): void {
  app.get('/health', OPEN_WHILE_SEALED, async () => ({ status: 'ok' }));

  app.get('/ready', OPEN_WHILE_SEALED, async (_request, reply) => {
    const answer = await readiness();
    if (answer.status !== 'ready') reply.code(503).header('retry-after', '1');
    return answer;
  });

  app.get('/.well-known/jwks.json', async (_request, reply) => {
    reply.header('cache-control', `public, max-age=${JWKS_MAX_AGE_S}`);
    return jwks;
  });
}
