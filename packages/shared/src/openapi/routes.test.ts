import { createLogger } from '@bundoc/shared/logs/logger';
import type { FastifyInstance } from 'fastify';
import { expect, describe as group, it } from 'vitest';
import { z } from 'zod';
import { AppError } from '../contract/app-error.ts';
import { createHttpServer, refuseOtherMethods } from '../http/server.ts';
import { validate } from '../http/validate.ts';
import { FakeClock } from '../testing/fake-clock.ts';
import { OpenapiReader } from '../testing/openapi.ts';
import { describe, jsonBody, PUBLIC, type RouteDescription } from './description.ts';
import { DOCS_CONCURRENT_MAX, DOCS_PER_WINDOW_MAX } from './docs-bounds.ts';
import type { ServiceDescription } from './document.ts';
import { registerOpenapi } from './routes.ts';

const service: ServiceDescription = {
  title: 'Service',
  description: 'For tests.',
  tags: [{ name: 'service', description: 'All' }],
  schemas: {},
  refusals: { always: [], authenticated: ['kms_unavailable'] },
};
const thing: RouteDescription = {
  id: 'readThing',
  tag: 'service',
  summary: 'A thing',
  access: { kind: 'token', scopes: ['docs:read'], grant: 'project' },
  params: z.object({ id: z.string().regex(/^[a-z]{1,8}$/) }),
  query: z.strictObject({ limit: z.string().optional().meta({ type: 'integer', minimum: 1 }) }),
  headers: z.object({ 'if-match': z.string().optional() }),
  body: jsonBody(z.strictObject({ at: z.iso.datetime(), n: z.int().optional() })),
  answers: { 200: { description: 'It', schema: z.object({ id: z.string() }), headers: { ETag: 'Of it' } } },
  refusals: ['document_not_found', 'integrity_error', 'project_not_found'],
  examples: {
    one: { params: { id: 'a' }, body: { at: '2026-01-01T00:00:00Z' }, status: 200, answer: { id: 'a' } },
  },
};

async function appWith(
  add: (app: FastifyInstance) => void,
  options: { page?: boolean; clock?: FakeClock } = {},
): Promise<FastifyInstance> {
  const app = createHttpServer({
    logger: createLogger({ service: 'bundoc', level: 'silent' }),
    bodyBytesMax: 1_000,
  });
  add(app);
  const { page = true, clock = new FakeClock() } = options;
  const look = { service: 'bunkms', css: 'body { color: green }', icon: '<svg/>' } as const;
  await registerOpenapi(app, { service, clock, page: page ? look : undefined });
  refuseOtherMethods(app);
  return app;
}

const documented = (app: FastifyInstance) => {
  app.post('/v1/things/:id', { config: describe(thing) }, async (request) => {
    validate(z.object({ id: z.string().max(8) }), request.params, 'params');
    return { id: 'a' };
  });
};

