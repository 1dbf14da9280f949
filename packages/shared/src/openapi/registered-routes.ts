import type { FastifyInstance, RouteOptions } from 'fastify';
import type { RouteDescription } from './description.ts';

export interface DescribedRoute {
  readonly method: string;
  /** Fastify's pattern: `/v1/keys/:name`. */
  readonly url: string;
  readonly description: RouteDescription;
}

const routesByApp = new WeakMap<FastifyInstance, RouteOptions[]>();

/** Records the routes that are registered from now on. */
export function rememberRoutes(app: FastifyInstance): void {
  const routes: RouteOptions[] = [];
  routesByApp.set(app, routes);
  app.addHook('onRoute', (route) => void routes.push(route));
}

/**
 * The routes of the API, in the order of their registration.
 *
 * @throws Error for routes without a description: no test generated from the document would cover them.
 */
export function describedRoutes(app: FastifyInstance): DescribedRoute[] {
  const described: DescribedRoute[] = [];
  const undescribed: string[] = [];
  for (const { method, url, config } of routesByApp.get(app) ?? []) {
    // Fastify adds HEAD to each GET. The description of the service mentions that once.
    if (method === 'HEAD') continue;
    for (const one of [method].flat()) {
      const description = config?.openapi;
      if (description === undefined) undescribed.push(`${one} ${url}`);
      else if (description !== 'internal') described.push({ method: one, url, description });
    }
  }
  if (undescribed.length > 0)
    throw new Error(`give these routes a description (config: describe({…})): ${undescribed.join(', ')}`);
  return described;
}
