import {
  kekIdSchema,
  kekStatusSchema,
  kekVerificationSchema,
  retiredKekSchema,
  retireKekSchema,
  rotateKekSchema,
  unfetchedPageSchema,
} from '@bundoc/shared/contract/kek';
import { keyNameSchema } from '@bundoc/shared/contract/keys';
import { jsonBody } from '@bundoc/shared/openapi/description';
import { z } from 'zod';
import { KEK_READERS } from './guard.ts';
import { pageQuery } from './query.ts';
import type { JsonRoute } from './route.ts';

const kekParamsSchema = z.object({ kek_id: kekIdSchema });
const namesQuery = z.strictObject(pageQuery(keyNameSchema));

const READ = { kind: 'token', anyScope: KEK_READERS, serviceOnly: true } as const;
const CHANGE = { kind: 'token', scopes: ['kms:manage_kek'], serviceOnly: true } as const;
const UNKNOWN_KEK = '0123456789abcdef';

export const STATUS = {
  id: 'readKeks',
  tag: 'kek',
  summary: 'The KEKs by id, what is wrapped with each, and the progress of a rotation',
  access: READ,
  answers: { 200: { description: 'The states of the KEKs', schema: kekStatusSchema } },
  refusals: ['rate_limited'],
  examples: { read: { status: 200 } },
} satisfies JsonRoute;

export const ROTATION = {
  id: 'rotateKek',
  tag: 'kek',
  summary: 'Make a KEK the current one',
  description: 'The staged one, unless another is named. Everything is rewrapped with it in the background.',
  access: CHANGE,
  body: jsonBody(rotateKekSchema, { optional: true }),
  answers: { 202: { description: 'Begun', schema: kekStatusSchema } },
  refusals: ['kek_unusable', 'kek_not_found', 'disk_full'],
  examples: {
    noneStaged: { summary: 'Refused, because none is staged', status: 409 },
    unknown: { body: { kek_id: UNKNOWN_KEK }, status: 404 },
  },
} satisfies JsonRoute;

export const VERIFICATION = {
  id: 'verifyWrapping',
  tag: 'kek',
  summary: 'Unwrap the versions of a page of keys, and name the keys that do not open',
  access: CHANGE,
  query: namesQuery,
  answers: { 200: { description: 'What was found', schema: kekVerificationSchema } },
  refusals: ['disk_full'],
  examples: { firstPage: { query: { limit: '100' }, status: 200 } },
} satisfies JsonRoute;

export const RETIREMENT = {
  id: 'retireKek',
  tag: 'kek',
  summary: 'Retire a KEK with which nothing is wrapped',
  access: CHANGE,
  body: jsonBody(retireKekSchema),
  answers: { 200: { description: 'Retired', schema: retiredKekSchema } },
  refusals: ['kek_not_found', 'kek_in_use', 'kek_unfetched', 'disk_full'],
  examples: { unknown: { body: { kek_id: UNKNOWN_KEK }, status: 404 } },
} satisfies JsonRoute;

export const UNFETCHED = {
  id: 'listUnfetched',
  tag: 'kek',
  summary: 'Keys whose holders may have copies only under this KEK or older ones',
  access: READ,
  params: kekParamsSchema,
  query: namesQuery,
  answers: { 200: { description: 'A page', schema: unfetchedPageSchema } },
  refusals: ['kek_not_found', 'rate_limited'],
  examples: { unknown: { params: { kek_id: UNKNOWN_KEK }, status: 404 } },
} satisfies JsonRoute;
