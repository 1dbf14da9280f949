import type { FastifyContextConfig, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';
import { AppError } from '../contract/app-error.ts';
import { type ServiceInfo, serviceInfoSchema } from '../contract/service-info.ts';
import { preferred, preferredCoding } from '../http/accept.ts';
import { varyBy } from '../http/cors.ts';
import { describe, PUBLIC, type RouteDescription } from '../openapi/description.ts';
import { boundDocs } from '../openapi/docs-bounds.ts';
import type { Clock } from '../runtime/clock.ts';
import type { Site, SiteFile } from './site.ts';

export interface ConsoleOptions {
  readonly service: ServiceInfo['service'];
  readonly version: string;
  /** Undefined when the console is turned off: then `/` answers JSON to all clients. */
  readonly site: Site | undefined;
  readonly clock: Clock;
  /** Route configuration for the service's own hooks. */
  readonly config?: FastifyContextConfig;
}

/**
 * The page loads scripts and styles from its own service only, and sends requests only there. It has nothing
 * inline, nothing from other origins, no frames and no forms. No string becomes code or markup:
 * `trusted-types 'none'` lets no script create a policy.
 */
export const CONSOLE_CSP = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "connect-src 'self'",
  "img-src 'self'",
  "font-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
  "require-trusted-types-for 'script'",
  "trusted-types 'none'",
].join('; ');

const SECURITY_HEADERS: Readonly<Record<string, string>> = {
  'content-security-policy': CONSOLE_CSP,
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
  'cross-origin-embedder-policy': 'require-corp',
  'permissions-policy': 'camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()',
  'referrer-policy': 'no-referrer',
  'x-frame-options': 'DENY',
};

const ASSETS = 'assets/';
/** Names of assets contain a hash of their content. */
const IMMUTABLE = 'public, max-age=31536000, immutable';
const FORMATS = ['application/json', 'text/html'] as const;

const DESCRIPTION: RouteDescription = {
  id: 'readService',
  tag: 'service',
  summary: 'The service at this address',
  description:
    'The version of the service and its links. A browser gets a page, unless the console is turned off.',
  access: PUBLIC,
  answers: {
    200: {
      description: 'The service',
      schema: serviceInfoSchema,
      also: { 'text/html': z.string() },
    },
  },
  refusals: ['rate_limited'],
  examples: { ask: { status: 200 } },
};

/**
 * `/`, and the console below `/console/`. Both need no token, are rate limited, and contain nothing of the
 * installation. The console gets its content from the API, with the token that its user has pasted.
 */
export async function registerConsole(app: FastifyInstance, options: ConsoleOptions): Promise<void> {
  const { service, version, site, clock, config } = options;
  const page = site?.get(`${service}.html`);
  if (site !== undefined && page === undefined) throw new Error(`the console has no page for ${service}`);
  const info: ServiceInfo = {
    service,
    version,
    links: {
      ...(page === undefined ? {} : { console: '/console/' }),
      openapi: '/openapi.json',
      reference: '/docs',
      health: '/health',
      ready: '/ready',
    },
  };
  await app.register(async (bounded) => {
    boundDocs(bounded, clock);
    bounded.get('/', { config: { ...config, ...describe(DESCRIPTION) } }, async (request, reply) => {
      if (page === undefined) return info;
      if (preferred(request.headers.accept, FORMATS) === 'text/html')
        return sendPage(request, reply, page, 'Accept, Accept-Encoding');
      varyBy(reply, 'Accept');
      return info;
    });
    if (site === undefined || page === undefined) return;
    const internal = { config: { ...config, ...describe('internal') } };
    bounded.get('/console', internal, async (_request, reply) => reply.redirect('/console/', 308));
    bounded.get<{ Params: { '*': string } }>('/console/*', internal, async (request, reply) => {
      const path = request.params['*'];
      if (!path.startsWith(ASSETS)) return sendPage(request, reply, page);
      const asset = site.get(path);
      if (asset === undefined) throw new AppError('not_found');
      return send(request, reply.header('cache-control', IMMUTABLE), asset);
    });
  });
}

/** Each view of the console has its own path, and all paths return this page. */
function sendPage(request: FastifyRequest, reply: FastifyReply, page: SiteFile, vary?: string): FastifyReply {
  return send(request, reply.header('cache-control', 'no-store'), page, vary);
}

function send(
  request: FastifyRequest,
  reply: FastifyReply,
  file: SiteFile,
  vary = 'Accept-Encoding',
): FastifyReply {
  const coding = preferredCoding(request.headers['accept-encoding'], (one) => file[one] !== undefined);
  varyBy(reply, vary);
  reply.headers(SECURITY_HEADERS).type(file.contentType);
  if (coding !== undefined) reply.header('content-encoding', coding);
  return reply.send(coding === undefined ? file.identity : file[coding]);
}
