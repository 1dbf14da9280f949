import { AppError } from '@bundoc/shared/contract/app-error';
import { keyNameSchema } from '@bundoc/shared/contract/keys';
import type { ProblemCode } from '@bundoc/shared/contract/problem';
import type { Claims, Scope } from '@bundoc/shared/contract/tokens';
import type { RouteAccess } from '@bundoc/shared/openapi/description';
import { z } from 'zod';

export const keyParamsSchema = z.object({ name: keyNameSchema });

/** The access rule of a route for one key. @param serviceOnly whether it accepts only service tokens. */
export function keyAccess(scope: Scope, serviceOnly = false): RouteAccess {
  return { kind: 'token', scopes: [scope], grant: 'key', ...(serviceOnly ? { serviceOnly } : {}) };
}

/** Refusals of every route that reads a key. */
export const KEY_REFUSALS = [
  'key_not_found',
  'key_damaged',
  'key_destroyed',
] as const satisfies readonly ProblemCode[];

/** Refusals of every route that changes a key. */
export const CHANGE_REFUSALS = [
  ...KEY_REFUSALS,
  'key_pending_deletion',
  'precondition_failed',
  'disk_full',
] as const satisfies readonly ProblemCode[];

/** Refusals of every route that a storage calls for a key that it holds. */
export const HOLDER_REFUSALS = [
  'storage_superseded',
  'key_held_elsewhere',
  'key_unheld',
  'integrity_error',
] as const satisfies readonly ProblemCode[];

export const EXAMPLE_STORAGE = {
  storage: '3f1b0e5a-9f0c-4f0e-8a53-1d2f7e8a9001',
  generation: '7c9e6679-7425-40de-944b-e07fc1f90ae7',
};

export const KEY_HEADERS = { ETag: 'The entity tag of the key' };

export const EXAMPLE_KEY = {
  id: '0b6f4a0e-6b0c-4b8e-9a53-3c1d2f7e8a90',
  name: 'project-a-dek',
  type: 'aes-256',
  state: 'enabled',
  version: 1,
  revision: 1,
  exportable: true,
  rotate_after_days: null,
  kcv: '6f1d2c3b4a5968778695a4b3c2d1e0f0',
  created_at: '2026-11-25T08:00:00.000Z',
};

/**
 * Requires that the caller may let a storage hold a key: as the storage, a service with its generation, or as
 * an administrator with `kms:manage_key`. The generation itself is checked later.
 *
 * @returns whether the caller is an administrator.
 * @throws AppError `forbidden`.
 */
export function requireStorageOrAdministrator(claims: Claims, generation: string | undefined): boolean {
  const isAdministrator = claims.scope.includes('kms:manage_key');
  if (generation !== undefined && claims.typ !== 'service')
    throw new AppError('forbidden', { detail: 'a request with a generation needs a service token' });
  if (generation === undefined && !isAdministrator)
    throw new AppError('forbidden', {
      detail: 'a request for a storage without its generation needs the scope kms:manage_key',
    });
  return isAdministrator;
}
