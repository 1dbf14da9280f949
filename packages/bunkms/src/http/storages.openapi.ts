import { keyNameSchema } from '@bundoc/shared/contract/keys';
import {
  advanceStorageSchema,
  deletionPageSchema,
  generationSchema,
  storageIdSchema,
  storageInfoSchema,
  takeOverStorageSchema,
} from '@bundoc/shared/contract/storages';
import { jsonBody } from '@bundoc/shared/openapi/description';
import { z } from 'zod';
import { pageQuery } from '../http/query.ts';
import { EXAMPLE_STORAGE } from './key-requests.ts';
import type { JsonRoute } from './route.ts';

const storageParamsSchema = z.object({ id: storageIdSchema });
const deletionsQuery = z.strictObject({ generation: generationSchema, ...pageQuery(keyNameSchema) });
const EXAMPLE_PARAMS = { id: EXAMPLE_STORAGE.storage };
const ANSWER = { 200: { description: 'The storage', schema: storageInfoSchema } };

export const READING = {
  id: 'readStorage',
  tag: 'storages',
  summary: 'A storage and its generation',
  access: { kind: 'token', scopes: ['kms:read_key'], serviceOnly: true, grant: 'project keys' },
  params: storageParamsSchema,
  answers: ANSWER,
  refusals: ['storage_not_found', 'integrity_error'],
  examples: { unknown: { params: EXAMPLE_PARAMS, status: 404 } },
} satisfies JsonRoute;

export const ADVANCE = {
  id: 'advanceStorage',
  tag: 'storages',
  summary: 'Give a storage a new generation',
  description:
    'Only from one of the generations in `from`, so that of two copies of a storage only one continues. An unknown storage is registered.',
  access: { kind: 'token', scopes: ['kms:create_key'], serviceOnly: true, grant: 'project keys' },
  params: storageParamsSchema,
  body: jsonBody(advanceStorageSchema),
  answers: ANSWER,
  refusals: ['storage_superseded', 'integrity_error', 'audit_unavailable', 'rate_limited'],
  examples: {
    register: { params: EXAMPLE_PARAMS, body: { from: [], to: EXAMPLE_STORAGE.generation }, status: 200 },
    noGeneration: { params: EXAMPLE_PARAMS, body: { from: [] }, status: 400 },
  },
} satisfies JsonRoute;

export const TAKE_OVER = {
  id: 'takeOverStorage',
  tag: 'storages',
  summary: 'Let another copy of a storage take its place',
  description:
    'The copy with that `generation`; without it, the next copy that starts. Refused with `until` while keys that were released to the storage may be in use, unless `force` is true.',
  access: { kind: 'token', scopes: ['kms:manage_key'], grant: 'project keys' },
  params: storageParamsSchema,
  body: jsonBody(takeOverStorageSchema),
  answers: ANSWER,
  refusals: ['storage_not_found', 'lease_live', 'integrity_error', 'audit_unavailable'],
  examples: {
    unknown: { params: EXAMPLE_PARAMS, body: {}, status: 404 },
    forced: { params: EXAMPLE_PARAMS, body: { force: true }, status: 404 },
  },
} satisfies JsonRoute;

export const DELETIONS = {
  id: 'listDeletions',
  tag: 'storages',
  summary: 'Unfinished deletions of a storage',
  description:
    'Only keys that the token names, by name. A page may be short or empty and still have a `next_cursor`.',
  access: { kind: 'token', scopes: ['kms:shred_key'], serviceOnly: true },
  params: storageParamsSchema,
  query: deletionsQuery,
  answers: { 200: { description: 'A page', schema: deletionPageSchema } },
  refusals: ['storage_superseded', 'integrity_error'],
  examples: {
    superseded: {
      params: EXAMPLE_PARAMS,
      query: { generation: EXAMPLE_STORAGE.generation },
      status: 409,
    },
  },
} satisfies JsonRoute;
