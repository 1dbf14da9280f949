import {
  auditHeadSchema,
  auditPageSchema,
  auditSeveritySchema,
  auditVerificationSchema,
  verifyAuditSchema,
} from '@bundoc/shared/contract/audit';
import { keyNameSchema } from '@bundoc/shared/contract/keys';
import { subjectSchema } from '@bundoc/shared/contract/tokens';
import { jsonBody } from '@bundoc/shared/openapi/description';
import { z } from 'zod';
import { pageQuery, seqCursor } from './query.ts';
import type { JsonRoute } from './route.ts';

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

export const LISTING = {
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
} satisfies JsonRoute;

export const HEAD = {
  id: 'readAuditHead',
  tag: 'audit',
  summary: 'A receipt of the whole chain',
  description:
    'Keep it elsewhere: `bunkms audit verify --receipt seq:hash` shows that no record before it is missing.',
  access: ACCESS,
  answers: { 200: { description: 'The end of the chain', schema: auditHeadSchema } },
  refusals: ['rate_limited'],
  examples: { read: { status: 200 } },
} satisfies JsonRoute;

export const VERIFICATION = {
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
} satisfies JsonRoute;
