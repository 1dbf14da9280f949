import { z } from 'zod';

/** Key names: what a key is called in paths, globs and audit records. */
export const keyNameSchema = z
  .string()
  .regex(
    /^[a-z0-9][a-z0-9._-]{0,127}$/,
    'must be 1 to 128 of a-z 0-9 . _ -, starting with a letter or digit',
  );

export const keyTypeSchema = z.literal('aes-256', 'only "aes-256" keys exist');

export const createKeySchema = z.strictObject({ name: keyNameSchema, type: keyTypeSchema });
export type CreateKey = z.infer<typeof createKeySchema>;

/** The most versions that one key may have. */
export const KEY_VERSIONS_MAX = 1_000;

/** A version number in a query, as text: the decimal number and nothing else. */
export const keyVersionParamSchema = z
  .string()
  .regex(/^[1-9]\d{0,3}$/, `must be a whole number from 1 to ${KEY_VERSIONS_MAX}`)
  .transform(Number)
  .pipe(z.number().max(KEY_VERSIONS_MAX, `must be a whole number from 1 to ${KEY_VERSIONS_MAX}`));

export const keyStateSchema = z.enum(['enabled', 'disabled', 'pending_deletion', 'destroyed']);

/**
 * What may be told about a key to whoever may read it. Holds no key material, wrapped or not. `version` and `kcv` are
 * those of the current version, `created_at` is when the key was made.
 */
export const keyInfoSchema = z.object({
  id: z.uuid(),
  name: keyNameSchema,
  type: keyTypeSchema,
  state: keyStateSchema,
  version: z.int().positive(),
  kcv: z.string(),
  created_at: z.iso.datetime(),
});
export type KeyInfo = z.infer<typeof keyInfoSchema>;

/** One version of a key. The current one is that of the highest number; older ones stay until they are destroyed. */
export const keyVersionSchema = z.object({
  version: z.int().positive(),
  kcv: z.string(),
  created_at: z.iso.datetime(),
});
export type KeyVersion = z.infer<typeof keyVersionSchema>;

/** The answer of `GET /v1/keys/{name}`: the key with its versions in ascending order. */
export const keyDetailSchema = z.object({ ...keyInfoSchema.shape, versions: z.array(keyVersionSchema) });
export type KeyDetail = z.infer<typeof keyDetailSchema>;

export const keyPageSchema = z.object({ keys: z.array(keyInfoSchema), next_cursor: z.string().optional() });
export type KeyPage = z.infer<typeof keyPageSchema>;

/** Where in the audit chain a record lies. Whoever keeps it can prove later that the chain was not cut before it. */
export const auditReceiptSchema = z.object({ seq: z.int().positive(), hash: z.string() });
export type AuditReceipt = z.infer<typeof auditReceiptSchema>;

/** The answer of `GET /v1/export/{name}[?version=n]`: the raw DEK and what its holder must know of it. */
export const exportedKeySchema = z.object({
  key_material_b64: z.string().length(44),
  algorithm: z.literal('AES-256-GCM'),
  name: keyNameSchema,
  key_id: z.uuid(),
  version: z.int().positive(),
  kcv: z.string().regex(/^[0-9a-f]{32}$/),
  wrapped_b64: z.string(),
  lease: z.object({ id: z.string(), ttl_ms: z.int().positive() }),
  audit: auditReceiptSchema,
});
export type ExportedKey = z.infer<typeof exportedKeySchema>;

/**
 * Who may hold the raw key, and until when. `id` is the place of the release in the audit chain, as `lease.id` of the export
 * answer told it. Times are those of BunKMS's wall clock; the holder counts `ttl_ms` by its own, from before it asked.
 */
export const keyLeaseSchema = z.object({
  id: z.string(),
  version: z.int().positive(),
  /** The `sub` and `jti` of the token that the key was released to, and the address it asked from. */
  subject: z.string(),
  jti: z.string(),
  source: z.string(),
  issued_at: z.iso.datetime(),
  until: z.iso.datetime(),
});
export type KeyLease = z.infer<typeof keyLeaseSchema>;

/** The answer of `GET /v1/keys/{name}/leases`, newest first. A page may hold fewer than `limit` and still have a `next_cursor`. */
export const leasePageSchema = z.object({
  leases: z.array(keyLeaseSchema),
  next_cursor: z.string().optional(),
});
export type LeasePage = z.infer<typeof leasePageSchema>;

/** The longest that a holder may keep an exported key, milliseconds. */
export const LEASE_TTL_MS = 900_000;

const DEK_SUFFIX = '-dek';

/** The name of a project's data encryption key in BunKMS. */
export function dekNameOf(projectId: string): string {
  return `${projectId}${DEK_SUFFIX}`;
}

/** The project whose key has this name; undefined when it is the name of no such key. */
export function projectOfDek(name: string): string | undefined {
  return name.endsWith(DEK_SUFFIX) ? name.slice(0, -DEK_SUFFIX.length) : undefined;
}
