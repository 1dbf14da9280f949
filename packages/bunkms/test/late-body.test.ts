import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { type IncomingMessage, request } from 'node:http';
import { json } from 'node:stream/consumers';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { FaultyStore } from './support/faulty-store.ts';
import { KMS_SCOPES, startKms, type TestKms } from './support/kms.ts';
import { TestStorageNode } from './support/storages.ts';

/** A token is checked when the headers of a request have arrived, but the body may come much later. */
describe('a token that is revoked before the body of its request arrives', () => {
  const faulty = new FaultyStore();
  let kms: TestKms;
  let storage: TestStorageNode;
  beforeEach(async () => {
    kms = await startKms({ decorate: faulty.decorate });
    storage = await TestStorageNode.of(kms);
    expect((await storage.create('a-dek')).status).toBe(201);
  });
  afterEach(() => kms[Symbol.asyncDispose]());

  /** Sends the headers, revokes the token once the guard has passed it, and only then sends the body. */
  const late = async (path: string, body: object) => {
    const { token, jti } = await kms.issue({
      sub: 'thief',
      scope: KMS_SCOPES.filter((scope) => scope !== 'kms:issue_client'),
      keys: ['*'],
    });
    const passed = Promise.withResolvers<void>();
    faulty.replaced.findActiveTokenFamily = async (real, asked) => {
      const family = await real(asked);
      if (asked === jti) passed.resolve();
      return family;
    };
    const text = JSON.stringify(body);
    const sent = request(new URL(path, kms.running.internalUrl), {
      method: 'POST',
      headers: {
        authorization: `Bearer ${token}`,
        'content-type': 'application/json',
        'content-length': Buffer.byteLength(text),
      },
    });
    sent.flushHeaders();
    await passed.promise;
    delete faulty.replaced.findActiveTokenFamily;
    const admin = await kms.fullToken();
    expect((await kms.api(`/v1/tokens/${jti}`, { method: 'DELETE', token: admin })).status).toBe(204);
    sent.end(text);
    const [answer] = (await once(sent, 'response')) as [IncomingMessage];
    return [answer.statusCode, await json(answer)];
  };
  const refused = [401, expect.objectContaining({ code: 'unauthenticated' })];
  const changes = async () =>
    (await kms.records()).filter(({ actor, outcome }) => actor === 'thief' && outcome === 'allowed');

  it('destroys no key', async () => {
    const { receipt } = await storage.intend('a-dek');
    expect(await late('/v1/keys/a-dek/shred', { ...storage.acting, receipt })).toEqual(refused);
    expect((await kms.store.findKey('a-dek', 'current'))?.record?.state).toBe('pending_deletion');
    expect(await changes()).toEqual([]);
  });

  it.each([
    ['records no deletion intent', 'deletion-intent', () => storage.acting],
    ['offers no key', 'offer', () => ({ ...storage.acting, to: randomUUID(), move: randomUUID() })],
    ['takes no key over', 'take-over', () => ({ storage: randomUUID(), force: true })],
  ])('%s', async (_what, action, body) => {
    const before = await kms.store.lastChange('a-dek');
    expect(await late(`/v1/keys/a-dek/${action}`, body())).toEqual(refused);
    expect(await kms.store.lastChange('a-dek')).toEqual(before);
    expect(await changes()).toEqual([]);
  });

  it('creates no key', async () => {
    expect(await late('/v1/keys', { name: 'b-dek', type: 'aes-256' })).toEqual(refused);
    expect(await kms.store.findKey('b-dek', 'current')).toBeUndefined();
    expect(await changes()).toEqual([]);
  });
});
