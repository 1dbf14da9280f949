import { randomUUID } from 'node:crypto';
import type { KMS_SCOPES } from './kms.ts';

export type Listener = 'api' | 'internal';
export type Need =
  | 'public'
  | 'token'
  | {
      scope: (typeof KMS_SCOPES)[number];
      /** An alternative scope. */
      or?: (typeof KMS_SCOPES)[number];
      glob?: true;
      serviceOnly?: true;
      /** The token must be able to issue others. */
      issues?: true;
    };

export interface Route {
  readonly listeners: readonly Listener[];
  readonly method: string;
  readonly url: string;
  readonly path: string;
  readonly body?: object;
  readonly need: Need;
  /** The status for an authorized caller. */
  readonly ok: number;
  /** Its answer is endless. */
  readonly streams?: true;
  /** Different requirements on the internal listener. */
  readonly onInternal?: Need;
}

export const BOTH = ['api', 'internal'] as const;
const UNKNOWN_JTI = randomUUID();

/** An unknown storage. */
const STORAGE = randomUUID();
const acting = { storage: STORAGE, generation: randomUUID() };
const moving = { ...acting, move: randomUUID() };

/** The actions on the holder of a key. The storage is unknown, so authorized callers are refused for that. */
const KEY_ACTIONS: readonly {
  action: string;
  scope: (typeof KMS_SCOPES)[number];
  or?: (typeof KMS_SCOPES)[number];
  serviceOnly?: true;
  body: object;
}[] = [
  { action: 'claim', scope: 'kms:create_key', serviceOnly: true, or: 'kms:manage_key', body: acting },
  { action: 'offer', scope: 'kms:create_key', serviceOnly: true, body: { ...moving, to: randomUUID() } },
  { action: 'withdraw', scope: 'kms:create_key', serviceOnly: true, body: moving },
  { action: 'accept', scope: 'kms:create_key', serviceOnly: true, body: moving },
  { action: 'deletion-intent', scope: 'kms:shred_key', serviceOnly: true, body: acting },
  {
    action: 'shred',
    scope: 'kms:shred_key',
    serviceOnly: true,
    body: { ...acting, receipt: { seq: 1, hash: 'ab'.repeat(32) } },
  },
  { action: 'content-removed', scope: 'kms:shred_key', serviceOnly: true, body: acting },
];

