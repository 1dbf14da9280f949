import {
  issuedTokenSchema,
  issueTokenSchema,
  type TokenInfo,
  tokenPageSchema,
} from '@bundoc/shared/contract/tokens';
import { reserveAnswer } from '@bundoc/shared/http/held-bytes';
import { validate } from '@bundoc/shared/http/validate';
import { parseJsonObject } from '@bundoc/shared/json/parse';
import { describe, jsonBody } from '@bundoc/shared/openapi/description';
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import { callerOf, claimsOf, familyOf, type Guards } from '../http/guard.ts';
import { noQuery, pageQuery } from '../http/query.ts';
import type { ServiceGate } from '../services.ts';
import { type BodyRoute, refuseBody } from './key-requests.ts';

const jtiParamsSchema = z.object({ jti: z.uuid() });
const listQuery = z.strictObject(pageQuery(z.uuid()));
/** A token, and what it grants: 100 keys and 100 projects of 128 characters, in the token and beside it. */
const ISSUED_BYTES_MAX = 98_304;
const ADMIN = { kind: 'token', scopes: ['kms:admin'] } as const;

export function registerTokenRoutes(app: FastifyInstance, guards: Guards, services: ServiceGate): void {
  const issue = describe({
    id: 'issueToken',
    tag: 'tokens',
    summary: 'Issue a token',
    description:
      'It is for the service that its scopes belong to. The answer is the only time that it is shown.',
    access: ADMIN,
    body: jsonBody(issueTokenSchema),
    answers: { 201: { description: 'Issued', schema: issuedTokenSchema } },
    refusals: ['disk_full'],
    examples: {
      forAnApp: {
        body: { sub: 'app', typ: 'client', scope: ['docs:read', 'docs:write'], projects: ['project-a'] },
        status: 201,
      },
      forAnAdministrator: {
        body: { sub: 'ops', typ: 'client', scope: ['kms:read_key'], keys: ['*'], ttl_s: 600 },
        status: 201,
      },
      forBoth: { body: { sub: 'app', typ: 'client', scope: ['docs:read', 'kms:audit'] }, status: 400 },
    },
  });
  app.post<BodyRoute>(
    '/v1/tokens',
    { onRequest: guards.scope('kms:admin'), config: issue },
    async (request, reply) => {
      validate(noQuery, request.query, 'query');
      const wanted = validate(issueTokenSchema, parseJsonObject(request.body).value, 'body');
      reserveAnswer(request, ISSUED_BYTES_MAX);
      return reply.code(201).send(await services().tokens.issue(wanted, callerOf(request)));
    },
  );

  const renewal = describe({
    id: 'renewToken',
    tag: 'tokens',
    summary: 'The same rights for another life',
    access: { kind: 'token', serviceOnly: true },
    answers: { 201: { description: 'Renewed', schema: issuedTokenSchema } },
    refusals: ['rate_limited', 'disk_full'],
    examples: { renew: { status: 201 } },
  });
  app.post<BodyRoute>(
    '/v1/tokens/renew',
    { onRequest: guards.token, config: renewal },
    async (request, reply) => {
      validate(noQuery, request.query, 'query');
      refuseBody(request);
      const { tokens, limits } = services();
      limits.takeRenewal(familyOf(request));
      reserveAnswer(request, ISSUED_BYTES_MAX);
      return reply.code(201).send(await tokens.renew(claimsOf(request), callerOf(request)));
    },
  );

  const listing = describe({
    id: 'listTokens',
    tag: 'tokens',
    summary: 'List what was issued; never the tokens themselves',
    access: ADMIN,
    query: listQuery,
    answers: { 200: { description: 'A page', schema: tokenPageSchema } },
    examples: { firstPage: { query: { limit: '20' }, status: 200 } },
  });
  app.get('/v1/tokens', { onRequest: guards.scope('kms:admin'), config: listing }, async (request) => {
    const { limit, cursor } = validate(listQuery, request.query, 'query');
    const { items, more } = await services().tokens.list({ limit, after: cursor });
    return { tokens: items, ...nextCursor(items, more) };
  });

  const revocation = describe({
    id: 'revokeToken',
    tag: 'tokens',
    summary: 'Revoke a token, and all that were renewed from the same one',
    access: ADMIN,
    params: jtiParamsSchema,
    answers: { 204: { description: 'Revoked' } },
    refusals: ['token_not_found', 'disk_full'],
    examples: { unknown: { params: { jti: '0b6f4a0e-6b0c-4b8e-9a53-3c1d2f7e8a90' }, status: 404 } },
  });
  app.delete(
    '/v1/tokens/:jti',
    { onRequest: guards.scope('kms:admin'), config: revocation },
    async (request, reply) => {
      validate(noQuery, request.query, 'query');
      const { jti } = validate(jtiParamsSchema, request.params, 'params');
      await services().tokens.revoke(jti, callerOf(request));
      return reply.code(204).send();
    },
  );
}

function nextCursor(tokens: readonly TokenInfo[], more: boolean): { next_cursor?: string } {
  const last = tokens.at(-1);
  return more && last !== undefined ? { next_cursor: last.jti } : {};
}
