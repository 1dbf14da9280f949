import { randomBytes } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { leasePageSchema } from '@bundoc/shared/contract/keys';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { Customer } from '../packages/bunkms/test/support/customer.ts';
import { call, Installation } from './support/installation.ts';

const LEASE_MS = 3_000;
/** How much later than Bundoc BunKMS may count a lease, milliseconds: the request took time. */
const REQUEST_MS = 1_000;
const EVERY_MS = 250;
let customer: Customer;
let installation: Installation;
let admin: string;
let token: string;
beforeAll(async () => {
  customer = await Customer.start();
  customer.write({ acme: { keys: ['acme-*'] } });
  installation = await Installation.start({
    kmsEnvironment: {
      BUNKMS_OUTSIDE_KEYS_FILE: customer.file,
      BUNKMS_LEASE_TTL_MS: String(LEASE_MS),
    },
  });
  const scope = ['kms:admin', 'kms:read_key'] as const;
  admin = await installation.issue({ sub: 'ops', typ: 'service', scope: [...scope], keys: ['*'] });
  token = await installation.client(['*'], ['docs:read', 'docs:write', 'docs:admin']);
});
afterAll(async () => {
  await installation?.[Symbol.asyncDispose]();
  await customer?.[Symbol.asyncDispose]();
});

const path = (project: string, id: string) => `/v1/projects/${project}/collections/c/documents/${id}`;
const put = (project: string, id: string) =>
  call(installation.url, path(project, id), { method: 'PUT', token, body: '{"n":1}' });
const get = (project: string, id: string) => call(installation.url, path(project, id), { token });
const codeOf = async (asked: Promise<{ status: number; json(): Record<string, unknown> }>) => {
  const answer = await asked;
  return answer.status < 300 ? 'ok' : String(answer.json()['code']);
};
/** What a read and a write answer now. */
const both = async (project: string) => [
  await codeOf(get(project, 'before')),
  await codeOf(put(project, 'now')),
];
const formats = async () => {
  const file = JSON.parse(await installation.stored.projectFile('acme-1')) as {
    versions: { version: number; wrapped: string }[];
  };
  return file.versions.map(({ wrapped }) => Buffer.from(wrapped, 'base64')[0]);
};
const PATIENT = { timeout: 60_000, interval: 100 };

interface Seen {
  readonly begunMs: number;
  readonly endedMs: number;
  readonly codes: readonly string[];
}

/** A client that reads and writes a document of the customer again and again. */
class SteadyClient implements AsyncDisposable {
  readonly seen: Seen[] = [];
  #isStopped = false;
  readonly #running = this.#run();

  /** Resolves once it has seen this several times one after another. */
  async sees(...codes: readonly string[]): Promise<void> {
    const since = this.seen.length;
    await expect
      .poll(
        () =>
          this.seen
            .slice(since)
            .slice(-3)
            .map((one) => one.codes),
        PATIENT,
      )
      .toEqual([codes, codes, codes]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isStopped = true;
    await this.#running;
  }

  async #run(): Promise<void> {
    while (!this.#isStopped) {
      const begunMs = Date.now();
      const codes = await both('acme-1').catch((error: Error) => [error.message]);
      this.seen.push({ begunMs, endedMs: Date.now(), codes });
      await delay(EVERY_MS);
    }
  }
}

/** The end of the newest lease of the customer's key. */
async function leaseEndMs(): Promise<number> {
  const answer = await call(installation.kms.apiUrl, '/v1/keys/acme-1-dek/leases', { token: admin });
  const { leases } = leasePageSchema.parse(answer.json());
  return Math.max(...leases.map(({ until }) => Date.parse(until)));
}

it('a customer takes his data back, gives it again, and destroys it; no other project notices', async () => {
  expect((await put('acme-1', 'before')).status).toBe(201);
  expect((await put('other', 'before')).status).toBe(201);
  const attached = await call(installation.kms.apiUrl, '/v1/keys/acme-1-dek/outside', {
    method: 'PUT',
    token: admin,
    body: '{"key":"acme"}',
  });
  expect(attached.status, attached.text).toBe(200);
  // New documents come under the version that needs him, as after any rotation.
  await expect
    .poll(async () => [...(await both('acme-1')), ...(await formats())], PATIENT)
    .toEqual(['ok', 'ok', 1, 2]);
  const rewrapped = await call(installation.kms.apiUrl, '/v1/keys/acme-1-dek/outside/rewrap', {
    method: 'POST',
    token: admin,
  });
  expect(rewrapped.json()).toMatchObject({ other_versions: [] });

  await using client = new SteadyClient();
  const took = (sinceMs: number, untilMs = Date.now()) =>
    client.seen
      .filter(({ begunMs, endedMs }) => begunMs > sinceMs + LEASE_MS && endedMs < untilMs)
      .flatMap(({ codes }) => codes);
  await client.sees('ok', 'ok');

  customer.attitude = 'denying';
  const deniedMs = Date.now();
  await client.sees('project_disabled', 'project_disabled');
  expect(await both('other')).toEqual(['ok', 'ok']);
  const givenMs = Date.now();
  customer.attitude = 'present';
  await client.sees('ok', 'ok');
  expect(took(deniedMs, givenMs)).not.toContain('ok');

  customer.attitude = 'away';
  const awayMs = Date.now();
  const endMs = await leaseEndMs();
  await client.sees('kms_unavailable', 'kms_unavailable');
  expect(await both('other')).toEqual(['ok', 'ok']);
  const during = client.seen.filter(
    ({ begunMs, endedMs }) => begunMs > awayMs && endedMs < endMs - REQUEST_MS,
  );
  expect(new Set(during.flatMap(({ codes }) => codes)).difference(new Set(['ok']))).toEqual(new Set());
  const backMs = Date.now();
  customer.attitude = 'present';
  await client.sees('ok', 'ok');
  expect(took(awayMs, backMs)).not.toContain('ok');

  customer.service.keys.set('acme', randomBytes(32));
  const destroyedMs = Date.now();
  await expect.poll(() => client.seen.at(-1)?.codes, PATIENT).not.toContain('ok');
  await installation.stopBundoc();
  await installation.stopKms();
  await installation.startKms();
  await installation.startBundoc();
  expect(await both('acme-1')).not.toContain('ok');
  expect(took(destroyedMs)).not.toContain('ok');
  expect(await both('other')).toEqual(['ok', 'ok']);
});

it('a project is deleted although its customer has destroyed his key', async () => {
  const deleted = await call(installation.url, '/v1/projects/acme-1?confirm=acme-1', {
    method: 'DELETE',
    token,
  });
  expect(deleted.status, deleted.text).toBeLessThan(300);
  expect(await both('acme-1')).toEqual(['project_destroyed', 'project_destroyed']);
});
