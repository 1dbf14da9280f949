import { defined } from '@bundoc/shared/contract/defined';
import { verifySlice } from '../audit/verify-slice.ts';
import { cursorOf } from '../store/page.ts';
import { HEAD, LISTING, VERIFICATION } from './audit.openapi.ts';
import type { Guards } from './guard.ts';
import { OF_ONE, OF_PAGE } from './places.ts';
import type { AddRoute } from './route.ts';

export function registerAuditRoutes(add: AddRoute, guards: Guards): void {
  const guard = guards.scope('kms:audit');

  add(
    'GET /v1/audit',
    guard,
    LISTING,
    async ({ query: { cursor, ...filter }, services: { store, limits }, subject }) => {
      limits.takeRead(subject, filter.limit);
      const page = await store.listAudit({ ...filter, after: cursor });
      const next = cursorOf(page, ({ seq }) => seq);
      return { records: page.items, ...defined({ next_cursor: next?.toString() }) };
    },
    OF_PAGE,
  );

  add(
    'GET /v1/audit/head',
    guard,
    HEAD,
    ({ services: { store, limits }, subject }) => {
      limits.takeRead(subject);
      return store.auditHead();
    },
    OF_ONE,
  );

  add(
    'POST /v1/audit/verify',
    guard,
    VERIFICATION,
    ({ body, services: { keys } }) => verifySlice(keys, body),
    OF_ONE,
  );
}
