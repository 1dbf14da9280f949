import {
  auditHeadSchema,
  auditPageSchema,
  auditSeveritySchema,
  auditVerificationSchema,
  verifyAuditSchema,
} from '@bundoc/shared/contract/audit';
import { defined } from '@bundoc/shared/contract/defined';
import { keyNameSchema } from '@bundoc/shared/contract/keys';
import { subjectSchema } from '@bundoc/shared/contract/tokens';
import { validate } from '@bundoc/shared/http/validate';
import { parseJsonObject } from '@bundoc/shared/json/parse';
import { describe, jsonBody } from '@bundoc/shared/openapi/description';
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import { verifySlice } from '../audit/verify-slice.ts';
import { cursorOf } from '../store/page.ts';
import { type Guards, subjectOf } from './guard.ts';
import type { BodyRoute } from './key-requests.ts';
import { OF_ONE, OF_PAGE } from './places.ts';
import { noQuery, pageQuery, seqCursor } from './query.ts';
import type { ServiceGate } from './services.ts';

const hashedName = z.string().regex(/^sha256:[0-9a-f]{64}$/);
/** Stored times are UTC with milliseconds and are compared as text, so filters are converted to that form. */
const time = z.iso
  .datetime({ offset: true, error: 'must be a time such as 2026-11-25T03:00:00Z' })
  .transform((text) => new Date(text).toISOString());

const listQuery = z.strictObject({
  ...pageQuery(seqCursor),
  severity: auditSeveritySchema.optional(),
  key: z.union([keyNameSchema, hashedName], 'must be a key name or sha256:<hex>').optional(),
  actor: subjectSchema.optional(),
  from: time.optional(),
  to: time.optional(),
});

const ACCESS = { kind: 'token', scopes: ['kms:audit'] } as const;

export function registerAuditRoutes(app: FastifyInstance, guards: Guards, services: ServiceGate): void {
  const listing = describe({
    id: 'listAudit',
    tag: 'audit',
    summary: 'Records of the audit chain, oldest first',
    access: ACCESS,
    query: listQuery,
    answers: { 200: { description: 'A page', schema: auditPageSchema } },
    refusals: ['rate_limited'],
    examples: {
      critical: { query: { severity: 'CRITICAL', limit: '20' }, status: 200 },
      ofAKey: { query: { key: 'project-a-dek', from: '2026-01-01T00:00:00Z' }, status: 200 },
    },
  });
  app.get(
    '/v1/audit',
    { onRequest: guards.scope('kms:audit'), config: { ...OF_PAGE, ...listing } },
    async (request) => {
      const { cursor, ...filter } = validate(listQuery, request.query, 'query');
      const { store, limits } = services();
      limits.takeRead(subjectOf(request), filter.limit);
      const page = await store.listAudit({ ...filter, after: cursor });
      const next = cursorOf(page, ({ seq }) => seq);
      return { records: page.items, ...defined({ next_cursor: next?.toString() }) };
    },
  );

  const head = describe({
    id: 'readAuditHead',
    tag: 'audit',
    summary: 'A receipt of the whole chain',
    description:
      'Keep it elsewhere: `bunkms audit verify --receipt seq:hash` shows that nothing before it is gone.',
    access: ACCESS,
    answers: { 200: { description: 'The end of the chain', schema: auditHeadSchema } },
    refusals: ['rate_limited'],
    examples: { read: { status: 200 } },
  });
  app.get(
    '/v1/audit/head',
    { onRequest: guards.scope('kms:audit'), config: { ...OF_ONE, ...head } },
    async (request) => {
      validate(noQuery, request.query, 'query');
      const { store, limits } = services();
      limits.takeRead(subjectOf(request));
      return store.auditHead();
    },
  );

  const verification = describe({
    id: 'verifyAudit',
    tag: 'audit',
    summary: 'Verify the audit chain, one slice per request',
    description:
      'Continue with `head` as `after` until `complete` is true. With a `receipt`, the chain must contain that record. Keys and tokens are not compared with the chain: `bunkms audit verify` does that.',
    access: ACCESS,
    body: jsonBody(verifyAuditSchema),
    answers: { 200: { description: 'The result', schema: auditVerificationSchema } },
    refusals: ['rate_limited'],
    examples: {
      fromTheBeginning: { body: { limit: 100 }, status: 200 },
      badReceipt: { body: { receipt: { seq: 1, hash: 'made-up' } }, status: 400 },
    },
  });
  app.post<BodyRoute>(
    '/v1/audit/verify',
    { onRequest: guards.scope('kms:audit'), config: { ...OF_ONE, ...verification } },
    async (request) => {
      validate(noQuery, request.query, 'query');
      const wanted = validate(verifyAuditSchema, parseJsonObject(request.body).value, 'body');
      const { keys } = services();
      return verifySlice(keys, wanted);
    },
  );
}
