import { z } from 'zod';

/** Key names: what a key is called in paths, globs and audit records. */
export const keyNameSchema = z
  .string()
  .regex(
    /^[a-z0-9][a-z0-9._-]{0,127}$/,
    'must be 1 to 128 of a-z 0-9 . _ -, starting with a letter or digit',
  );

export const keyTypeSchema = z.literal('aes-256', {
  error: ({ input }) => `${input === undefined ? 'is required: ' : ''}only "aes-256" keys exist`,
});

/** The longest that a key may go without a new version when it has a rotation policy, days. */
export const ROTATE_AFTER_DAYS_MAX = 3_650;

/** After how many days without a rotation BunKMS rotates the key automatically; null for never. */
export const rotateAfterDaysSchema = z.int().min(1).max(ROTATE_AFTER_DAYS_MAX).nullable();

/** The body of `POST /v1/keys`. */
export const createKeySchema = z
  .strictObject({
    name: keyNameSchema,
    type: keyTypeSchema,
    /** Whether the raw key may leave the service. It may change from true to false, but never back. */
    exportable: z.boolean().default(true),
    rotate_after_days: rotateAfterDaysSchema.default(null),
    /** The storage of Bundoc that holds the key; none by default. */
    storage: z.uuid().optional(),
    /** The present generation of the storage. An administrator's request has none. */
    generation: z.uuid().optional(),
  })
  .refine(({ storage, generation }) => storage !== undefined || generation === undefined, {
    path: ['generation'],
    message: 'needs storage: the generation is that of a storage',
  });
export type CreateKey = z.infer<typeof createKeySchema>;
export type CreateKeyInput = z.input<typeof createKeySchema>;

/** The body of `PATCH /v1/keys/{name}`: what is absent stays as it is. */
export const updateKeySchema = z
  .strictObject({ exportable: z.boolean().optional(), rotate_after_days: rotateAfterDaysSchema.optional() })
  .refine(
    (update) => update.exportable !== undefined || update.rotate_after_days !== undefined,
    'must have exportable or rotate_after_days',
  );
export type UpdateKey = z.infer<typeof updateKeySchema>;

/** How long a key that is pending deletion can be restored, days. */
export const PENDING_DAYS = { min: 7, max: 30, default: 7 } as const;

/** How long an `Idempotency-Key` is remembered, milliseconds. */
export const IDEMPOTENCY_MS = 86_400_000;

/** The most versions that one key may have. */
export const KEY_VERSIONS_MAX = 1_000;

/** A version number in a query, as text: the decimal number and nothing else. */
export const keyVersionParamSchema = z
  .string()
  .regex(/^[1-9]\d{0,3}$/, `must be a whole number from 1 to ${KEY_VERSIONS_MAX}`)
  .transform(Number)
  .pipe(z.number().max(KEY_VERSIONS_MAX, `must be a whole number from 1 to ${KEY_VERSIONS_MAX}`))
  .meta({ type: 'integer', minimum: 1, maximum: KEY_VERSIONS_MAX });

/**
 * The holder of a key that was restored from a backup without later knowledge. An administrator must name the
 * holder.
 */
export const HOLDER_UNKNOWN = 'unknown';

/** The name of an outside key: of an entry in `BUNKMS_OUTSIDE_KEYS_FILE`. */
export const OUTSIDE_NAME = /^[a-z0-9][a-z0-9-]{0,62}$/;
export const outsideNameSchema = z.string().regex(OUTSIDE_NAME, {
  error: 'a name has lower-case letters, digits and hyphens, at most 63',
});

/** How long a holder may keep a released key of a customer, seconds. */
export const LEASE_TTL_S_MIN = 60;
export const LEASE_TTL_S_MAX = 900;
export const leaseTtlSchema = z.int().min(LEASE_TTL_S_MIN).max(LEASE_TTL_S_MAX);

/** Why an outside key did not open a version. */
export const OUTSIDE_FAULTS = [
  'outside_key_denied',
  'outside_key_unavailable',
  'outside_key_changed',
] as const;

