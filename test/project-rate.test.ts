import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { expect, it } from 'vitest';
import { call, Installation } from './support/installation.ts';

const documentOf = (project: string) => `/v1/projects/${project}/collections/notes/documents/first`;

it('BUNDOC_REQUESTS_PER_PROJECT bounds what one project is asked, and nobody else', async () => {
  const clock = new FakeClock();
  // Tokens are issued by the clock of the machine.
  clock.setWall(Date.now());
  await using installation = await Installation.start({
    clock,
    environment: { BUNDOC_REQUESTS_PER_PROJECT: '2' },
  });
  const token = await installation.client(['a', 'b'], ['docs:read', 'docs:write', 'docs:admin']);
  const stranger = await installation.client(['c']);
  const send = (path: string, options: Parameters<typeof call>[2] = {}) =>
    call(installation.url, path, { token, ...options });

  // Whoever may not work in a project uses up nothing of it.
  for (let n = 0; n < 20; n++) expect((await send(documentOf('a'), { token: stranger })).status).toBe(403);
  const put = { method: 'PUT', body: '{"v":1}' };
  expect((await send(documentOf('a'), put)).status).toBe(201);
  for (let n = 0; n < 9; n++) expect((await send(documentOf('a'))).status).toBe(200);

  for (const [path, options] of [
    [documentOf('a')],
    [documentOf('A')],
    [documentOf('a'), { method: 'PUT', body: '{"v":2}' }],
    ['/v1/projects/a'],
    ['/v1/projects/a/changes'],
    ['/v1/projects/a/batch', { method: 'POST', body: '{}' }],
  ] as const) {
    const refused = await send(path, options);
    expect([refused.status, refused.json()['code']], path).toEqual([429, 'rate_limited']);
    expect(refused.headers['retry-after']).toBe('1');
  }
  expect((await send(documentOf('b'), put)).status).toBe(201);
  expect((await send('/v1/projects')).status).toBe(200);

  clock.advance(500);
  const read = await send(documentOf('a'));
  expect([read.status, read.json()['v']]).toEqual([200, 1]);
  expect((await send(documentOf('a'))).status).toBe(429);
  expect(await installation.metrics()).toMatch(/^bundoc_rate_limited_total 7$/m);
});
