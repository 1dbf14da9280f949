import type { ProblemCode } from '@bundoc/shared/contract/problem';
import type { Scope } from '@bundoc/shared/contract/tokens';
import type { RouteAccess } from '@bundoc/shared/openapi/description';

/** What a route asks of its caller that works in one project. */
export function projectAccess(...scopes: Scope[]): RouteAccess {
  return { kind: 'token', scopes, grant: 'project' };
}

/** Refusals of every route of a project. */
export const PROJECT_REFUSALS = [
  'project_not_found',
  'project_disabled',
  'project_destroyed',
  'project_damaged',
  'integrity_error',
  'key_missing',
  'key_mismatch',
  'storage_unavailable',
  'disk_full',
  'rate_limited',
] as const satisfies readonly ProblemCode[];

/** Refusals of every route that writes documents; a write may make its project. */
export const WRITE_REFUSALS = [
  ...PROJECT_REFUSALS,
  'invalid_document',
  'idempotency_mismatch',
  'key_exhausted',
  'quota_exceeded',
] as const satisfies readonly ProblemCode[];
