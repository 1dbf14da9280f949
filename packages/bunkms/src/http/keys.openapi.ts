import { idempotencyKeySchema } from '@bundoc/shared/contract/headers';
import {
  createKeySchema,
  keyDetailSchema,
  keyInfoSchema,
  keyNameSchema,
  keyPageSchema,
  leasePageSchema,
  updateKeySchema,
} from '@bundoc/shared/contract/keys';
import { jsonBody } from '@bundoc/shared/openapi/description';
import { z } from 'zod';
import { pageQuery, seqCursor } from '../http/query.ts';
import { ifMatchHeaders } from './if-match.ts';
import {
  CHANGE_REFUSALS,
  EXAMPLE_KEY,
  EXAMPLE_STORAGE,
  KEY_HEADERS,
  KEY_REFUSALS,
  keyAccess,
  keyParamsSchema,
} from './key-requests.ts';
import type { JsonRoute } from './route.ts';

const listQuery = z.strictObject(pageQuery(keyNameSchema));
const leasesQuery = z.strictObject(pageQuery(seqCursor));
export const createHeaders = z.object({ 'idempotency-key': idempotencyKeySchema.optional() });
const EXAMPLE_PARAMS = { name: 'project-a-dek' };

export const CREATION = {
  id: 'createKey',
  tag: 'keys',
  summary: 'Make a key',
  description:
    'With `storage`, that storage holds the key. As the storage, a service token names its present `generation`. Without it, the scope `kms:manage_key` is needed as well.',
  access: keyAccess('kms:create_key'),
  headers: createHeaders,
  body: jsonBody(createKeySchema),
  answers: {
    201: {
      description: 'Made',
      schema: keyInfoSchema,
      headers: { ...KEY_HEADERS, Location: 'Path of the key' },
    },
  },
  refusals: [
    'key_exists',
    'key_destroyed',
    'key_damaged',
    'storage_superseded',
    'idempotency_mismatch',
    'outside_key_denied',
    'outside_key_unavailable',
    'integrity_error',
    'rate_limited',
    'disk_full',
  ],
  examples: {
    make: {
      body: { name: 'project-b-dek', type: 'aes-256' },
      status: 201,
      answer: { ...EXAMPLE_KEY, name: 'project-b-dek' },
    },
    withPolicies: {
      summary: 'Only for encryption, rotated once a quarter',
      headers: { 'idempotency-key': 'make-signing-1' },
      body: { name: 'encryption', type: 'aes-256', exportable: false, rotate_after_days: 90 },
      status: 201,
    },
    held: {
      summary: 'By an administrator, for a storage of Bundoc, which becomes its holder',
      body: { name: 'project-c-dek', type: 'aes-256', storage: EXAMPLE_STORAGE.storage },
      status: 201,
    },
    superseded: {
      summary: 'Refused, because the storage has another generation',
      body: { name: 'project-d-dek', type: 'aes-256', ...EXAMPLE_STORAGE },
      status: 409,
    },
    exists: { body: { name: 'project-a-dek', type: 'aes-256' }, status: 409 },
    badName: { body: { name: 'Project A', type: 'aes-256' }, status: 400 },
  },
} satisfies JsonRoute;

export const LISTING = {
  id: 'listKeys',
  tag: 'keys',
  summary: 'List keys',
  description:
    'The keys that the token names, by name, including destroyed ones. `damaged` names keys whose state is unknown.',
  access: { kind: 'token', scopes: ['kms:read_key'] },
  query: listQuery,
  answers: { 200: { description: 'A page', schema: keyPageSchema } },
  refusals: ['rate_limited'],
  examples: {
    firstPage: { query: { limit: '20' }, status: 200, answer: { keys: [EXAMPLE_KEY] } },
    goOn: { query: { cursor: 'project-a-dek' }, status: 200 },
    tooMany: { query: { limit: '501' }, status: 400 },
  },
} satisfies JsonRoute;

export const READING = {
  id: 'readKey',
  tag: 'keys',
  summary: 'A key and its versions',
  description: 'Without key material, wrapped or not.',
  access: keyAccess('kms:read_key'),
  params: keyParamsSchema,
  answers: { 200: { description: 'The key', schema: keyDetailSchema, headers: KEY_HEADERS } },
  refusals: [...KEY_REFUSALS, 'rate_limited'],
  examples: {
    read: { params: EXAMPLE_PARAMS, status: 200 },
    another: { params: { name: 'none-dek' }, status: 404 },
  },
} satisfies JsonRoute;

export const LEASES = {
  id: 'listLeases',
  tag: 'keys',
  summary: 'Who may hold the raw key, and until when',
  description: 'Newest first. A page may hold fewer than `limit` and still have a `next_cursor`.',
  access: keyAccess('kms:read_key'),
  params: keyParamsSchema,
  query: leasesQuery,
  answers: { 200: { description: 'A page', schema: leasePageSchema } },
  refusals: [...KEY_REFUSALS, 'rate_limited'],
  examples: { read: { params: EXAMPLE_PARAMS, query: { limit: '20' }, status: 200 } },
} satisfies JsonRoute;

export const UPDATE = {
  id: 'updateKey',
  tag: 'keys',
  summary: 'Change the policies of a key',
  description: 'Absent members do not change. `exportable` may only become false.',
  access: keyAccess('kms:manage_key'),
  params: keyParamsSchema,
  headers: ifMatchHeaders,
  body: jsonBody(updateKeySchema),
  answers: { 200: { description: 'The key', schema: keyInfoSchema, headers: KEY_HEADERS } },
  refusals: [...CHANGE_REFUSALS, 'key_not_exportable'],
  examples: {
    rotateQuarterly: { params: EXAMPLE_PARAMS, body: { rotate_after_days: 90 }, status: 200 },
    anotherState: {
      params: EXAMPLE_PARAMS,
      headers: { 'if-match': '"an-older-state"' },
      body: { rotate_after_days: 90 },
      status: 412,
    },
  },
} satisfies JsonRoute;
