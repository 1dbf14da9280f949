import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { expect, it } from 'vitest';
import { call, Installation } from './support/installation.ts';

const documentOf = (project: string) => `/v1/projects/${project}/collections/notes/documents/first`;

it('BUNDOC_PROCESSOR_MS_PER_PROJECT limits the requests to one project, and not those to others', async () => {
  const clock = new FakeClock();
  // Tokens are issued by the clock of the machine.
  clock.setWall(Date.now());
  await using installation = await Installation.start({
    clock,
    environment: { BUNDOC_PROCESSOR_MS_PER_PROJECT: '1' },
  });
  const token = await installation.client(['a', 'b'], ['docs:read', 'docs:write', 'docs:admin']);
  const stranger = await installation.client(['c']);
  const send = (path: string, options: Parameters<typeof call>[2] = {}) =>
    call(installation.url, path, { token, ...options });

  // Requests without permission for a project use up none of its time.
  for (let n = 0; n < 20; n++) expect((await send(documentOf('a'), { token: stranger })).status).toBe(403);
  const put = { method: 'PUT', body: '{"v":1}' };
  expect((await send(documentOf('a'), put)).status).toBe(201);
  // Each counts for a tenth of a millisecond, and a burst of four seconds is allowed.
  for (let n = 0; n < 40; n++) expect((await send(documentOf('a'))).status).toBe(200);

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

  clock.advance(100);
  const read = await send(documentOf('a'));
  expect([read.status, read.json()['v']]).toEqual([200, 1]);
  expect((await send(documentOf('a'))).status).toBe(429);
  expect(await installation.metrics()).toMatch(/^bundoc_rate_limited_requests_total 7$/m);
});

it('BUNDOC_PROCESSOR_MS_PER_PROJECT counts the time of long work, and refuses requests until that time is paid off', async () => {
  const clock = new FakeClock();
  clock.setWall(Date.now());
  await using installation = await Installation.start({
    clock,
    environment: { BUNDOC_PROCESSOR_MS_PER_PROJECT: '1' },
  });
  const token = await installation.client(['a', 'b'], ['docs:read', 'docs:write']);
  const pad = `[${Array(20_000).fill(1).join()}]`;
  const body = JSON.stringify({
    operations: Array.from({ length: 20 }, (_, n) => ({
      op: 'put',
      collection: 'notes',
      id: `d${n}`,
      document: { pad: JSON.parse(pad) as unknown },
    })),
  });
  const written = await call(installation.url, '/v1/projects/a/batch', { token, method: 'POST', body });
  expect(written.status).toBe(200);
  const refused = await call(installation.url, documentOf('a'), { token });
  expect([refused.status, refused.json()['code']]).toEqual([429, 'rate_limited']);
  const afterS = Number(refused.headers['retry-after']);
  expect(afterS).toBeGreaterThan(0);
  expect((await call(installation.url, documentOf('b'), { token })).status).toBe(404);
  clock.advance((afterS + 1) * 1_000);
  expect((await call(installation.url, documentOf('a'), { token })).status).toBe(404);
  expect(await installation.metrics()).toMatch(/^bundoc_work_seconds_total\{kind="batch"\} \d+\.\d+$/m);
});
