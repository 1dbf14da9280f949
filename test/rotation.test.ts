import { MovedClock } from '@bundoc/shared/testing/moved-clock';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { call, Installation } from './support/installation.ts';

const clock = new MovedClock();
let installation: Installation;
let token: string;
beforeAll(async () => {
  installation = await Installation.start({ clock });
  token = await installation.client();
});
afterAll(() => installation[Symbol.asyncDispose]());

const path = (id: string) => `/v1/projects/rotated/collections/notes/documents/${id}`;
const put = (id: string) =>
  call(installation.url, path(id), { method: 'PUT', token, body: `{"id":"${id}"}` });
const gauge = async (name: string) => {
  const text = await installation.metrics();
  return Number(new RegExp(`^${name} (\\d+)`, 'm').exec(text)?.[1]);
};

describe('a key that is rotated in BunKMS', () => {
  it('is adopted without a refused request, and documents are resealed in the background and stay readable', async () => {
    for (let n = 0; n < 20; n++) expect((await put(`before-${n}`)).status).toBe(201);
    const operator = await installation.issue({
      sub: 'ops',
      typ: 'service',
      scope: ['kms:rotate_key', 'kms:read_key'],
      keys: ['rotated-dek'],
    });
    const rotated = await call(installation.kms.apiUrl, '/v1/keys/rotated-dek/rotate', {
      method: 'POST',
      token: operator,
    });
    expect([rotated.status, rotated.json()['version']]).toEqual([200, 2]);

    // The key in use is fetched again after 80 % of its lifetime.
    clock.movedMs = 900_000 * 0.85;
    const versions = async () =>
      (JSON.parse(await installation.stored.projectFile('rotated')).versions as { version: number }[]).map(
        ({ version }) => version,
      );
    let writes = 0;
    await expect
      .poll(async () => {
        expect((await put(`during-${writes++}`)).status).toBe(201);
        return versions();
      })
      .toEqual([1, 2]);
    await expect.poll(() => gauge('bundoc_documents_pending_reencryption')).toBe(0);
    await installation.stopBundoc();
    await installation.startBundoc();
    for (let n = 0; n < 20; n++)
      expect((await call(installation.url, path(`before-${n}`), { token })).json()['id']).toBe(`before-${n}`);
    for (let n = 0; n < writes; n++)
      expect((await call(installation.url, path(`during-${n}`), { token })).status).toBe(200);
  });

  it('may lose a former version that seals nothing, and then opens without it', async () => {
    const operator = await installation.issue({
      sub: 'ops',
      typ: 'service',
      keys: ['retired-dek'],
      scope: ['kms:rotate_key', 'kms:destroy_key'],
    });
    const kms = (method: string, path: string) =>
      call(installation.kms.apiUrl, `/v1/keys/retired-dek${path}`, { method, token: operator });
    const document = (id: string) => `/v1/projects/retired/collections/notes/documents/${id}`;
    const write = (id: string) =>
      call(installation.url, document(id), { method: 'PUT', token, body: `{"id":"${id}"}` });
    const left = async () =>
      (await call(installation.url, '/v1/projects/retired', { token })).json()['key'] as {
        versions: number[];
        documents_to_reseal: number;
      };
    for (const id of ['a', 'b']) expect((await write(id)).status).toBe(201);
    expect((await kms('POST', '/rotate')).status).toBe(200);
    await expect.poll(left, { timeout: 20_000 }).toMatchObject({ versions: [1, 2], documents_to_reseal: 0 });
    expect((await kms('DELETE', '/versions/1?confirm=retired-dek')).status).toBe(200);

    const read = async (id: string) => (await call(installation.url, document(id), { token })).status;
    await installation.stopBundoc();
    await installation.startBundoc();
    expect([await read('a'), await read('b'), (await write('c')).status]).toEqual([200, 200, 201]);
    // A further version is adopted, too.
    expect((await kms('POST', '/rotate')).status).toBe(200);
    await expect
      .poll(left, { timeout: 20_000 })
      .toMatchObject({ versions: [1, 2, 3], documents_to_reseal: 0 });
    expect((await kms('DELETE', '/versions/2?confirm=retired-dek')).status).toBe(200);
    await installation.stopBundoc();
    await installation.startBundoc();
    expect([await read('a'), await read('c')]).toEqual([200, 200]);
    const deleted = await call(installation.url, '/v1/projects/retired?confirm=retired', {
      method: 'DELETE',
      token: await installation.client(['retired'], ['docs:admin']),
    });
    expect(deleted.status).toBe(200);
  });
});
