import { AppError } from '@bundoc/shared/contract/app-error';
import type { FastifyInstance } from 'fastify';

declare module 'fastify' {
  interface FastifyContextConfig {
    /** Whether the route answers while the service is sealed. */
    openWhileSealed?: boolean;
  }
}

/** `config` of the few routes that a sealed service answers. */
export const OPEN_WHILE_SEALED = { openWhileSealed: true } as const;

/** Makes all other routes answer 503 `sealed` while the service is sealed, before authentication. */
export function refuseWhileSealed(app: FastifyInstance, isSealed: () => boolean): void {
  app.addHook('onRequest', async (request) => {
    if (isSealed() && request.routeOptions.config.openWhileSealed !== true) throw new AppError('sealed');
  });
}
