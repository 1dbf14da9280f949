import { EventStream } from '@bundoc/shared/http/event-stream';
import { answerByHand } from '@bundoc/shared/http/gate-door';
import { claimsOf } from '@bundoc/shared/http/guard';
import { validate } from '@bundoc/shared/http/validate';
import { describe } from '@bundoc/shared/openapi/description';
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import { draftNow } from '../records/draft-now.ts';
import { callerOf, familyOf, type Guards, subjectOf } from './guard.ts';
import { noQuery } from './query.ts';
import type { ServiceGate } from './services.ts';

/** Pushes events of keys and tokens to services. Registered on the internal listener only. */
export function registerEventsRoute(app: FastifyInstance, guards: Guards, services: ServiceGate): void {
  const open = new Set<EventStream>();
  app.addHook('preClose', async () => {
    for (const stream of open) stream.end();
  });

  const description = describe({
    id: 'streamEvents',
    tag: 'events',
    summary: 'Stream events of keys and tokens',
    description:
      'Server-sent events (docs/formats/events.md) of the keys that the token names. The answer does not end.',
    access: { kind: 'token', scopes: ['kms:export_key'], serviceOnly: true },
    headers: z.object({
      'last-event-id': z
        .string()
        .max(256)
        .optional()
        .describe('The last `id` that was received, to resume after it'),
    }),
    answers: { 200: { description: 'Events', schema: z.string(), contentType: 'text/event-stream' } },
    refusals: ['rate_limited', 'audit_unavailable'],
    examples: { follow: { status: 200 } },
  });
  app.get(
    '/v1/events',
    { onRequest: guards.service('kms:export_key'), config: description },
    async (request, reply) => {
      validate(noQuery, request.query, 'query');
      if (request.method === 'HEAD') return reply.type('text/event-stream').send();
      const { audit, events, keys, limits } = services();
      const claims = claimsOf(request);
      const caller = callerOf(request);
      using held = new DisposableStack();
      limits.take('stream', subjectOf(request));
      held.use(events.reserve(subjectOf(request)));
      await audit.append(draftNow(keys, caller, 'events.open'), { jti: caller.jti });
      const response = reply.raw;
      if (response.destroyed) return answerByHand(request, reply);

      answerByHand(request, reply);
      const stream = new EventStream(response);
      open.add(stream);
      const place = held.move();
      response.once('close', () => {
        open.delete(stream);
        place.dispose();
      });
      const lastEventId = request.headers['last-event-id'];
      events
        .subscribe({
          claims,
          family: familyOf(request),
          sink: stream,
          lastEventId: typeof lastEventId === 'string' ? lastEventId : undefined,
        })
        .catch((error: unknown) => {
          app.log.warn({ reqId: request.id, err: error }, 'failed to start an event stream');
          stream.end();
        });
      return reply;
    },
  );
}
