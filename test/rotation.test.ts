import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { call, Installation } from './support/installation.ts';
import { MovedClock } from './support/moved-clock.ts';

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
});
