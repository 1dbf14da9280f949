import type { FastifyInstance, HTTPMethods } from 'fastify';
import { AppError } from '../contract/app-error.ts';
import { describe } from '../openapi/description.ts';
import { requireNames } from './validate.ts';

/** Methods for which Fastify supports routes. Any other method is refused before routing. */
const ROUTED: readonly HTTPMethods[] = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'TRACE'];

/** The methods that each path of an app has. */
export class AllowedMethods {
  readonly #byUrl = new Map<string, Set<string>>();
  #patterns: readonly { readonly path: RegExp; readonly allow: readonly string[] }[] | undefined;

  /** Records the routes that are registered from now on. */
  constructor(app: FastifyInstance) {
    app.addHook('onRoute', (route) => {
      const methods = this.#byUrl.get(route.url) ?? new Set();
      for (const method of [route.method].flat()) methods.add(method);
      this.#byUrl.set(route.url, methods);
    });
  }

  /**
   * The methods of the path of a request target, in alphabetical order; undefined for a path without an
   * endpoint.
   */
  at(target: string): readonly string[] | undefined {
    const [path = ''] = target.split(/[?#]/, 1);
    return this.#patterns?.find((pattern) => pattern.path.test(path))?.allow;
  }

  /**
   * Answers 405 with `Allow` on every path that exists under another method, which Fastify itself does not.
   * Call it once, after all routes.
   */
  refuseOthers(app: FastifyInstance): void {
    const known = [...this.#byUrl].map(([url, named]) => {
      // Fastify lists a path either with or without its final slash, but serves both.
      const methods = new Set([...named, ...ROUTED.filter((method) => app.hasRoute({ url, method }))]);
      return { url, methods, allow: [...methods].sort() };
    });
    this.#patterns = known.map(({ url, allow }) => ({ path: patternOf(url), allow }));
    for (const { url, methods, allow } of known)
      app.route({
        url,
        method: ROUTED.filter((method) => !methods.has(method)) as HTTPMethods[],
        config: describe('internal'),
        onRequest: async ({ params }) => {
          requireNames(params);
          throw methodNotAllowed(allow);
        },
        handler: () => undefined,
      });
  }
}

/** The refusal of another method than those, which its detail names for people. */
export function methodNotAllowed(allow: readonly string[]): AppError {
  return new AppError('method_not_allowed', { allow, detail: `it supports ${allow.join(', ')}` });
}

/** Fastify's pattern of a path as a regular expression: `/v1/keys/:name`, `/docs/static/*`. */
function patternOf(url: string): RegExp {
  const source = url
    .replace(/[.+?^${}()|[\]\\]/g, '\\$&')
    .replace(/:[A-Za-z_]+/g, '[^/]+')
    .replace(/\*/g, '.*');
  return new RegExp(`^${source}$`);
}
