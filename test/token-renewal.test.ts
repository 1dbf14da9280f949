import { MovedClock } from '@bundoc/shared/testing/moved-clock';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { call, Installation } from './support/installation.ts';

const DAY_S = 86_400;
const clock = new MovedClock();
let installation: Installation;
beforeAll(async () => {
  installation = await Installation.start({ clock });
});
afterAll(() => installation[Symbol.asyncDispose]());

const lifeOf = (token: string) => {
  const payload = JSON.parse(Buffer.from(String(token.split('.')[1]), 'base64url').toString());
  return payload as { exp: number; iat: number; jti: string; scope: string; keys: string[] };
};
const tokenInFile = () => installation.read('kms-token').toString().trim();

describe('Bundoc’s own token', () => {
  it('is renewed at half its lifetime, so that Bundoc keeps working after the first token expires', async () => {
    const admin = await installation.issue({
      sub: 'admin',
      typ: 'service',
      scope: ['kms:admin'],
      may_issue: { scopes: ['docs:write'], projects: ['*'], ttl_s: 3_600 },
      ttl_s: 365 * DAY_S,
    });
    /** Issues a client token by the services' clock, and writes to a new project, which needs BunKMS. */
    const writeTo = async (project: string) => {
      const request = { sub: 'app', typ: 'client', scope: ['docs:write'], projects: ['*'] };
      const issued = await call(installation.kms.apiUrl, '/v1/tokens', {
        method: 'POST',
        token: admin,
        body: JSON.stringify(request),
      });
      return call(installation.url, `/v1/projects/${project}/collections/c/documents/a`, {
        method: 'PUT',
        token: String(issued.json()['token']),
        body: '{}',
      });
    };
    const first = tokenInFile();
    const lifeS = lifeOf(first).exp - lifeOf(first).iat;
    expect((await writeTo('first')).status).toBe(201);

    clock.movedMs = lifeS * 0.51 * 1000;
    await installation.stopBundoc();
    await installation.startBundoc();
    // The renewal is due at once, and the file changes when it is done.
    await expect.poll(tokenInFile).not.toBe(first);
    const second = tokenInFile();
    expect(lifeOf(second)).toMatchObject({ scope: lifeOf(first).scope, keys: lifeOf(first).keys });
    expect(lifeOf(second).exp - lifeOf(second).iat).toBe(lifeS);

    clock.movedMs = lifeS * 1.2 * 1000;
    const byFirst = await call(installation.kms.internalUrl, '/v1/export/first-dek', { token: first });
    expect(byFirst.status).toBe(401);
    expect((await writeTo('second')).status).toBe(201);
  });
});
