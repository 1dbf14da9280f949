import { spawnSync } from 'node:child_process';
import { needs, pathOf } from '@bundoc/shared/testing/programs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { call, Installation } from './support/installation.ts';

/** The report of `promtool check metrics` about a scrape; empty without a fault. */
function checkMetrics(scrape: string): string {
  const { status, stdout, stderr } = spawnSync(String(pathOf('promtool')), ['check', 'metrics'], {
    input: scrape,
    encoding: 'utf8',
  });
  if (status === null) throw new Error('promtool was ended by a signal');
  return status === 0 ? '' : `${stdout}${stderr}`;
}

let installation: Installation;
beforeAll(async () => {
  installation = await Installation.start();
  const token = await installation.client(['p']);
  const path = '/v1/projects/p/collections/notes/documents/first';
  const { status } = await call(installation.url, path, { method: 'PUT', token, body: '{"v":1}' });
  expect(status).toBe(201);
});
afterAll(() => installation[Symbol.asyncDispose]());

const scrapes = {
  Bundoc: () => installation.metrics(),
  BunKMS: async () => (await call(installation.kms.internalUrl, '/metrics')).text,
};

describe.each(Object.entries(scrapes))('the metrics of a running %s', (service, scrape) => {
  it('pass promtool check metrics', needs('promtool'), async () => {
    const text = await scrape();
    expect(text).toMatch(
      new RegExp(`^${service.toLowerCase()}_http_request_duration_seconds_count\\{.+\\} [1-9]`, 'm'),
    );
    expect(checkMetrics(text)).toBe('');
    expect(checkMetrics(`${text}# HELP x_total X.\n# TYPE x_total gauge\nx_total 1\n`)).toContain('x_total');
  });

  it('contain no gauge named _total', async () => {
    const types = (await scrape()).matchAll(/^# TYPE (\S+) (\S+)$/gm);
    const totals = Array.from(types, ([, name, type]) => [name, type]).filter(([name]) =>
      name?.endsWith('_total'),
    );
    expect(totals.length).toBeGreaterThan(5);
    expect(totals.filter(([, type]) => type !== 'counter')).toEqual([]);
  });
});

it('Bundoc counts the documents that it seals and opens', async () => {
  const counts = async () => {
    const text = await installation.metrics();
    const of = (what: string) =>
      Number(new RegExp(`^bundoc_documents_${what}_total (\\d+)$`, 'm').exec(text)?.[1]);
    return [of('sealed'), of('opened')];
  };
  const [sealed = Number.NaN, opened = Number.NaN] = await counts();
  const token = await installation.client(['p']);
  const collection = '/v1/projects/p/collections/notes/documents';
  for (const id of ['second', 'third'])
    await call(installation.url, `${collection}/${id}`, { method: 'PUT', token, body: '{}' });
  for (let n = 0; n < 3; n++) await call(installation.url, `${collection}/first`, { token });
  expect(await counts()).toEqual([sealed + 2, opened + 3]);
});
