import { verifyAuditSchema } from '@bundoc/shared/contract/audit';
import { defined } from '@bundoc/shared/contract/defined';
import { validate } from '@bundoc/shared/http/validate';
import { parseJsonObject } from '@bundoc/shared/json/parse';
import type { FastifyInstance } from 'fastify';
import { verifySlice } from '../audit/verify-slice.ts';
import { cursorOf } from '../store/page.ts';
import { HEAD, LISTING, listQuery, VERIFICATION } from './audit.openapi.ts';
import { type Guards, subjectOf } from './guard.ts';
import type { BodyRoute } from './key-requests.ts';
import { OF_ONE, OF_PAGE } from './places.ts';
import { noQuery } from './query.ts';
import type { ServiceGate } from './services.ts';

export function registerAuditRoutes(app: FastifyInstance, guards: Guards, services: ServiceGate): void {
  app.get(
    '/v1/audit',
    { onRequest: guards.scope('kms:audit'), config: { ...OF_PAGE, ...LISTING } },
    async (request) => {
      const { cursor, ...filter } = validate(listQuery, request.query, 'query');
      const { store, limits } = services();
      limits.takeRead(subjectOf(request), filter.limit);
      const page = await store.listAudit({ ...filter, after: cursor });
      const next = cursorOf(page, ({ seq }) => seq);
      return { records: page.items, ...defined({ next_cursor: next?.toString() }) };
    },
  );

  app.get(
    '/v1/audit/head',
    { onRequest: guards.scope('kms:audit'), config: { ...OF_ONE, ...HEAD } },
    async (request) => {
      validate(noQuery, request.query, 'query');
      const { store, limits } = services();
      limits.takeRead(subjectOf(request));
      return store.auditHead();
    },
  );

  app.post<BodyRoute>(
    '/v1/audit/verify',
    { onRequest: guards.scope('kms:audit'), config: { ...OF_ONE, ...VERIFICATION } },
    async (request) => {
      validate(noQuery, request.query, 'query');
      const wanted = validate(verifyAuditSchema, parseJsonObject(request.body).value, 'body');
      const { keys } = services();
      return verifySlice(keys, wanted);
    },
  );
}