/** The body of `PUT /v1/keys/{name}/outside`. */
export const attachKeySchema = z.strictObject({
  key: outsideNameSchema,
  lease_ttl_s: leaseTtlSchema.default(LEASE_TTL_S_MAX),
});
export type AttachKey = z.infer<typeof attachKeySchema>;

export const keyStateSchema = z.enum(['enabled', 'disabled', 'pending_deletion', 'destroyed']);

/**
 * The public facts of a key, for anyone who may read it. Holds no key material, wrapped or not. `version` and
 * `kcv` are those of the current version; `kcv` is empty when its record is damaged. `created_at` is when the
 * key was created.
 */
export const keyInfoSchema = z.object({
  id: z.uuid(),
  name: keyNameSchema,
  type: keyTypeSchema,
  state: keyStateSchema,
  version: z.int().positive(),
  /** Increases by one with each change of the key. The id and the revision make up the `ETag`. */
  revision: z.int().positive(),
  exportable: z.boolean(),
  rotate_after_days: rotateAfterDaysSchema,
  kcv: z.string(),
  created_at: z.iso.datetime(),
  /** When the service rotates an enabled key that has a policy. */
  next_rotation_at: z.iso.datetime().optional(),
  /** When the service destroys a key that is pending deletion. */
  deletion_at: z.iso.datetime().optional(),
  destroyed_at: z.iso.datetime().optional(),
  /**
   * The storage that holds the key; absent when none does. `unknown`: the key was restored from a backup
   * without later knowledge.
   */
  holder: z.union([z.uuid(), z.literal(HOLDER_UNKNOWN)]).optional(),
  /** The storage that its holder offers it to, and the move in which it does so. */
  offered_to: z.uuid().optional(),
  move: z.uuid().optional(),
  /** When its holder announced that it will be shredded. */
  deletion_intended_at: z.iso.datetime().optional(),
  /** The outside key that new versions need as well; absent without one. */
  outside: z.object({ key: outsideNameSchema, lease_ttl_s: leaseTtlSchema }).optional(),
});
export type KeyInfo = z.infer<typeof keyInfoSchema>;

/**
 * One version of a key. The highest number is the current version. Older ones stay until they are destroyed.
 */
export const keyVersionSchema = z.object({
  version: z.int().positive(),
  kcv: z.string(),
  state: z.enum(['available', 'destroyed']),
  created_at: z.iso.datetime(),
  destroyed_at: z.iso.datetime().optional(),
  /** The outside key that this version needs as well; absent for one that the KEK opens alone. */
  outside: outsideNameSchema.optional(),
});
export type KeyVersion = z.infer<typeof keyVersionSchema>;

/**
 * How outside keys protect a key. The last success and the last error come from the audit chain, so they
 * cover all nodes and restarts. An error is absent when the newest 500 records of the key have none.
 */
export const outsideStateSchema = z.object({
  /** Available versions that are not protected as new ones are. */
  other_versions: z.array(z.int().positive()),
  /** The KEKs that open copies of versions from before an outside key protected them. */
  kek_ids: z.array(z.string()),
  /** When a use of the key last needed its outside key, and had it. */
  last_success_at: z.iso.datetime().optional(),
  last_error: z.object({ code: z.enum(OUTSIDE_FAULTS), at: z.iso.datetime() }).optional(),
});
export type OutsideState = z.infer<typeof outsideStateSchema>;

/**
 * The answer of `GET /v1/keys/{name}`: the key with its versions in ascending order, and the numbers of those
 * that are damaged.
 */
export const keyDetailSchema = z.object({
  ...keyInfoSchema.shape,
  /** Present while the key is attached, or a version of it needs an outside key. */
  outside_state: outsideStateSchema.optional(),
  versions: z.array(keyVersionSchema),
  damaged_versions: z.array(z.int().positive()).optional(),
});
export type KeyDetail = z.infer<typeof keyDetailSchema>;

/**
 * The answer of `PUT` and `DELETE /v1/keys/{name}/outside`: the key, its older versions that are not
 * protected as new ones are, and the KEKs that open copies of its versions from before.
 */
