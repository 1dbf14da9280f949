import { CALL_DEADLINE_MS } from '@bundoc/bundoc/kms/transport';
import { MovedClock } from '@bundoc/shared/testing/moved-clock';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type Answer, call, Installation } from './support/installation.ts';

const TTL_MS = 900_000;
let clock: MovedClock;
let installation: Installation;
let token: string;
beforeEach(async () => {
  clock = new MovedClock();
  installation = await Installation.start({ clock, environment: { BUNDOC_KMS_DEADLINE_MS: '' } });
  token = await installation.client();
  expect((await write('warm')).status).toBe(201);
});
afterEach(() => installation[Symbol.asyncDispose]());

const pathOf = (project: string, id = 'a') => `/v1/projects/${project}/collections/notes/documents/${id}`;
const read = (project: string) => call(installation.url, pathOf(project), { token });
const write = (project: string, id = 'a') =>
  call(installation.url, pathOf(project, id), { method: 'PUT', token, body: '{"v":1}' });

function expectUnavailable(answer: Answer): void {
  expect([answer.status, answer.json()['code']]).toEqual([503, 'kms_unavailable']);
  expect(Number(answer.headers['retry-after'])).toBeGreaterThan(0);
}

describe('with BunKMS stopped', () => {
  it('a warm project reads and writes until the 15 minutes of its key end, and no longer', async () => {
    await installation.stopKms();
    clock.movedMs = TTL_MS - 60_000;
    expect((await read('warm')).status).toBe(200);
    expect((await write('warm', 'b')).status).toBe(201);
    clock.movedMs = TTL_MS;
    expectUnavailable(await read('warm'));
    expectUnavailable(await write('warm', 'c'));
    await installation.startKms();
    clock.movedMs += 1_000;
    expect((await read('warm')).status).toBe(200);
    expect((await call(installation.url, pathOf('warm', 'c'), { token })).status).toBe(404);
  });

  it('a cold project answers 503 with Retry-After in less than five seconds, and recovers without a restart', async () => {
    await installation.stopKms();
    const started = performance.now();
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, n) => write(`cold-${n % 4}`, `doc-${n}`)),
    );
    // The deadline plus slack for a busy machine. One after another, the requests would take longer.
    expect(CALL_DEADLINE_MS).toBeLessThan(5_000);
    expect(performance.now() - started).toBeLessThan(10 * CALL_DEADLINE_MS);
    for (const answer of answers) expectUnavailable(answer);
    await installation.startKms();
    clock.movedMs += 1_000;
    expect((await write('cold-1')).status).toBe(201);
  });

  it('Bundoc stays ready, and says that BunKMS is down', async () => {
    // The health check of BunKMS has a short timeout and runs every two seconds.
    await expect
      .poll(async () => (await call(installation.url, '/ready')).json())
      .toMatchObject({ status: 'ready', kms: 'up' });
    await installation.stopKms();
    clock.movedMs += 2_000;
    const ready = await call(installation.url, '/ready');
    expect([ready.status, ready.json()['kms']]).toEqual([200, 'down']);
  });
});

describe('the key of a project in use', () => {
  it('is fetched again before its lease ends, so that an outage at that moment does no harm', async () => {
    const fetched = async () => {
      const text = await installation.metrics();
      return Number(/^bundoc_key_fetches_total\{outcome="fetched"\} (\d+)/m.exec(text)?.[1]);
    };
    expect(await fetched()).toBe(1);
    clock.movedMs = TTL_MS * 0.95;
    expect((await read('warm')).status).toBe(200);
    await expect.poll(fetched).toBe(2);
    await installation.stopKms();
    clock.movedMs = TTL_MS * 1.5;
    expect((await read('warm')).status).toBe(200);
  });
});
