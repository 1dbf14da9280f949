import { request } from 'node:http';
import { expect, it } from 'vitest';
import { call, Installation } from './support/installation.ts';

const WRITES = 24;
const COLLECTION = '/v1/projects/a/collections/checked';

it('a large document whose client has left is not checked any more, and gives its room back', async () => {
  await using installation = await Installation.start();
  const token = await installation.client(['a'], ['docs:read', 'docs:write', 'docs:admin']);
  const anyOf = [...Array.from({ length: 20 }, (_, n) => ({ const: -1 - n })), { type: 'integer' }];
  const schema = { properties: { v: { items: { anyOf } } } };
  const defined = { token, method: 'PUT', body: JSON.stringify({ schema }) };
  expect((await call(installation.url, COLLECTION, defined)).status).toBe(201);
  const body = JSON.stringify({ v: Array.from({ length: 45_000 }, (_, n) => n % 10) });
  const first = await call(installation.url, `${COLLECTION}/documents/first`, { token, method: 'PUT', body });
  expect([first.status, first.text]).toMatchObject([201, expect.anything()]);
  const figure = async (pattern: RegExp) => Number(pattern.exec(await installation.metrics())?.[1] ?? 0);
  const workedS = () => figure(/^bundoc_work_seconds_total\{kind="write"\} (\S+)$/m);
  const held = () => figure(/^bundoc_share_held\{share="request_bodies"\} (\d+)$/m);
  const oneS = await workedS();
  expect(oneS).toBeGreaterThan(0);

  const writes = Array.from({ length: WRITES }, (_, n) => {
    const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' };
    const sent = request(`${installation.url}${COLLECTION}/documents/${n}`, { method: 'PUT', headers });
    sent.on('error', () => undefined);
    sent.end(body);
    return sent;
  });
  await expect.poll(held).toBeGreaterThan((WRITES - 4) * body.length);
  for (const write of writes) write.destroy();
  await expect.poll(held).toBe(0);
  expect(await workedS()).toBeLessThan((oneS * WRITES) / 2);
});