export const attachedKeySchema = z.object({
  ...keyInfoSchema.shape,
  other_versions: z.array(z.int().positive()),
  kek_ids: z.array(z.string()),
});
export type AttachedKey = z.infer<typeof attachedKeySchema>;

/**
 * A page of keys, ordered by name. Damaged keys are listed separately, by name only, because their state is
 * unknown.
 */
export const keyPageSchema = z.object({
  keys: z.array(keyInfoSchema),
  damaged: z.array(z.string()).optional(),
  next_cursor: z.string().optional(),
});
export type KeyPage = z.infer<typeof keyPageSchema>;

/**
 * The place of a record in the audit chain. Anyone who keeps it can later prove that the chain was not
 * truncated before it.
 */
export const auditReceiptSchema = z.object({ seq: z.int().positive(), hash: z.string() });
export type AuditReceipt = z.infer<typeof auditReceiptSchema>;

/**
 * The answer to the destruction of a key, or of one version of it. Wrapped copies of the DEK may remain in
 * backups and in Bundoc's `project.json`. They are gone once the KEKs in `kek_ids` are destroyed too.
 */
export const destroyReceiptSchema = z.object({
  id: z.uuid(),
  name: keyNameSchema,
  /** The destroyed version; absent when the whole key was destroyed. */
  version: z.int().positive().optional(),
  state: keyStateSchema,
  revision: z.int().positive(),
  destroyed_at: z.iso.datetime(),
  kek_ids: z.array(z.string()),
  audit: auditReceiptSchema,
});
export type DestroyReceipt = z.infer<typeof destroyReceiptSchema>;

/** The answer of `GET /v1/export/{name}[?version=n]`: the raw DEK and the facts that its holder needs. */
export const exportedKeySchema = z.object({
  key_material_b64: z.string().length(44),
  algorithm: z.literal('AES-256-GCM'),
  name: keyNameSchema,
  key_id: z.uuid(),
  version: z.int().positive(),
  kcv: z.string().regex(/^[0-9a-f]{32}$/),
  wrapped_b64: z.string(),
  /** The outside key that was asked, if one protects this version as well. */
  outside_key: outsideNameSchema.optional(),
  lease: z.object({ id: z.string(), ttl_ms: z.int().positive() }),
  audit: auditReceiptSchema,
});
export type ExportedKey = z.infer<typeof exportedKeySchema>;

/**
 * Who may hold the raw key, and until when. `id` is the place of the release in the audit chain, and the
 * `lease.id` of the export answer. Times are from BunKMS's wall clock. The holder counts `ttl_ms` on its own
 * clock, from before its request.
 */
export const keyLeaseSchema = z.object({
  id: z.string(),
  version: z.int().positive(),
  /** The `sub` and `jti` of the token that the key was released to, and the address of the request. */
  subject: z.string(),
  jti: z.string(),
  source: z.string(),
  issued_at: z.iso.datetime(),
  until: z.iso.datetime(),
  /**
   * BunKMS itself keeps the key open, for encryption by that subject. Only for keys of customers. `until` is
   * the latest time at which it may still be in use.
   */
  kept_by: z.literal('bunkms').optional(),
});
export type KeyLease = z.infer<typeof keyLeaseSchema>;

/**
 * The answer of `GET /v1/keys/{name}/leases`, newest first. A page may hold fewer than `limit` and still have
 * a `next_cursor`.
 */
export const leasePageSchema = z.object({
  leases: z.array(keyLeaseSchema),
  next_cursor: z.string().optional(),
});
export type LeasePage = z.infer<typeof leasePageSchema>;

/** How long a holder may keep an exported key, milliseconds. */
export const LEASE_TTL_MS = 900_000;

const DEK_SUFFIX = '-dek';

/** The name of a project's data encryption key in BunKMS. */
export function dekNameOf(projectId: string): string {
  return `${projectId}${DEK_SUFFIX}`;
}

/** The project whose key has this name; undefined for any other name. */
export function projectOfDek(name: string): string | undefined {
  return name.endsWith(DEK_SUFFIX) ? name.slice(0, -DEK_SUFFIX.length) : undefined;
}
