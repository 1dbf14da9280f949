import { createHash } from 'node:crypto';
import swagger from '@fastify/swagger';
import swaggerUi from '@fastify/swagger-ui';
import type { FastifyContextConfig, FastifyInstance, RouteOptions } from 'fastify';
import { z } from 'zod';
import { parseEntityTags } from '../contract/headers.ts';
import type { Clock } from '../runtime/clock.ts';
import { describe, PUBLIC, type RouteDescription } from './description.ts';
import { boundDocs } from './docs-bounds.ts';
import { buildDocument, type OpenapiDocument, requireSound, type ServiceDescription } from './document.ts';
import { describedRoutes } from './registered-routes.ts';

export interface OpenapiOptions {
  readonly service: ServiceDescription;
  readonly clock: Clock;
  /** Whether to serve `/docs`, a page that shows the document. */
  readonly page: boolean;
  /** Route configuration for the service's own hooks. */
  readonly config?: FastifyContextConfig;
}

/**
 * Nothing is loaded from other origins, nothing is inline, and the page cannot be framed. For its "try it
 * out" it may send requests to its own service (`connect-src`). The style sheet contains its images as
 * `data:`.
 */
const DOCS_CSP =
  "default-src 'none'; base-uri 'none'; connect-src 'self'; form-action 'none'; frame-ancestors 'none'; " +
  "img-src 'self' data:; script-src 'self'; style-src 'self'";

const TAG_HEADERS = { ETag: 'The entity tag of this document' };

/** The document about itself. */
const DESCRIPTION: RouteDescription = {
  id: 'readOpenapi',
  tag: 'service',
  summary: 'This document',
  description: 'OpenAPI 3.1 of the listener that answers. `/docs`, where there is one, shows it.',
  access: PUBLIC,
  headers: z.object({ 'if-none-match': z.string().max(1_024).optional() }),
  answers: {
    200: {
      description: 'The document',
      schema: z.looseObject({ openapi: z.enum(['3.1.0']) }),
      headers: TAG_HEADERS,
    },
    304: { description: '`If-None-Match` names the present document', headers: TAG_HEADERS },
  },
  refusals: ['rate_limited'],
  examples: { read: { status: 200 } },
};

/**
 * `/openapi.json`, and `/docs` with `page`. They need no token and are rate limited. The first request builds
 * the document, because a start should not wait for it.
 *
 * @throws Error when the app becomes ready and a route is not described.
 */
export async function registerOpenapi(app: FastifyInstance, options: OpenapiOptions): Promise<void> {
  const { service, clock, page } = options;
  const document: { -readonly [Member in keyof OpenapiDocument]: OpenapiDocument[Member] } = {
    openapi: '3.1.0',
  };
  let text = Buffer.alloc(0);
  let etag = '';
  const build = () => {
    Object.assign(document, buildDocument(service, describedRoutes(app)));
    text = Buffer.from(JSON.stringify(document));
    etag = `"${createHash('sha256').update(text).digest('base64url').slice(0, 22)}"`;
  };
  app.addHook('onReady', async () => requireSound(service, describedRoutes(app)));
  await app.register(async (docs) => {
    boundDocs(docs, clock);
    docs.addHook('onRequest', async () => {
      if (etag === '') build();
    });
    docs.get(
      '/openapi.json',
      { config: { ...options.config, ...describe(DESCRIPTION) } },
      async (request, reply) => {
        reply.header('etag', etag).header('cache-control', 'no-cache');
        const tags = parseEntityTags(request.headers['if-none-match'] ?? '');
        if (tags === '*' || tags?.some(({ opaque }) => `"${opaque}"` === etag) === true)
          return reply.code(304).send();
        return reply.type('application/json; charset=utf-8').send(text);
      },
    );
    if (page) await registerPage(docs, service.title, document, options.config);
  });
}

async function registerPage(
  docs: FastifyInstance,
  title: string,
  document: OpenapiDocument,
  config: FastifyContextConfig | undefined,
): Promise<void> {
  await docs.register(async (ui) => {
    ui.addHook('onRoute', (route: RouteOptions) => {
      route.config = { ...route.config, ...config, ...describe('internal') };
    });
    ui.addHook('onSend', (_request, reply, payload, done) => {
      reply.header('content-security-policy', DOCS_CSP).header('referrer-policy', 'no-referrer');
      done(null, payload);
    });
    await ui.register(swagger, { mode: 'static', specification: { document: document as never } });
    await ui.register(swaggerUi, {
      routePrefix: '/docs',
      theme: { title },
      // Without the top bar, which loads documents from other sites.
      uiConfig: { layout: 'BaseLayout', docExpansion: 'list', persistAuthorization: false },
    });
  });
}
