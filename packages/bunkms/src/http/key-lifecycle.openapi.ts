import {
  destroyReceiptSchema,
  keyInfoSchema,
  keyNameSchema,
  keyVersionParamSchema,
  PENDING_DAYS,
} from '@bundoc/shared/contract/keys';
import { z } from 'zod';
import { ifMatchHeaders } from './if-match.ts';
import { OUTSIDE_REFUSALS } from './key-outside.openapi.ts';
import { CHANGE_REFUSALS, KEY_HEADERS, keyAccess, keyParamsSchema } from './key-requests.ts';
import type { JsonRoute } from './route.ts';

const versionParamsSchema = z.object({ name: keyNameSchema, version: keyVersionParamSchema });
const rotateQuery = z.strictObject({ expected_version: keyVersionParamSchema.optional() });
const pendingDaysFault = `must be 0, or a whole number from ${PENDING_DAYS.min} to ${PENDING_DAYS.max}`;
const deleteQuery = z.strictObject({
  pending_days: z
    .string()
    .regex(/^(?:0|[1-9]\d?)$/, pendingDaysFault)
    .transform(Number)
    .refine((days) => days === 0 || (days >= PENDING_DAYS.min && days <= PENDING_DAYS.max), pendingDaysFault)
    .default(PENDING_DAYS.default)
    .meta({
      type: 'integer',
      anyOf: [{ const: 0 }, { minimum: PENDING_DAYS.min, maximum: PENDING_DAYS.max }],
      default: PENDING_DAYS.default,
      description: 'How long the key can be restored; 0 destroys it now',
    }),
  confirm: z.string().max(128).optional().describe('The name of the key; only with `pending_days=0`'),
});
export const CONFIRM_FAULT = 'must repeat the name of the key';
const confirmQuery = z.strictObject({
  confirm: z.string(CONFIRM_FAULT).max(128, CONFIRM_FAULT).describe('The name of the key again'),
});
const EXAMPLE_PARAMS = { name: 'project-a-dek' };
const CHANGED = { 200: { description: 'The key', schema: keyInfoSchema, headers: KEY_HEADERS } };

export const ROTATION = {
  id: 'rotateKey',
  tag: 'keys',
  summary: 'Create a new version of a key',
  description:
    'Older versions do not change. With `expected_version`, nothing changes unless this is the current version.',
  access: keyAccess('kms:rotate_key'),
  params: keyParamsSchema,
  query: rotateQuery,
  headers: ifMatchHeaders,
  answers: CHANGED,
  refusals: [...CHANGE_REFUSALS, 'key_disabled', 'key_versions_exhausted', ...OUTSIDE_REFUSALS],
  examples: {
    rotate: { params: EXAMPLE_PARAMS, status: 200 },
    once: {
      summary: 'Of concurrent requests, one creates a version',
      params: EXAMPLE_PARAMS,
      query: { expected_version: '1' },
      status: 200,
    },
  },
} satisfies JsonRoute;

/** @param status of an example. */
export function stateChange(action: 'enable' | 'disable' | 'restore', summary: string, status: number) {
  return {
    id: `${action}Key`,
    tag: 'keys',
    summary,
    access: keyAccess('kms:manage_key'),
    params: keyParamsSchema,
    headers: ifMatchHeaders,
    answers: CHANGED,
    refusals: [...CHANGE_REFUSALS, ...(action === 'restore' ? ['key_not_pending_deletion' as const] : [])],
    examples: {
      [action]: { params: EXAMPLE_PARAMS, status },
      another: { params: { name: 'none-dek' }, status: 404 },
    },
  } satisfies JsonRoute;
}

export const DELETION = {
  id: 'deleteKey',
  tag: 'keys',
  summary: 'Schedule the deletion of a key, or destroy it now',
  access: keyAccess('kms:destroy_key'),
  params: keyParamsSchema,
  query: deleteQuery,
  headers: ifMatchHeaders,
  answers: {
    200: { description: 'Destroyed, for ever', schema: destroyReceiptSchema, headers: KEY_HEADERS },
    202: {
      description: 'The key is destroyed at `deletion_at`, unless it is restored before',
      schema: keyInfoSchema,
      headers: KEY_HEADERS,
    },
  },
  refusals: [...CHANGE_REFUSALS, 'rate_limited'],
  examples: {
    schedule: { params: EXAMPLE_PARAMS, query: { pending_days: '30' }, status: 202 },
    now: { params: EXAMPLE_PARAMS, query: { pending_days: '0', confirm: 'project-a-dek' }, status: 200 },
    unconfirmed: { params: EXAMPLE_PARAMS, query: { pending_days: '0' }, status: 400 },
  },
} satisfies JsonRoute;

export const VERSION_DESTRUCTION = {
  id: 'destroyKeyVersion',
  tag: 'keys',
  summary: 'Destroy an older version of a key',
  access: keyAccess('kms:destroy_key'),
  params: versionParamsSchema,
  query: confirmQuery,
  headers: ifMatchHeaders,
  answers: {
    200: { description: 'Destroyed, for ever', schema: destroyReceiptSchema, headers: KEY_HEADERS },
  },
  refusals: [...CHANGE_REFUSALS, 'key_version_current', 'key_version_destroyed', 'rate_limited'],
  examples: {
    current: {
      summary: 'Refused, because it is the current version',
      params: { name: 'project-a-dek', version: '1' },
      query: { confirm: 'project-a-dek' },
      status: 409,
    },
  },
} satisfies JsonRoute;
