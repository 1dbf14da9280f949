import { randomBytes } from 'node:crypto';
import { MovedClock } from '@bundoc/shared/testing/moved-clock';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { call, Installation } from './support/installation.ts';

const [old, further] = [randomBytes(32).toString('hex'), randomBytes(32).toString('hex')];
const kmsEnvironment = { BUNKMS_KEK: `${old}\n${further}` };
const clock = new MovedClock();
let installation: Installation;
let token: string;
let admin: string;
beforeAll(async () => {
  installation = await Installation.start({ clock, kmsEnvironment });
  token = await installation.client();
  admin = await installation.issue({
    sub: 'ops',
    typ: 'service',
    scope: ['kms:manage_kek', 'kms:rotate_key'],
    keys: ['*'],
  });
});
afterAll(() => installation[Symbol.asyncDispose]());

const path = (project: string, id: string) => `/v1/projects/${project}/collections/notes/documents/${id}`;
const put = (project: string, id: string) =>
  call(installation.url, path(project, id), { method: 'PUT', token, body: `{"id":"${id}"}` });
const get = (project: string, id: string) => call(installation.url, path(project, id), { token });
const kms = (pathOf: string, method = 'GET', body?: object) =>
  call(installation.kms.apiUrl, pathOf, {
    method,
    token: admin,
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
interface Status {
  readonly current: string;
  readonly rotation?: { readonly from: string; readonly completed_at?: string };
}
const status = async () => (await kms('/v1/kek')).json() as unknown as Status;
/** The KEK of each wrapped key in a project's file, by version. */
const keksOf = async (project: string) =>
  (JSON.parse(await installation.stored.projectFile(project)).versions as { wrapped: string }[]).map(
    ({ wrapped }) => Buffer.from(wrapped, 'base64').toString('hex', 1, 9),
  );

describe('a KEK that is rotated in BunKMS', () => {
  it('is invisible to clients of Bundoc, and project.json follows in every version of the key', async () => {
    for (const project of ['warm', 'cold']) expect((await put(project, 'first')).status).toBe(201);
    expect((await kms('/v1/keys/warm-dek/rotate', 'POST')).status).toBe(200);
    await expect
      .poll(async () => {
        await put('warm', 'second');
        return (await keksOf('warm')).length;
      })
      .toBe(2);
    const { current: former } = await status();
    expect([...(await keksOf('warm')), ...(await keksOf('cold'))]).toEqual([former, former, former]);

    expect((await kms('/v1/kek/rotate', 'POST', {})).status).toBe(202);
    let writes = 0;
    await expect
      .poll(async () => {
        expect((await put('warm', `during-${writes++}`)).status).toBe(201);
        expect((await put('new', `during-${writes}`)).status).toBe(201);
        return (await status()).rotation?.completed_at;
      })
      .toBeDefined();
    const { current } = await status();
    expect(current).not.toBe(former);
    const retire = { kek_id: former };
    expect((await kms('/v1/kek/retire', 'POST', retire)).json()).toMatchObject({ code: 'kek_unfetched' });

    // A key in use is fetched again after 80 % of its lifetime. The other project is opened again.
    clock.movedMs = 900_000 * 0.85;
    await expect
      .poll(async () => {
        await put('warm', 'later');
        return keksOf('warm');
      })
      .toEqual([current, current]);
    clock.movedMs = 900_000 * 2;
    token = await installation.client();
    expect((await get('cold', 'first')).status).toBe(200);
    await expect.poll(() => keksOf('cold')).toEqual([current]);
    await expect.poll(() => keksOf('new')).toEqual([current]);

    expect((await kms(`/v1/kek/${former}/unfetched`)).json()).toEqual({ keys: [] });
    expect((await kms('/v1/kek/retire', 'POST', retire)).status).toBe(200);
    await installation.stopBundoc();
    await installation.stopKms();
    kmsEnvironment.BUNKMS_KEK = further;
    await installation.startKms();
    await installation.startBundoc();
    for (const [project, id] of [
      ['warm', 'first'],
      ['warm', 'second'],
      ['warm', 'later'],
      ['cold', 'first'],
      ['new', 'during-1'],
    ] as const)
      expect((await get(project, id)).json()['id']).toBe(id);
    expect((await put('cold', 'last')).status).toBe(201);
  });
});
