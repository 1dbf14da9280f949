import { createHash } from 'node:crypto';
import type { FastifyContextConfig, FastifyInstance } from 'fastify';
import { z } from 'zod';
import { parseEntityTags } from '../contract/headers.ts';
import type { Clock } from '../runtime/clock.ts';
import { describe, PUBLIC, type RouteDescription } from './description.ts';
import { boundDocs } from './docs-bounds.ts';
import { type DocsLook, registerDocsPage } from './docs-page.ts';
import { buildDocument, type OpenapiDocument, requireSound, type ServiceDescription } from './document.ts';
import { describedRoutes } from './registered-routes.ts';

export interface OpenapiOptions {
  readonly service: ServiceDescription;
  readonly clock: Clock;
  /** The look of `/docs`, a page that shows the document. Without it, there is no page. */
  readonly page: DocsLook | undefined;
  /** Route configuration for the service's own hooks. */
  readonly config?: FastifyContextConfig;
}

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
    if (page !== undefined)
      await registerDocsPage(docs, { title: service.title, document, look: page, config: options.config });
  });
}
