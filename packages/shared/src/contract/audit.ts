import { z } from 'zod';

export const auditSeveritySchema = z.enum(['INFO', 'CRITICAL']);
const auditOutcomeSchema = z.enum(['allowed', 'refused', 'failed']);

/** One record of the audit chain, as in `GET /v1/audit`. */
export const auditRecordSchema = z.object({
  seq: z.int().positive(),
  time: z.iso.datetime(),
  severity: auditSeveritySchema,
  action: z.string(),
  outcome: auditOutcomeSchema,
  /**
   * Who acted: the token's `sub`, `cli` for the command line, `system` for the service itself; absent when
   * unknown.
   */
  actor: z.string().optional(),
  jti: z.string().optional(),
  key: z.string().optional(),
  version: z.int().optional(),
  /** The peer's address; absent for the command line. */
  source: z.string().optional(),
  request_id: z.string().optional(),
  /** The refusal's code; absent when allowed. */
  code: z.string().optional(),
  /** Further facts of the action; never a secret, never a value of a document. */
  detail: z.record(z.string(), z.union([z.string(), z.number(), z.boolean()])).optional(),
  prev_hash: z.string(),
  hash: z.string(),
});
export type AuditRecord = z.infer<typeof auditRecordSchema>;

/** The end of the chain: a receipt for all records up to it. An empty chain has `seq` 0. */
export const auditHeadSchema = z.object({ seq: z.int().nonnegative(), hash: z.string() });

/** A place in the chain: a receipt for all records up to it. */
const placeSchema = z.strictObject({
  seq: z.int().nonnegative(),
  hash: z.string().regex(/^[0-9a-f]{64}$/, 'must be 64 hex digits'),
});
/** A place that the chain must contain. */
export const receiptSchema = placeSchema.refine(({ seq }) => seq > 0, {
  path: ['seq'],
  message: 'must be at least 1',
});
/** Maximum number of records that one request verifies. */
const VERIFY_RECORDS_MAX = 5_000;

/** The body of `POST /v1/audit/verify`. */
export const verifyAuditSchema = z.strictObject({
  /** Where to begin: the `head` of the previous answer. By default the beginning of the chain. */
  after: placeSchema.optional(),
  receipt: receiptSchema.optional(),
  limit: z.int().min(1).max(VERIFY_RECORDS_MAX).default(1_000),
});
export type VerifyAudit = z.infer<typeof verifyAuditSchema>;

/**
 * The answer of `POST /v1/audit/verify`: how far the chain is intact, or the first record that was changed.
 */
export const auditVerificationSchema = z.discriminatedUnion('intact', [
  z.object({
    intact: z.literal(true),
    checked: z.int().nonnegative(),
    /** The last record that was verified; `after` of the next request. */
    head: auditHeadSchema,
    /** Whether `head` is the end of the chain. */
    complete: z.boolean(),
  }),
  z.object({
    intact: z.literal(false),
    /** Records before the fault that were verified. */
    checked: z.int().nonnegative(),
    fault: z.object({
      seq: z.int(),
      reason: z.enum([
        'missing',
        'before the first record',
        'does not follow the record before it',
        'changed',
        'not the record of the receipt',
      ]),
    }),
  }),
]);
export type AuditVerification = z.infer<typeof auditVerificationSchema>;

export const auditPageSchema = z.object({
  records: z.array(auditRecordSchema),
  next_cursor: z.string().optional(),
});
