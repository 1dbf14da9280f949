import { AppError } from '@bundoc/shared/contract/app-error';
import type { Claims } from '@bundoc/shared/contract/tokens';
import { claimsOf, type Guard } from '@bundoc/shared/http/guard';
import { validate } from '@bundoc/shared/http/validate';
import { parseJsonObject } from '@bundoc/shared/json/parse';
import { describe, type RouteDescription } from '@bundoc/shared/openapi/description';
import type { FastifyContextConfig, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';
import type { Caller } from '../records/caller.ts';
import { callerOf, subjectOf } from './guard.ts';
import { noQuery } from './query.ts';
import type { ServiceGate, Services } from './services.ts';

/** A request whose body, if any, is the client's bytes. */
interface BodyRoute {
  Body: Buffer | undefined;
}

/** The description of a route whose body, if any, is JSON. */
export interface JsonRoute extends RouteDescription {
  readonly body?: {
    readonly content: { readonly 'application/json': z.ZodType };
    readonly optional?: boolean;
  };
}

type Body<D> = D extends { readonly body: { readonly content: { 'application/json': infer S } } } ? S : never;
type Part<S> = S extends z.ZodType ? z.output<S> : Readonly<Record<string, never>>;

/** A request that has passed its guard, with its parts as the schemas of the description have read them. */
export interface Asked<D extends JsonRoute> {
  readonly params: Part<D['params']>;
  readonly query: Part<D['query']>;
  readonly body: Part<Body<D>>;
  readonly services: Services;
  readonly claims: Claims;
  /** The caller for audit records. */
  readonly caller: Caller;
  /** The subject of its share: the root of the token. */
  readonly subject: string;
  readonly request: FastifyRequest;
  readonly reply: FastifyReply;
}

/**
 * Adds a route. It validates with the schemas of its description, and takes no query or body without one. The
 * answer has the first status of the description unless `answer` sets another.
 */
export type AddRoute = <D extends JsonRoute>(
  place: `${'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'} /v1/${string}`,
  guard: Guard,
  description: D,
  answer: (asked: Asked<D>) => unknown,
  config?: FastifyContextConfig,
) => void;

export function routesOf(app: FastifyInstance, services: ServiceGate): AddRoute {
  return (place, onRequest, description, answer, config = {}) => {
    const [method = '', url = ''] = place.split(' ');
    const { params = z.object({}), query = noQuery } = description;
    const [status] = Object.keys(description.answers).map(Number);
    app.route<BodyRoute>({
      method,
      url,
      onRequest,
      config: { ...config, ...describe(description) },
      handler: async (request, reply) => {
        const asked = {
          query: validate(query, request.query, 'query'),
          params: validate(params, request.params, 'params'),
          body: bodyOf(description, request),
          services: services(),
          claims: claimsOf(request),
          caller: callerOf(request),
          subject: subjectOf(request),
          request,
          reply,
        };
        reply.code(status ?? 200);
        return answer(asked as Asked<typeof description>);
      },
    });
  };
}

function bodyOf({ body }: JsonRoute, request: FastifyRequest<BodyRoute>): unknown {
  const isEmpty = (request.body?.length ?? 0) === 0;
  if (body === undefined) {
    if (isEmpty) return undefined;
    throw new AppError('invalid_request', { detail: 'this request takes no body' });
  }
  const isAbsent = body.optional === true && isEmpty;
  return validate(
    body.content['application/json'],
    isAbsent ? {} : parseJsonObject(request.body).value,
    'body',
  );
}
