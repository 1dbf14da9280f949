import { auditSeveritySchema } from '@bundoc/shared/contract/audit';
import { keyNameSchema } from '@bundoc/shared/contract/keys';
import { subjectSchema } from '@bundoc/shared/contract/tokens';
import { validate } from '@bundoc/shared/http/validate';
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import type { Guards } from '../http/guard.ts';
import { noQuery, pageQuery, seqCursor } from '../http/query.ts';
import type { ServiceGate } from '../services.ts';
import { cursorOf } from '../store/port.ts';

const hashedName = z.string().regex(/^sha256:[0-9a-f]{64}$/);
/** Stored times are UTC with milliseconds and are compared as text, so a filter is brought to that form. */
const time = z.iso.datetime({ offset: true }).transform((text) => new Date(text).toISOString());

const listQuery = z.strictObject({
  ...pageQuery(seqCursor),
  severity: auditSeveritySchema.optional(),
  key: z.union([keyNameSchema, hashedName], 'must be a key name or sha256:<hex>').optional(),
  actor: subjectSchema.optional(),
  from: time.optional(),
  to: time.optional(),
});

export function registerAuditRoutes(app: FastifyInstance, guards: Guards, services: ServiceGate): void {
  app.get('/v1/audit', { onRequest: guards.scope('kms:audit') }, async (request) => {
    const { cursor, ...filter } = validate(listQuery, request.query, 'query');
    const page = await services().store.listAudit({ ...filter, after: cursor });
    const next = cursorOf(page, ({ seq }) => seq);
    return { records: page.items, ...(next === undefined ? {} : { next_cursor: String(next) }) };
  });

  app.get('/v1/audit/head', { onRequest: guards.scope('kms:audit') }, async (request) => {
    validate(noQuery, request.query, 'query');
    return services().store.auditHead();
  });
}
