import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { expect, describe as group, it } from 'vitest';
import { z } from 'zod';
import { AppError } from '../contract/app-error.ts';
import { createHttpServer, refuseOtherMethods } from '../http/server.ts';
import { createLogger } from '../logs/logger.ts';
import { describe, jsonBody, PUBLIC, type RouteAccess } from '../openapi/description.ts';
import { registerOpenapi } from '../openapi/routes.ts';
import { FakeClock } from './fake-clock.ts';
import { OpenapiReader } from './openapi.ts';
import { fuzz } from './openapi-fuzz.ts';

type Handler = (request: FastifyRequest, reply: FastifyReply) => Promise<unknown>;

/** The result of fuzzing one route, whose handler may be faulty. */
async function fuzzOf(handler: Handler, access: RouteAccess = PUBLIC): Promise<ReadonlyMap<number, number>> {
  const logger = createLogger({ service: 'bundoc', level: 'silent' });
  await using app = createHttpServer({ logger, bodyBytesMax: 100_000 });
  const config = describe({
    id: 'putThing',
    tag: 'service',
    summary: 'A thing',
    access,
    params: z.object({ id: z.string().regex(/^[a-z]{1,8}$/) }),
    body: jsonBody(z.strictObject({ n: z.int() })),
    answers: {
      200: { description: 'It', schema: z.object({ id: z.string() }), headers: { ETag: 'Its tag' } },
    },
    examples: { one: { params: { id: 'a' }, body: { n: 1 }, status: 200 } },
  });
  app.put('/v1/things/:id', { config }, handler);
  await registerOpenapi(app, {
    service: {
      title: 'Service',
      description: 'For tests.',
      schemas: {},
      tags: [{ name: 'service', description: 'All' }],
      refusals: { always: [], authenticated: [] },
    },
    clock: new FakeClock(),
    page: undefined,
  });
  refuseOtherMethods(app);
  const reader = new OpenapiReader((await app.inject('/openapi.json')).json());
  await app.listen({ host: '127.0.0.1', port: 0 });
  const { port } = app.server.address() as AddressInfo;
  return await fuzz({
    reader,
    origin: `http://127.0.0.1:${port}`,
    tokens: { good: undefined, none: undefined, foreign: undefined, garbage: undefined },
    runs: 60,
    msMax: 30_000,
    seed: 7,
    endless: ['readOpenapi'],
    prepare: (request) => request,
  });
}

const good: Handler = async (request, reply) => {
  reply.header('etag', '"1"');
  return { id: (request.params as { id: string }).id };
};

/** Answers whatever the request is. Fastify itself refuses only other content types. */
const acceptAll: Handler = async (_request, reply) => {
  reply.header('etag', '"1"');
  return { id: 'a' };
};

group('a fuzz test from an OpenAPI document', () => {
  it('passes a service that matches its document', async () => {
    const statuses = await fuzzOf(good);
    expect(statuses.get(200)).toBeGreaterThan(10);
    expect(statuses.get(415)).toBeGreaterThan(0);
  });

  it.each<[string, Handler, RegExp]>([
    [
      'fails on what no schema allows',
      async (request, reply) => {
        if (/[^a-z]/.test((request.params as { id: string }).id)) throw new Error('a defect');
        return good(request, reply);
      },
      /putThing, FUZZ_SEED=7: [\s\S]*500/,
    ],
    [
      'fails on a body that is no JSON',
      async (request, reply) => {
        JSON.parse(String(request.body));
        return good(request, reply);
      },
      /500/,
    ],
    [
      'refuses with a code that is not documented',
      async () => {
        throw new AppError('key_destroyed');
      },
      /410 is not documented/,
    ],
    [
      'answers with another body than documented',
      async (_, reply) => reply.header('etag', '"1"').send({ id: 1 }),
      /not as documented/,
    ],
    [
      'answers with a member that is not documented',
      async (request, reply) => ({ ...((await good(request, reply)) as object), secret: 1 }),
      /200 is not as documented: .*must NOT have additional properties/,
    ],
    ['leaves out a documented header', async () => ({ id: 'a' }), /200 has no ETag/],
    [
      'answers with a header of another form',
      async (request, reply) => {
        const body = await good(request, reply);
        reply.header('etag', 'W/1');
        return body;
      },
      /200 has another form of ETag: W\/1/,
    ],
    [
      'answers with a header that is not documented',
      async (request, reply) => {
        reply.header('location', '/v1/things/a');
        return good(request, reply);
      },
      /200 has Location, which is not documented/,
    ],
    [
      'answers with another type than documented',
      async (_, reply) => reply.header('etag', '"1"').type('text/plain').send('x'),
      /text\/plain/,
    ],
  ])('finds a service that %s', async (_what, handler, message) => {
    await expect(fuzzOf(handler)).rejects.toThrow(message);
  });

  it('finds an operation that is never served, and one that is served without the token that it needs', async () => {
    const refuse = async () => {
      throw new AppError('invalid_request');
    };
    await expect(fuzzOf(refuse)).rejects.toThrow('putThing, FUZZ_SEED=7: never served: 400');
    await expect(fuzzOf(acceptAll, { kind: 'token' })).rejects.toThrow('served without a token');
  });

  it('does not wait for the end of an event stream', async () => {
    const begun: Promise<unknown>[] = [];
    await expect(
      fuzzOf(async (_request, reply) => {
        reply.hijack();
        reply.raw.writeHead(200, { 'content-type': 'text/event-stream', etag: '"1"' });
        reply.raw.write(': never more\n\n');
        begun.push(once(reply.raw, 'close'));
        return reply;
      }),
    ).rejects.toThrow('text/event-stream, which is not documented');
    await Promise.all(begun);
  });
});