group('the OpenAPI document', () => {
  it('is valid, and its examples and codes match their schemas and the closed table', async () => {
    await using app = await appWith(documented);
    const answer = await app.inject('/openapi.json');
    expect(answer.statusCode).toBe(200);
    expect(answer.headers['content-type']).toBe('application/json; charset=utf-8');
    const reader = new OpenapiReader(answer.json());
    expect(await reader.faults()).toEqual([]);
    const [operation] = reader.operations;
    expect(operation).toMatchObject({
      path: '/v1/things/{id}',
      'x-required-scopes': ['docs:read'],
      security: [{ bearer: [] }],
    });
    expect(reader.codesOf(operation!, 404)).toEqual(['document_not_found', 'project_not_found', 'not_found']);
    expect(reader.codesOf(operation!, 500)).toEqual(['internal_error', 'integrity_error']);
    expect(reader.codesOf(operation!, 401)).toEqual(['unauthenticated']);
    expect(reader.codesOf(operation!, 503)).toEqual(['overloaded', 'kms_unavailable']);
  });

  it('fails the recommended rules of Redocly when an example does not match its schema', async () => {
    const wrong = { params: { id: 'a' }, body: { at: 'soon' }, status: 200 };
    await using app = await appWith((one) => {
      one.post('/v1/things/:id', { config: describe({ ...thing, examples: { wrong } }) }, async () => 'x');
    });
    const reader = new OpenapiReader((await app.inject('/openapi.json')).json());
    expect(await reader.faults()).toEqual([expect.stringContaining('no-invalid-media-type-examples')]);
  });

  it('fails when an object with further members has a const, which generators of clients misread', async () => {
    const faultsWith = async (at: z.ZodType) => {
      await using app = await appWith((one) => {
        const answers = { 200: { description: 'It', schema: z.looseObject({ at }) } };
        const examples = { one: { params: { id: 'a' }, body: { at: '2026-01-01T00:00:00Z' }, status: 200 } };
        one.post('/v1/things/:id', { config: describe({ ...thing, answers, examples }) }, async () => 'x');
      });
      return new OpenapiReader((await app.inject('/openapi.json')).json()).faults();
    };
    expect(await faultsWith(z.literal('here'))).toEqual([
      '#/components/schemas/ReadThingAnswer: at is a const beside additionalProperties; use an enum',
    ]);
    expect(await faultsWith(z.enum(['here']))).toEqual([]);
  });

  it('prevents the start of a service with an undescribed route, wherever it was registered', async () => {
    const app = await appWith((one) => void one.get('/v1/other', async () => 'x'));
    app.put('/v1/later', async () => 'x');
    await expect(app.ready()).rejects.toThrow('GET /v1/other, PUT /v1/later');
  });

  it.each<[string, Partial<RouteDescription>, string]>([
    ['no example', { examples: {} }, 'readThing has no example'],
    ['a tag that is not described', { tag: 'other' }, 'the tag other of readThing'],
    ['the name of another', { id: 'readOpenapi' }, 'two routes are called readOpenapi'],
  ])('prevents the start of a service that has a route with %s', async (_what, change, message) => {
    const app = await appWith(
      (one) => void one.get('/v1/things/:id', { config: describe({ ...thing, ...change }) }, async () => 'x'),
    );
    await expect(app.ready()).rejects.toThrow(message);
  });

  it('does not make Fastify validate or change anything', async () => {
    await using app = await appWith((one) => {
      one.post('/v1/things/:id', { config: describe(thing) }, async (request) => ({
        isBytes: Buffer.isBuffer(request.body),
        id: (request.params as { id: string }).id,
        more: 1,
      }));
    });
    const answer = await app.inject({
      method: 'POST',
      url: '/v1/things/NOT-AS-DESCRIBED?other=1',
      headers: { 'content-type': 'application/json' },
      payload: '[]',
    });
    expect(answer.json()).toEqual({ isBytes: true, id: 'NOT-AS-DESCRIBED', more: 1 });
  });

  it('has an entity tag, and is not sent again to clients that have it', async () => {
    await using app = await appWith(documented);
    const { etag } = (await app.inject('/openapi.json')).headers;
    const again = await app.inject({ url: '/openapi.json', headers: { 'if-none-match': String(etag) } });
    expect([again.statusCode, again.body]).toEqual([304, '']);
  });
});

