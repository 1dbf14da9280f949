import { z } from 'zod';

export const auditSeveritySchema = z.enum(['INFO', 'CRITICAL']);
const auditOutcomeSchema = z.enum(['allowed', 'refused', 'failed']);

/** One record of the audit chain, as `GET /v1/audit` gives it. */
export const auditRecordSchema = z.object({
  seq: z.int().positive(),
  time: z.iso.datetime(),
  severity: auditSeveritySchema,
  action: z.string(),
  outcome: auditOutcomeSchema,
  /**
   * Who: the token's `sub`, `cli` for the command line, `system` for the service itself, absent when unknown.
   */
  actor: z.string().optional(),
  jti: z.string().optional(),
  key: z.string().optional(),
  version: z.int().optional(),
  /** From where: the peer's address, absent for the command line. */
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

/** Where the chain ends: a receipt of everything before. An empty one has `seq` 0. */
export const auditHeadSchema = z.object({ seq: z.int().nonnegative(), hash: z.string() });

export const auditPageSchema = z.object({
  records: z.array(auditRecordSchema),
  next_cursor: z.string().optional(),
});
