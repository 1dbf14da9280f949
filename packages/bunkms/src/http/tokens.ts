import { defined } from '@bundoc/shared/contract/defined';
import { issueTokenSchema } from '@bundoc/shared/contract/tokens';
import { claimsOf } from '@bundoc/shared/http/guard';
import { validate } from '@bundoc/shared/http/validate';
import { parseJsonObject } from '@bundoc/shared/json/parse';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { noQuery } from '../http/query.ts';
import { reachesAll } from '../tokens/may-issue.ts';
import { callerOf, familyOf, type Guards, subjectOf } from './guard.ts';
import { type BodyRoute, refuseBody } from './key-requests.ts';
import { OF_PAGE } from './places.ts';
import type { ServiceGate } from './services.ts';
import {
  ISSUE,
  ISSUERS,
  jtiParamsSchema,
  LISTING,
  listQuery,
  RENEWAL,
  REVOCATION,
  revokeQuery,
} from './tokens.openapi.ts';

export function registerTokenRoutes(app: FastifyInstance, guards: Guards, services: ServiceGate): void {
  registerIssuing(app, guards, services);
  registerRenewal(app, guards, services);
  registerListing(app, guards, services);
  registerRevocation(app, guards, services);
}

function registerIssuing(app: FastifyInstance, guards: Guards, services: ServiceGate): void {
  app.post<BodyRoute>(
    '/v1/tokens',
    { onRequest: guards.serviceWithAny(ISSUERS), config: ISSUE },
    async (request, reply) => {
      validate(noQuery, request.query, 'query');
      services().limits.takeIssue(subjectOf(request));
      const wanted = validate(issueTokenSchema, parseJsonObject(request.body).value, 'body');
      return reply
        .code(201)
        .send(await services().tokens.issue(wanted, callerOf(request), claimsOf(request)));
    },
  );
}

function registerRenewal(app: FastifyInstance, guards: Guards, services: ServiceGate): void {
  app.post<BodyRoute>(
    '/v1/tokens/renew',
    { onRequest: guards.token, config: RENEWAL },
    async (request, reply) => {
      validate(noQuery, request.query, 'query');
      refuseBody(request);
      const { tokens, limits } = services();
      limits.takeRenewal(subjectOf(request));
      return reply.code(201).send(await tokens.renew(claimsOf(request), callerOf(request)));
    },
  );
}

function registerListing(app: FastifyInstance, guards: Guards, services: ServiceGate): void {
  app.get(
    '/v1/tokens',
    { onRequest: guards.service('kms:admin'), config: { ...OF_PAGE, ...LISTING } },
    async (request) => {
      const { limit, cursor } = validate(listQuery, request.query, 'query');
      const { tokens: issued, limits } = services();
      limits.takeRead(subjectOf(request), limit);
      const { tokens, damaged, next } = await issued.list({ limit, after: cursor }, limitOf(request));
      return {
        tokens,
        ...(damaged.length === 0 ? {} : { damaged }),
        ...defined({ next_cursor: next }),
      };
    },
  );
}

function registerRevocation(app: FastifyInstance, guards: Guards, services: ServiceGate): void {
  app.delete(
    '/v1/tokens/:jti',
    { onRequest: guards.service('kms:admin'), config: REVOCATION },
    async (request, reply) => {
      const { cascade } = validate(revokeQuery, request.query, 'query');
      const { jti } = validate(jtiParamsSchema, request.params, 'params');
      const options = { cascade: cascade === 'true', within: limitOf(request) };
      await services().tokens.revoke(jti, callerOf(request), options);
      return reply.code(204).send();
    },
  );
}

/** The family whose issued tokens are all that the caller reaches; undefined when it reaches every token. */
function limitOf(request: FastifyRequest): string | undefined {
  return reachesAll(claimsOf(request)) ? undefined : familyOf(request);
}
