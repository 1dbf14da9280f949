import { attachedKeySchema, attachKeySchema, OUTSIDE_FAULTS } from '@bundoc/shared/contract/keys';
import type { ProblemCode } from '@bundoc/shared/contract/problem';
import { jsonBody } from '@bundoc/shared/openapi/description';
import { ifMatchHeaders } from './if-match.ts';
import { CHANGE_REFUSALS, KEY_HEADERS, keyAccess, keyParamsSchema } from './key-requests.ts';
import type { JsonRoute } from './route.ts';

/** Refusals of every route that asks an outside key. */
export const OUTSIDE_REFUSALS = OUTSIDE_FAULTS satisfies readonly ProblemCode[];

const CHANGED = {
  200: { description: 'The key, and what is left to do', schema: attachedKeySchema, headers: KEY_HEADERS },
};
const EXAMPLE_PARAMS = { name: 'project-a-dek' };
const COMMON = {
  tag: 'keys',
  access: keyAccess('kms:admin', true),
  params: keyParamsSchema,
  headers: ifMatchHeaders,
  answers: CHANGED,
} as const;

export const ATTACHMENT = {
  ...COMMON,
  id: 'attachKey',
  summary: 'Attach a key to an outside key of a customer',
  description:
    'New versions open only with the outside key as well, beginning with the one that this adds. `other_versions` are not protected by it yet; the KEKs in `kek_ids` open copies from before. A repetition changes nothing.',
  body: jsonBody(attachKeySchema),
  refusals: [
    ...CHANGE_REFUSALS,
    'key_disabled',
    'key_versions_exhausted',
    'outside_key_unknown',
    ...OUTSIDE_REFUSALS,
  ],
  examples: {
    unknown: {
      summary: 'Refused: no entry has that name, or it does not allow this key',
      params: EXAMPLE_PARAMS,
      body: { key: 'customer-a', lease_ttl_s: 300 },
      status: 409,
    },
  },
} satisfies JsonRoute;

export const DETACHMENT = {
  ...COMMON,
  id: 'detachKey',
  summary: 'Detach a key from its outside key',
  description:
    'Adds a version that needs no outside key, which is not asked. `other_versions` still need theirs.',
  refusals: [...CHANGE_REFUSALS, 'key_disabled', 'key_versions_exhausted'],
  examples: { nothing: { summary: 'It is attached to none', params: EXAMPLE_PARAMS, status: 200 } },
} satisfies JsonRoute;

export const VERSIONS_REWRAP = {
  ...COMMON,
  id: 'rewrapKeyVersions',
  summary: 'Protect older versions of a key as its new ones are',
  description: 'Protects up to eight versions. Repeat it until `other_versions` is empty.',
  refusals: [...CHANGE_REFUSALS, ...OUTSIDE_REFUSALS],
  examples: { nothing: { summary: 'None is left', params: EXAMPLE_PARAMS, status: 200 } },
} satisfies JsonRoute;
