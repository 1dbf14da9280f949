import type { Socket } from 'node:net';
import { STYLES_FOLDER } from '@bundoc/console/folder';
import { registerConsole } from '@bundoc/shared/console/routes';
import type { Site } from '@bundoc/shared/console/site';
import type { AppError } from '@bundoc/shared/contract/app-error';
import { defined } from '@bundoc/shared/contract/defined';
import { BearerAuth } from '@bundoc/shared/http/bearer-auth';
import { createHttpShares, type HttpShares, poolsOf } from '@bundoc/shared/http/http-shares';
import { createHttpServer, type HttpTimes, refuseOtherMethods } from '@bundoc/shared/http/server';
import { registerMetricsRoute } from '@bundoc/shared/http/service-routes';
import type { Logger } from '@bundoc/shared/logs/logger';
import type { ServiceMetrics } from '@bundoc/shared/metrics/metrics';
import { PUBLIC } from '@bundoc/shared/openapi/description';
import { readDocsLook } from '@bundoc/shared/openapi/docs-page';
import { registerOpenapi } from '@bundoc/shared/openapi/routes';
import type { Drain } from '@bundoc/shared/process/drain';
import type { Clock } from '@bundoc/shared/runtime/clock';
import type { ServerTls } from '@bundoc/shared/tls/server-tls';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import type { PublicJwk } from '../records/installation.ts';
import { pemOf } from '../vault/signing-key.ts';
import { registerAuditRoutes } from './audit.ts';
import { pathOfTarget } from './audited-path.ts';
import { registerCryptoRoutes } from './crypto.ts';
import { registerDataKeyRoute } from './data-key.ts';
import { registerEventsRoute } from './events.ts';
import { registerExportRoute } from './export.ts';
import { createGuards } from './guard.ts';
import { registerKekRoutes } from './kek.ts';
import { registerKeyHolderRoutes } from './key-holder.ts';
import { registerKeyLifecycleRoutes } from './key-lifecycle.ts';
import { registerKeyOutsideRoutes } from './key-outside.ts';
import { registerKeyRoutes } from './keys.ts';
import { bunkmsApi } from './openapi.ts';
import { registerPublicRoutes } from './public.ts';
import type { Readiness } from './readiness.ts';
import { routesOf } from './route.ts';
import { OPEN_WHILE_SEALED, refuseWhileSealed } from './sealed-hook.ts';
import type { ServiceGate } from './services.ts';
import { registerStorageRoutes } from './storages.ts';
import { registerTokenRoutes } from './tokens.ts';

/** Enough for the largest token request. Routes that accept more set their own limit. */
const BODY_BYTES_MAX = 65_536;

export interface ListenerOptions {
  readonly logger: Logger;
  readonly clock: Clock;
  readonly drain: Drain;
  readonly metrics: ServiceMetrics;
  /** The console of the API listener. */
  readonly console: { readonly version: string; readonly site: Site | undefined };
  /** Undefined while the service is sealed. */
  readonly publicKey: () => PublicJwk | undefined;
  /** Asked at each request. */
  readonly isSealed: () => boolean;
  /** Shared by both listeners, except their connections; separate for each when absent. */
  readonly shares?: HttpShares;
  readonly services: ServiceGate;
  readonly readiness: () => Promise<Readiness>;
  readonly times?: HttpTimes | undefined;
  /** Called for each connection. @returns false when it closed it. */
  readonly admit?: (socket: Socket) => boolean;
}

/** An alert counts the failures of exports by their route. */
const AWAITED = [{ route: '/v1/export/:name', method: 'GET', statuses: [500, 503] }];

/** The paths that only the internal listener has. */
const INTERNAL_PATH = /^\/v1\/(?:export|events)(?:\/|$)/;
const INTERNAL_ONLY =
  'exports and events are served by the internal listener only: BUNKMS_INTERNAL_PORT, 8082 by default';

/** Called for every refused or failed request before its answer is sent. The answer waits for the promise. */
export type OnProblem = (request: FastifyRequest, error: AppError) => Promise<void> | undefined;

