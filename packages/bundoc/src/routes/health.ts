import type { FastifyInstance } from 'fastify';

/** What readiness says; `kms` and its events are told, but do not decide: warm projects work without BunKMS. */
export interface Readiness {
  readonly storage: 'ok' | 'failing';
  readonly kms: 'up' | 'down';
  /** Without events, what happens to keys and tokens takes effect at their end. */
  readonly kms_events: 'live' | 'down';
}

/** `/health`: the process lives. `/ready`: it can store documents. Both are open and say nothing else. */
export function registerHealth(app: FastifyInstance, readiness: () => Promise<Readiness>): void {
  app.get('/health', async () => ({ status: 'ok' }));
  app.get('/ready', async (_request, reply) => {
    const state = await readiness();
    const ready = state.storage === 'ok';
    return reply.code(ready ? 200 : 503).send({ status: ready ? 'ready' : 'not ready', ...state });
  });
}
