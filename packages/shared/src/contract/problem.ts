import { z } from 'zod';

/**
 * All codes of refusals, with their HTTP status and title (RFC 9457 `title`).
 *
 * The table is closed. A code is stable once released, and always has the same status. `docs/errors.md`
 * repeats the table, and a test compares the two.
 */
export const PROBLEMS = {
  invalid_request: { status: 400, title: 'The request is not valid' },
  invalid_json: { status: 400, title: 'The body is not valid JSON' },
  invalid_document: { status: 400, title: 'The document is not acceptable' },
  query_too_expensive: { status: 400, title: 'The query would read too much' },
  invalid_cursor: { status: 400, title: 'The cursor belongs to another list' },
  invalid_patch: { status: 400, title: 'The patch is not acceptable' },
  decryption_failed: { status: 400, title: 'The ciphertext does not open' },
  receipt_invalid: { status: 400, title: 'The receipt is not of this key service' },
  unauthenticated: { status: 401, title: 'A valid bearer token is required' },
  forbidden: { status: 403, title: 'The token does not allow this' },
  key_not_exportable: { status: 403, title: 'The key is not exportable' },
  project_disabled: { status: 403, title: 'The key of the project is disabled' },
  outside_key_denied: { status: 403, title: 'The holder of the outside key denies its use' },
  not_found: { status: 404, title: 'There is nothing at this path' },
  document_not_found: { status: 404, title: 'The document does not exist' },
  collection_not_found: { status: 404, title: 'The collection does not exist' },
  project_not_found: { status: 404, title: 'The project does not exist' },
  key_not_found: { status: 404, title: 'The key does not exist' },
  kek_not_found: { status: 404, title: 'The KEK is unknown' },
  storage_not_found: { status: 404, title: 'The storage is unknown' },
  token_not_found: { status: 404, title: 'The token does not exist' },
  method_not_allowed: { status: 405, title: 'The path does not support this method' },
  request_timeout: { status: 408, title: 'The request did not arrive in time' },
  document_exists: { status: 409, title: 'The document already exists' },
  patch_test_failed: { status: 409, title: 'A test of the patch failed' },
  patch_inapplicable: { status: 409, title: 'The patch does not fit the current document' },
  unique_violation: { status: 409, title: 'Another document has the same values in a unique index' },
  move_refused: { status: 409, title: 'The project cannot be moved now' },
  key_exists: { status: 409, title: 'The key already exists' },
  key_versions_exhausted: { status: 409, title: 'The key has the maximum number of versions' },
  key_disabled: { status: 409, title: 'The key is disabled' },
  key_pending_deletion: { status: 409, title: 'The key is about to be deleted' },
  key_deletion_intended: { status: 409, title: 'The key is about to be shredded' },
  key_held_elsewhere: { status: 409, title: 'Another storage holds the key' },
  key_unheld: { status: 409, title: 'No storage holds the key' },
  key_not_offered: { status: 409, title: 'The key is not offered in this move' },
  lease_live: { status: 409, title: 'The key may still be in use elsewhere' },
  storage_superseded: { status: 409, title: 'Another copy of this storage is in use' },
  project_elsewhere: { status: 409, title: 'Another storage holds the project' },
  project_unclaimed: { status: 409, title: 'No storage holds the key of the project' },
  project_deleting: { status: 409, title: 'The project is being deleted' },
  key_not_pending_deletion: { status: 409, title: 'The key is not about to be deleted' },
  outside_key_unknown: { status: 409, title: 'No outside key of that name may be used for this key' },
  key_version_current: { status: 409, title: 'The current version of a key cannot be destroyed alone' },
  kek_unusable: { status: 409, title: 'The KEK cannot be made the current one' },
  kek_in_use: { status: 409, title: 'The KEK is still needed' },
  kek_unfetched: { status: 409, title: 'Some copies of keys may be wrapped only with this KEK' },
  key_destroyed: { status: 410, title: 'The key was destroyed' },
  key_version_destroyed: { status: 410, title: 'This version of the key was destroyed' },
  project_destroyed: { status: 410, title: 'The project was destroyed' },
  position_gone: { status: 410, title: 'The position is too old to resume from' },
  precondition_failed: { status: 412, title: 'The precondition does not hold' },
  payload_too_large: { status: 413, title: 'The body is too large' },
  uri_too_long: { status: 414, title: 'The path is too long' },
  unsupported_media_type: { status: 415, title: 'The content type is not supported' },
  schema_violation: { status: 422, title: 'The document does not match the schema of its collection' },
  idempotency_mismatch: { status: 422, title: 'The idempotency key was used for another request' },
  rate_limited: { status: 429, title: 'Too many requests in too short a time' },
  headers_too_large: { status: 431, title: 'The request headers are too large' },
  internal_error: { status: 500, title: 'The server failed' },
  integrity_error: { status: 500, title: 'The stored bytes do not open' },
  transfer_coding_unsupported: { status: 501, title: 'The transfer coding is not supported' },
  sealed: { status: 503, title: 'The key service is sealed' },
  key_damaged: { status: 503, title: 'The stored key does not open' },
  key_missing: { status: 503, title: 'The project has data, but its key is gone' },
  key_exhausted: { status: 503, title: 'The key has reached its limit of seals and must be rotated' },
  key_mismatch: {
    status: 503,
    title: 'The key is not the one that the project was created with',
  },
  project_damaged: { status: 503, title: 'The stored project is damaged' },
  project_moving: { status: 503, title: 'The project is being moved' },
  outside_key_unavailable: { status: 503, title: 'The outside key does not answer' },
  outside_key_changed: { status: 503, title: 'The outside key is not the one that the key was attached to' },
  kms_unavailable: { status: 503, title: 'The key service does not answer' },
  audit_unavailable: { status: 503, title: 'The audit record could not be made durable' },
  storage_unavailable: { status: 503, title: 'The storage does not answer' },
  snapshot_too_old: { status: 503, title: 'The state that the answer shows is no longer kept' },
  overloaded: { status: 503, title: 'The service is overloaded' },
  http_version_unsupported: { status: 505, title: 'The HTTP version is not supported' },
  quota_exceeded: { status: 507, title: 'The project has reached its quota' },
  disk_full: { status: 507, title: 'The disk is full' },
} as const satisfies Record<string, { status: number; title: string }>;

/** The closed union of refusal codes. */
export type ProblemCode = keyof typeof PROBLEMS;

/** All codes, in the order of the table. */
export const PROBLEM_CODES = Object.keys(PROBLEMS) as [ProblemCode, ...ProblemCode[]];

/** One fault of an invalid input: its place (`body.name`, `params.project`) and what is wrong. */
export const fieldFaultSchema = z.object({
  path: z.string(),
  message: z.string(),
  /**
   * For a failed precondition in Bundoc: the current entity tag of the document or definition; absent when it
   * does not exist.
   */
  etag: z.string().optional(),
});
export type FieldFault = z.infer<typeof fieldFaultSchema>;

/** The body of every refusal, `application/problem+json` (RFC 9457 with extension members). */
export const problemSchema = z.object({
  type: z.string(),
  title: z.string(),
  status: z.int(),
  detail: z.string().optional(),
  code: z.enum(PROBLEM_CODES),
  request_id: z.string(),
  errors: z.array(fieldFaultSchema).optional(),
  /** The storage that holds the key or the project. */
  storage: z.uuid().optional(),
  /** The outside key that denies its use, or does not answer. */
  outside_key: z.string().optional(),
  /** When the refusal ends. */
  until: z.iso.datetime().optional(),
});
export type Problem = z.infer<typeof problemSchema>;