/** The listener for administration and encryption. Export does not exist on it. */
export function createApiListener(
  options: ListenerOptions,
  tls: ServerTls | undefined,
  onProblem: OnProblem,
): Promise<FastifyInstance> {
  return createListener('api', options, tls, onProblem);
}

/** The listener for services on the internal network: everything, including export and events. */
export function createInternalListener(
  options: ListenerOptions,
  tls: ServerTls | undefined,
  onProblem: OnProblem,
): Promise<FastifyInstance> {
  return createListener('internal', options, tls, onProblem);
}

/** Accepts tokens under the key that BunKMS signs with, from the moment that it is unsealed. */
function bearerAuthOf(publicKey: ListenerOptions['publicKey'], clock: Clock): BearerAuth {
  let known: { readonly key: PublicJwk; readonly pem: string } | undefined;
  const find = async (kid: string) => {
    const key = publicKey();
    if (key === undefined || key.kid !== kid) return undefined;
    if (known?.key !== key) known = { key, pem: pemOf(key) };
    return known.pem;
  };
  const isCurrent = (kid: string) => kid === publicKey()?.kid;
  return new BearerAuth({ audience: 'bunkms', clock, keys: { isCurrent, find } });
}

async function createListener(
  listener: 'api' | 'internal',
  options: ListenerOptions,
  tls: ServerTls | undefined,
  onProblem: OnProblem,
): Promise<FastifyInstance> {
  const { clock, metrics, publicKey, services, shares = createHttpShares() } = options;
  const app = createHttpServer({
    logger: options.logger.child({ listener }),
    bodyBytesMax: BODY_BYTES_MAX,
    tls,
    onProblem,
    hintOf: (target) =>
      listener === 'api' && INTERNAL_PATH.test(pathOfTarget(target)) ? INTERNAL_ONLY : undefined,
    shares,
    drain: options.drain,
    ...options.times,
    ...defined({ admit: options.admit }),
  });
  app.decorateRequest('identity', null);
  metrics.measureRequests(app, listener, listener === 'internal' ? AWAITED : []);
  metrics.watchShares(poolsOf(shares));
  refuseWhileSealed(app, options.isSealed);

  const auth = bearerAuthOf(publicKey, clock);
  await auth.register(app);
  const guards = createGuards(auth, services);

  registerPublicRoutes(app, {
    service: listener === 'api' ? 'bunkms' : 'bunkms-internal',
    readiness: options.readiness,
    drain: options.drain,
    jwks: () => [publicKey()].filter((key) => key !== undefined),
  });
  const add = routesOf(app, services);
  registerKeyRoutes(add, guards);
  registerKeyLifecycleRoutes(add, guards);
  registerKeyOutsideRoutes(add, guards);
  registerKeyHolderRoutes(add, guards);
  registerStorageRoutes(add, guards);
  registerCryptoRoutes(app, guards, services);
  registerDataKeyRoute(add, guards);
  registerKekRoutes(add, guards);
  registerTokenRoutes(add, guards);
  registerAuditRoutes(add, guards);
  registerMetricsRoute(
    app,
    metrics.registry,
    listener === 'api'
      ? {
          access: { kind: 'token', scopes: ['kms:metrics'], serviceOnly: true },
          guard: guards.service('kms:metrics'),
        }
      : // The network restricts access. A sealed service answers too, so that `bunkms_sealed` is visible.
        { access: PUBLIC, config: OPEN_WHILE_SEALED },
  );
  if (listener === 'internal') {
    registerExportRoute(app, guards, services);
    registerEventsRoute(app, guards, services);
  }
  if (listener === 'api')
    await registerConsole(app, { ...options.console, service: 'bunkms', clock, config: OPEN_WHILE_SEALED });
  await registerOpenapi(app, {
    service: bunkmsApi(listener),
    clock,
    // Services need no page, and the listener that releases keys offers nothing unnecessary.
    page: listener === 'api' ? readDocsLook(STYLES_FOLDER, 'bunkms') : undefined,
    config: OPEN_WHILE_SEALED,
  });
  refuseOtherMethods(app);
  return app;
}
