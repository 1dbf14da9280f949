import type { ProblemCode } from '@bundoc/shared/contract/problem';
import type { Scope } from '@bundoc/shared/contract/tokens';
import type { RouteAccess } from '@bundoc/shared/openapi/description';

/** The access that a route within one project requires. */
export function projectAccess(...scopes: Scope[]): RouteAccess {
  return { kind: 'token', scopes, grant: 'project' };
}

/** Refusals of every route that opens a project. */
const OPENING_REFUSALS = [
  'project_disabled',
  'project_destroyed',
  'project_damaged',
  'project_deleting',
  'project_moving',
  'project_elsewhere',
  'project_unclaimed',
  'storage_superseded',
  'integrity_error',
  'key_missing',
  'key_damaged',
  'key_mismatch',
  'storage_unavailable',
  'disk_full',
  'rate_limited',
] as const satisfies readonly ProblemCode[];

/** Refusals of every route that needs an existing project. */
export const PROJECT_REFUSALS = [
  'project_not_found',
  ...OPENING_REFUSALS,
] as const satisfies readonly ProblemCode[];

/** Refusals of every route that writes documents; it creates the project if necessary. */
export const WRITE_REFUSALS = [
  ...OPENING_REFUSALS,
  'invalid_document',
  'schema_violation',
  'unique_violation',
  'idempotency_mismatch',
  'key_exhausted',
  'quota_exceeded',
] as const satisfies readonly ProblemCode[];

/** Refusals of every route that defines a collection; it creates the project if necessary. */
export const DEFINITION_REFUSALS = [
  ...OPENING_REFUSALS,
  'key_exhausted',
  'quota_exceeded',
  'precondition_failed',
  'idempotency_mismatch',
] as const satisfies readonly ProblemCode[];
