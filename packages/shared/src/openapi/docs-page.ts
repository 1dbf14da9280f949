import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import swagger from '@fastify/swagger';
import swaggerUi from '@fastify/swagger-ui';
import type { FastifyContextConfig, FastifyInstance, RouteOptions } from 'fastify';
import { describe } from './description.ts';
import type { OpenapiDocument } from './document.ts';

/** The look of the page: that of the console of the same service. */
export interface DocsLook {
  /** The accent colour depends on it. */
  readonly service: 'bundoc' | 'bunkms';
  readonly css: string;
  /** SVG. */
  readonly icon: string;
}

/** @param folder the style sheets of the console. */
export function readDocsLook(folder: string, service: DocsLook['service']): DocsLook {
  const read = (name: string) => readFileSync(join(folder, name), 'utf8');
  return { service, css: `${read('theme.css')}\n${read('reference.css')}`, icon: read(`${service}.svg`) };
}

/**
 * Nothing is loaded from other origins, nothing is inline, and the page cannot be framed. For its "try it
 * out" it may send requests to its own service (`connect-src`). The style sheet contains its images as
 * `data:`.
 */
const DOCS_CSP =
  "default-src 'none'; base-uri 'none'; connect-src 'self'; form-action 'none'; frame-ancestors 'none'; " +
  "img-src 'self' data:; script-src 'self'; style-src 'self'";

/** In a layer, the rules of Swagger UI lose against all others, whatever their selectors are. */
const LAYER = '@import url("../swagger-ui.css") layer(swagger-ui);\n';

/** Swagger UI has dark colours, but takes them only by a class. */
const FOLLOW_SCHEME = `const dark = matchMedia('(prefers-color-scheme: dark)');
const follow = () => document.documentElement.classList.toggle('dark-mode', dark.matches);
dark.addEventListener('change', follow);
follow();
`;

/** `/docs`, a page that shows the document. */
export async function registerDocsPage(
  docs: FastifyInstance,
  options: {
    readonly title: string;
    readonly document: OpenapiDocument;
    readonly look: DocsLook;
    readonly config?: FastifyContextConfig | undefined;
  },
): Promise<void> {
  const { title, document, look, config } = options;
  await docs.register(async (ui) => {
    ui.addHook('onRoute', (route: RouteOptions) => {
      route.config = { ...route.config, ...config, ...describe('internal') };
    });
    ui.addHook('onSend', (_request, reply, payload, done) => {
      reply.header('content-security-policy', DOCS_CSP).header('referrer-policy', 'no-referrer');
      const isPage = typeof payload === 'string' && String(reply.getHeader('content-type')).includes('html');
      done(null, isPage ? dressed(payload, look) : payload);
    });
    await ui.register(swagger, { mode: 'static', specification: { document: document as never } });
    await ui.register(swaggerUi, {
      routePrefix: '/docs',
      theme: {
        title,
        css: [{ filename: 'reference.css', content: `${LAYER}${look.css}` }],
        js: [{ filename: 'scheme.js', content: FOLLOW_SCHEME }],
        favicon: [
          { filename: 'icon.svg', rel: 'icon', type: 'image/svg+xml', sizes: 'any', content: look.icon },
        ],
      },
      // Without the top bar, which loads documents from other sites.
      uiConfig: {
        layout: 'BaseLayout',
        docExpansion: 'list',
        persistAuthorization: false,
        // Its colours are in `style` attributes, where no style sheet can adapt them to the scheme.
        syntaxHighlight: false,
      },
    });
  });
}

/** The page of Swagger UI without its own style sheets, for the service and for narrow windows. */
function dressed(page: string, { service }: DocsLook): string {
  return page
    .replaceAll(/<link rel="stylesheet"[^>]*\/(?:swagger-ui|index)\.css" \/>\s*/g, '')
    .replace('<html lang="en">', `<html lang="en" data-service="${service}">`)
    .replace(
      '<meta charset="UTF-8">',
      '<meta charset="UTF-8">\n      <meta name="viewport" content="width=device-width, initial-scale=1">' +
        '\n      <meta name="color-scheme" content="light dark">',
    );
}
