import { MovedClock } from '@bundoc/shared/testing/moved-clock';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { call, Installation } from './support/installation.ts';

let clock: MovedClock;
let installation: Installation;
let client: string;
let operator: string;
beforeEach(async () => {
  clock = new MovedClock();
  installation = await Installation.start({ clock });
  client = await installation.client();
  operator = await installation.issue({
    sub: 'operator',
    typ: 'service',
    scope: ['kms:manage_key', 'kms:destroy_key', 'kms:read_key'],
    keys: ['*'],
    ttl_s: 86_400,
  });
  expect((await write('p')).status).toBe(201);
});
afterEach(() => installation[Symbol.asyncDispose]());

const pathOf = (project: string) => `/v1/projects/${project}/collections/notes/documents/a`;
const read = (project: string) => call(installation.url, pathOf(project), { token: client });
const write = (project: string) =>
  call(installation.url, pathOf(project), { method: 'PUT', token: client, body: '{"v":1}' });
const onKey = (method: string, path: string) =>
  call(installation.kms.apiUrl, `/v1/keys/p-dek${path}`, { method, token: operator });

/** The clock does not move: an event tells Bundoc. */
const expectTold = (status: number) => expect.poll(async () => (await read('p')).status).toBe(status);

describe('a project whose key becomes unavailable', () => {
  it.each([
    ['disabled', 'POST', '/disable', ['/enable']],
    ['scheduled for deletion', 'DELETE', '?pending_days=7', ['/restore', '/enable']],
  ] as const)(
    'because it is %s answers 403 promptly, and works again once the key is available',
    async (_what, method, path, back) => {
      expect((await onKey(method, path)).status).toBeLessThan(300);
      await expectTold(403);
      expect((await read('p')).json()).toMatchObject({ status: 403, code: 'project_disabled' });
      expect((await write('p')).json()).toMatchObject({ status: 403, code: 'project_disabled' });
      for (const action of back) expect((await onKey('POST', action)).status).toBe(200);
      clock.movedMs += 2_000;
      expect((await read('p')).json()).toMatchObject({ v: 1 });
    },
  );

  it('because it is destroyed answers 410 permanently, and gets no new key', async () => {
    expect((await onKey('DELETE', '?pending_days=0&confirm=p-dek')).status).toBe(200);
    await expectTold(410);
    for (const answer of [await read('p'), await write('p')])
      expect(answer.json()).toMatchObject({ status: 410, code: 'project_destroyed' });
    expect((await onKey('GET', '')).json()).toMatchObject({ status: 410, code: 'key_destroyed' });
    expect((await write('another')).status).toBe(201);
  });
});