group('/docs', () => {
  it('is served by this process alone, and its policy allows nothing inline or from other origins', async () => {
    await using app = await appWith(documented);
    const page = await app.inject('/docs/');
    expect(page.statusCode).toBe(200);
    const links = [...page.body.matchAll(/(?:src|href)="([^"]+)"/g)].map(([, link]) => String(link));
    expect(links.length).toBeGreaterThan(5);
    for (const link of links) {
      expect(link).toMatch(/^\.\/static\//);
      const file = await app.inject(`/docs/${link}`);
      expect([link, file.statusCode, file.headers['x-content-type-options']]).toEqual([link, 200, 'nosniff']);
      expect(file.headers['content-security-policy']).toBe(page.headers['content-security-policy']);
    }
    expect(page.body).not.toMatch(/<style|style=|<script(?![^>]*src=)|\son\w+=/);
    const csp = String(page.headers['content-security-policy']);
    expect(csp).toContain("default-src 'none'");
    expect(csp).toContain("frame-ancestors 'none'");
    expect(csp).not.toMatch(/unsafe|https?:|\*/);
    const initializer = (await app.inject('/docs/static/swagger-initializer.js')).body;
    expect(initializer).toContain('validatorUrl: null');
    expect(initializer).not.toMatch(/https?:\/\/(?!stackoverflow)/);
  });

  it('has the look of the console of its service, whose rules win against those of Swagger UI', async () => {
    await using app = await appWith(documented);
    const page = (await app.inject('/docs/')).body;
    expect(page).toContain('<html lang="en" data-service="bunkms">');
    expect(page).toContain('name="viewport"');
    const sheets = [...page.matchAll(/rel="stylesheet"[^>]*href="\.([^"]+)"/g)].map(([, path]) => path);
    expect(sheets).toEqual(['/static/theme/reference.css']);
    const css = (await app.inject(`/docs${sheets[0]}`)).body;
    expect(css).toBe('@import url("../swagger-ui.css") layer(swagger-ui);\nbody { color: green }');
    expect((await app.inject('/docs/static/swagger-ui.css')).statusCode).toBe(200);
    const icon = await app.inject('/docs/static/theme/icon.svg');
    expect([icon.body, icon.headers['content-type']]).toEqual(['<svg/>', 'image/svg+xml']);
  });

  it('shows the same document', async () => {
    await using app = await appWith(documented);
    expect((await app.inject('/docs/json')).json()).toEqual((await app.inject('/openapi.json')).json());
  });

  it.each(['/docs/static/none.js', '/docs/static/..%2f..%2fpackage.json', '/docs/none'])(
    'answers %s with a problem document',
    async (url) => {
      await using app = await appWith(documented);
      const answer = await app.inject(url);
      expect([answer.statusCode, answer.json().code]).toEqual([404, 'not_found']);
    },
  );

  it('does not exist unless it is enabled', async () => {
    await using app = await appWith(documented, { page: false });
    expect((await app.inject('/docs')).statusCode).toBe(404);
    expect((await app.inject('/openapi.json')).statusCode).toBe(200);
  });
});

group('the limits of the documentation', () => {
  it('refuse requests that come too fast, until the next second', async () => {
    const clock = new FakeClock();
    await using app = await appWith(documented, { clock });
    for (let count = 0; count < DOCS_PER_WINDOW_MAX; count++)
      expect((await app.inject('/openapi.json')).statusCode).toBe(200);
    const refused = await app.inject('/docs/');
    expect([refused.statusCode, refused.json().code, refused.headers['retry-after']]).toEqual([
      429,
      'rate_limited',
      '1',
    ]);
    const other = await app.inject({
      method: 'POST',
      url: '/v1/things/a',
      headers: { 'content-type': 'application/json' },
      payload: '{}',
    });
    expect(other.statusCode).toBe(200);
    clock.advance(1_000);
    expect((await app.inject('/openapi.json')).statusCode).toBe(200);
  });

  it('refuse requests beyond the maximum of concurrent answers, and admit others once those are received', async () => {
    let release = () => {};
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    await using app = await appWith((one) => {
      documented(one);
      one.addHook('onSend', async (request) => {
        if (request.headers['x-held'] === '1') await held;
      });
    });
    const waiting = Array.from({ length: DOCS_CONCURRENT_MAX }, () =>
      app.inject({ url: '/openapi.json', headers: { 'x-held': '1' } }),
    );
    await app.inject({ method: 'POST', url: '/v1/things/a' });
    const refused = await app.inject('/openapi.json');
    expect([refused.statusCode, refused.json().code]).toEqual([503, 'overloaded']);
    release();
    for (const answer of await Promise.all(waiting)) expect(answer.statusCode).toBe(200);
    expect((await app.inject('/openapi.json')).statusCode).toBe(200);
  });
});

group('an undocumented refusal', () => {
  it('is found by the document reader of the tests', async () => {
    await using app = await appWith((one) => {
      one.post('/v1/things/:id', { config: describe({ ...thing, access: PUBLIC }) }, async () => {
        throw new AppError('key_destroyed');
      });
    });
    const reader = new OpenapiReader((await app.inject('/openapi.json')).json());
    const answer = await app.inject({ method: 'POST', url: '/v1/things/a' });
    const seen = { status: answer.statusCode, headers: answer.headers, text: answer.body };
    expect(reader.faultOf(reader.operations[0]!, seen)).toContain('status 410 is not documented');
    const other = { ...seen, status: 404, text: answer.body.replace('410', '404') };
    expect(reader.faultOf(reader.operations[0]!, other)).toContain('not as documented');
  });
});