/** Every route of the service with its requirements. A missing route fails the first test. */
export const ROUTES: readonly Route[] = [
  { listeners: ['api'], method: 'GET', url: '/', path: '/', need: 'public', ok: 200 },
  { listeners: BOTH, method: 'GET', url: '/health', path: '/health', need: 'public', ok: 200 },
  { listeners: BOTH, method: 'GET', url: '/ready', path: '/ready', need: 'public', ok: 200 },
  {
    listeners: BOTH,
    method: 'GET',
    url: '/.well-known/jwks.json',
    path: '/.well-known/jwks.json',
    need: 'public',
    ok: 200,
  },
  {
    listeners: BOTH,
    method: 'GET',
    url: '/openapi.json',
    path: '/openapi.json',
    need: 'public',
    ok: 200,
  },
  {
    listeners: BOTH,
    method: 'POST',
    url: '/v1/keys',
    path: '/v1/keys',
    body: { name: 'known-dek', type: 'aes-256' },
    need: { scope: 'kms:create_key', glob: true },
    ok: 409,
  },
  {
    listeners: BOTH,
    method: 'GET',
    url: '/v1/keys',
    path: '/v1/keys',
    need: { scope: 'kms:read_key' },
    ok: 200,
  },
  {
    listeners: BOTH,
    method: 'GET',
    url: '/v1/keys/:name',
    path: '/v1/keys/known-dek',
    need: { scope: 'kms:read_key', glob: true },
    ok: 200,
  },
  {
    listeners: BOTH,
    method: 'GET',
    url: '/v1/keys/:name/leases',
    path: '/v1/keys/known-dek/leases',
    need: { scope: 'kms:read_key', glob: true },
    ok: 200,
  },
  {
    listeners: BOTH,
    method: 'POST',
    url: '/v1/keys/:name/rotate',
    path: '/v1/keys/known-dek/rotate',
    need: { scope: 'kms:rotate_key', glob: true },
    ok: 200,
  },
  {
    listeners: BOTH,
    method: 'PATCH',
    url: '/v1/keys/:name',
    path: '/v1/keys/known-dek',
    body: { rotate_after_days: 30 },
    need: { scope: 'kms:manage_key', glob: true },
    ok: 200,
  },
  {
    listeners: BOTH,
    method: 'DELETE',
    url: '/v1/keys/:name',
    path: '/v1/keys/none-dek',
    need: { scope: 'kms:destroy_key', glob: true },
    ok: 404,
  },
  ...(
    [
      ['PUT', '', { key: 'none' }, 409],
      ['DELETE', '', undefined, 200],
      ['POST', '/rewrap', undefined, 200],
    ] as const
  ).map(([method, more, body, ok]) => ({
    listeners: BOTH,
    method,
    url: `/v1/keys/:name/outside${more}`,
    path: `/v1/keys/known-dek/outside${more}`,
    ...(body === undefined ? {} : { body }),
    need: { scope: 'kms:admin', glob: true, serviceOnly: true } as const,
    ok,
  })),
  {
    listeners: BOTH,
    method: 'POST',
    url: '/v1/keys/:name/enable',
    path: '/v1/keys/known-dek/enable',
    need: { scope: 'kms:manage_key', glob: true },
    ok: 200,
  },
  {
    listeners: BOTH,
    method: 'POST',
    url: '/v1/keys/:name/take-over',
    path: '/v1/keys/none-dek/take-over',
    body: { storage: STORAGE },
    need: { scope: 'kms:manage_key', glob: true },
    ok: 404,
  },
  {
    listeners: BOTH,
    method: 'POST',
    url: '/v1/keys/:name/disable',
    path: '/v1/keys/none-dek/disable',
    need: { scope: 'kms:manage_key', glob: true },
    ok: 404,
  },
  {
    listeners: BOTH,
    method: 'POST',
    url: '/v1/keys/:name/restore',
    path: '/v1/keys/known-dek/restore',
    need: { scope: 'kms:manage_key', glob: true },
    ok: 409,
  },
  {
    listeners: BOTH,
    method: 'DELETE',
    url: '/v1/keys/:name/versions/:version',
    path: '/v1/keys/none-dek/versions/1?confirm=none-dek',
    need: { scope: 'kms:destroy_key', glob: true },
    ok: 404,
  },
  {
    listeners: BOTH,
    method: 'POST',
    url: '/v1/encrypt/:name',
    path: '/v1/encrypt/known-dek',
    body: { plaintext_b64: '' },
    need: { scope: 'kms:encrypt', glob: true },
    ok: 200,
  },
  {
    listeners: BOTH,
    method: 'POST',
    url: '/v1/data-key/:name',
    path: '/v1/data-key/known-dek',
    body: {},
    need: { scope: 'kms:encrypt', glob: true },
    ok: 200,
  },
  {
    listeners: BOTH,
    method: 'POST',
    url: '/v1/decrypt/:name',
    path: '/v1/decrypt/known-dek',
    body: { items: [{ ciphertext_b64: '' }] },
    need: { scope: 'kms:decrypt', glob: true },
    ok: 200,
  },
  {
    listeners: BOTH,
    method: 'POST',
    url: '/v1/rewrap/:name',
    path: '/v1/rewrap/known-dek',
    body: { items: [{ ciphertext_b64: '' }] },
    need: { scope: 'kms:encrypt', glob: true },
    ok: 200,
  },
  {
    listeners: ['internal'],
    method: 'GET',
    url: '/v1/export/:name',
    path: '/v1/export/known-dek',
    need: { scope: 'kms:export_key', glob: true, serviceOnly: true },
    ok: 200,
  },
  {
    listeners: ['internal'],
    method: 'GET',
    url: '/v1/export/:name',
    path: '/v1/export/known-dek?version=1',
    need: { scope: 'kms:export_key', glob: true, serviceOnly: true },
    ok: 200,
  },
  {
    listeners: ['internal'],
    method: 'GET',
    url: '/v1/events',
    path: '/v1/events',
    need: { scope: 'kms:export_key', serviceOnly: true },
    ok: 200,
    streams: true,
  },
  ...KEY_ACTIONS.map(
    ({ action, body, ...need }): Route => ({
      listeners: BOTH,
      method: 'POST',
      url: `/v1/keys/:name/${action}`,
      path: `/v1/keys/known-dek/${action}`,
      body,
      need: { ...need, glob: true },
      ok: 409,
    }),
  ),
  {
    listeners: BOTH,
    method: 'GET',
    url: '/v1/storages/:id',
    path: `/v1/storages/${STORAGE}`,
    need: { scope: 'kms:read_key', glob: true, serviceOnly: true },
    ok: 404,
  },
  {
    listeners: BOTH,
    method: 'POST',
    url: '/v1/storages/:id/advance',
    path: `/v1/storages/${randomUUID()}/advance`,
    body: { from: [], to: randomUUID() },
    need: { scope: 'kms:create_key', glob: true, serviceOnly: true },
    ok: 200,
  },
  {
    listeners: BOTH,
    method: 'POST',
    url: '/v1/storages/:id/take-over',
    path: `/v1/storages/${STORAGE}/take-over`,
    body: {},
    need: { scope: 'kms:manage_key', glob: true },
    ok: 404,
  },
  {
    listeners: BOTH,
    method: 'GET',
    url: '/v1/storages/:id/deletions',
    path: `/v1/storages/${STORAGE}/deletions?generation=${STORAGE}`,
    need: { scope: 'kms:shred_key', serviceOnly: true },
    ok: 409,
  },
  {
    listeners: BOTH,
    method: 'GET',
    url: '/v1/kek',
    path: '/v1/kek',
    need: { scope: 'kms:manage_kek', or: 'kms:admin' },
    ok: 200,
  },
  {
    listeners: BOTH,
    method: 'POST',
    url: '/v1/kek/rotate',
    path: '/v1/kek/rotate',
    need: { scope: 'kms:manage_kek' },
    ok: 409,
  },
  {
    listeners: BOTH,
    method: 'POST',
    url: '/v1/kek/verify',
    path: '/v1/kek/verify?limit=1',
    need: { scope: 'kms:manage_kek' },
    ok: 200,
  },
  {
    listeners: BOTH,
    method: 'POST',
    url: '/v1/kek/retire',
    path: '/v1/kek/retire',
    body: { kek_id: '0123456789abcdef' },
    need: { scope: 'kms:manage_kek' },
    ok: 404,
  },
  {
    listeners: BOTH,
    method: 'GET',
    url: '/v1/kek/:kek_id/unfetched',
    path: '/v1/kek/0123456789abcdef/unfetched',
    need: { scope: 'kms:manage_kek', or: 'kms:admin' },
    ok: 404,
  },
  {
    listeners: BOTH,
    method: 'POST',
    url: '/v1/tokens',
    path: '/v1/tokens',
    body: { sub: 'app', typ: 'client', scope: ['docs:read'], projects: ['a'] },
    need: { scope: 'kms:admin', or: 'kms:issue_client', serviceOnly: true, issues: true },
    ok: 201,
  },
  {
    listeners: BOTH,
    method: 'GET',
    url: '/v1/tokens',
    path: '/v1/tokens',
    need: { scope: 'kms:admin' },
    ok: 200,
  },
  {
    listeners: BOTH,
    method: 'POST',
    url: '/v1/tokens/renew',
    path: '/v1/tokens/renew',
    need: 'token',
    ok: 201,
  },
  {
    listeners: BOTH,
    method: 'DELETE',
    url: '/v1/tokens/:jti',
    path: `/v1/tokens/${UNKNOWN_JTI}`,
    need: { scope: 'kms:admin' },
    ok: 404,
  },
  {
    listeners: BOTH,
    method: 'GET',
    url: '/v1/audit',
    path: '/v1/audit?limit=1',
    need: { scope: 'kms:audit' },
    ok: 200,
  },
  {
    listeners: BOTH,
    method: 'GET',
    url: '/v1/audit/head',
    path: '/v1/audit/head',
    need: { scope: 'kms:audit' },
    ok: 200,
  },
  {
    listeners: BOTH,
    method: 'POST',
    url: '/v1/audit/verify',
    path: '/v1/audit/verify',
    body: { limit: 1 },
    need: { scope: 'kms:audit' },
    ok: 200,
  },
  {
    listeners: BOTH,
    method: 'GET',
    url: '/metrics',
    path: '/metrics',
    need: { scope: 'kms:metrics', serviceOnly: true },
    onInternal: 'public',
    ok: 200,
  },
];
