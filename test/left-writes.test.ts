import { request } from 'node:http';
import { expect, it } from 'vitest';
import { call, Installation } from './support/installation.ts';

const WRITES = 24;
const COLLECTION = '/v1/projects/a/collections/checked';

it('the write of a large document ends at once when its client leaves, and gives its room back', async () => {
  await using installation = await Installation.start();
  const token = await installation.client(['a'], ['docs:read', 'docs:write', 'docs:admin']);
  const anyOf = [...Array.from({ length: 20 }, (_, n) => ({ const: -1 - n })), { type: 'integer' }];
  const schema = { properties: { v: { items: { anyOf } } } };
  const defined = { token, method: 'PUT', body: JSON.stringify({ schema }) };
  expect((await call(installation.url, COLLECTION, defined)).status).toBe(201);
  const body = JSON.stringify({ v: Array.from({ length: 45_000 }, (_, n) => n % 10) });
  const first = await call(installation.url, `${COLLECTION}/documents/first`, { token, method: 'PUT', body });
  expect(first.status).toBe(201);
  const figure = async (name: string) =>
    Number(new RegExp(`^${RegExp.escape(name)} (\\d+)$`, 'm').exec(await installation.metrics())?.[1]);
  const held = () => figure('bundoc_share_held{share="bytes"}');
  const waiting = async () =>
    (await figure('bundoc_work_waiting')) + (await figure('bundoc_large_work_waiting'));
  const writes = Array.from({ length: WRITES }, (_, n) => {
    const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' };
    const sent = request(`${installation.url}${COLLECTION}/documents/${n}`, { method: 'PUT', headers });
    sent.on('error', () => undefined);
    sent.end(body);
    return sent;
  });
  await expect.poll(waiting).toBeGreaterThan(WRITES - 4);
  for (const write of writes) write.destroy();
  await expect.poll(waiting).toBe(0);
  await expect.poll(held).toBe(0);
  // Those that went on would be written, or refused after 5 seconds.
  expect(await installation.metrics()).not.toMatch(/documents\/:id",method="PUT",status="503"/);
  const documents = await call(installation.url, `${COLLECTION}/documents?limit=100&fields=_id`, { token });
  expect((documents.json()['documents'] as unknown[]).length).toBeLessThan(WRITES / 2);
});
