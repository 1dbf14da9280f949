import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startKms, type TestKms } from './support/kms.ts';

const SCOPES = ['kms:read_key', 'kms:create_key', 'kms:manage_key'] as const;
const storage = randomUUID();
const generation = randomUUID();
let kms: TestKms;
let owner: string;
beforeAll(async () => {
  kms = await startKms();
  owner = (await kms.issue({ scope: [...SCOPES], keys: ['*-dek'] })).token;
  const answer = await kms.api(`/v1/storages/${storage}/advance`, {
    token: owner,
    body: { from: [], to: generation },
  });
  expect(answer.status).toBe(200);
});
afterAll(() => kms[Symbol.asyncDispose]());

/** What anybody may know: the id of a storage, and its generation. */
const ATTEMPTS = [
  ['read', `/v1/storages/${storage}`, undefined],
  ['advance', `/v1/storages/${storage}/advance`, { from: [generation], to: randomUUID() }],
  ['register', `/v1/storages/${randomUUID()}/advance`, { from: [], to: randomUUID() }],
  ['take over', `/v1/storages/${storage}/take-over`, { generation: randomUUID(), force: true }],
] as const;

describe.each(['api', 'internal'] as const)('on the %s listener, a token for some keys', (listener) => {
  it.each(ATTEMPTS)('cannot %s a storage, which may hold the keys of others', async (_what, path, body) => {
    for (const keys of [['evil-*'], ['evil-dek'], ['*-de'], ['a*-dek', 'b*-dek'], []]) {
      const { token } = await kms.issue({ scope: [...SCOPES], keys });
      const answer = await kms[listener](path, { token, ...(body === undefined ? {} : { body }) });
      expect([answer.status, answer.json()['code']]).toEqual([403, 'forbidden']);
    }
    const now = await kms.api(`/v1/storages/${storage}`, { token: owner });
    expect(now.json()).toMatchObject({ generation });
  });
});
