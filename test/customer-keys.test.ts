import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { TransitServer, type TransitToken } from '../packages/bunkms/test/support/transit-server.ts';
import { call, Installation } from './support/installation.ts';

const LEASE_MS = 2_000;
let folder: string;
let customers: TransitServer;
let installation: Installation;
let admin: string;
let token: string;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'bundoc-customer-'));
  customers = await TransitServer.start();
  customers.keys.set('acme', randomBytes(32));
  writeFileSync(join(folder, 'token'), customers.newToken());
  const acme = { kind: 'transit', url: customers.url, key: 'acme', token_file: 'token', keys: ['acme-*'] };
  writeFileSync(join(folder, 'outside.json'), JSON.stringify({ keys: { acme } }));
  installation = await Installation.start({
    kmsEnvironment: {
      BUNKMS_OUTSIDE_KEYS_FILE: join(folder, 'outside.json'),
      BUNKMS_LEASE_TTL_MS: String(LEASE_MS),
    },
  });
  admin = await installation.issue({ sub: 'ops', typ: 'service', scope: ['kms:admin'], keys: ['*'] });
  token = await installation.client();
});
afterAll(async () => {
  await installation[Symbol.asyncDispose]();
  await customers[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true });
});

const path = (project: string, id: string) => `/v1/projects/${project}/collections/c/documents/${id}`;
const put = (project: string, id: string) =>
  call(installation.url, path(project, id), { method: 'PUT', token, body: '{"n":1}' });
const get = (project: string, id: string) => call(installation.url, path(project, id), { token });
const codeOf = async (asked: Promise<{ status: number; json(): Record<string, unknown> }>) => {
  const answer = await asked;
  return answer.status < 300 ? 'ok' : answer.json()['code'];
};
/** What a read and a write answer now. */
const both = async (project = 'acme-1') => [
  await codeOf(get(project, 'before')),
  await codeOf(put(project, 'now')),
];
const formats = async () => {
  const file = JSON.parse(await installation.stored.projectFile('acme-1')) as {
    versions: { version: number; wrapped: string }[];
  };
  return file.versions.map(({ wrapped }) => Buffer.from(wrapped, 'base64')[0]);
};
const PATIENT = { timeout: 20_000, interval: 100 };

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
    .poll(async () => [...(await both()), ...(await formats())], PATIENT)
    .toEqual(['ok', 'ok', 1, 2]);
  const rewrapped = await call(installation.kms.apiUrl, '/v1/keys/acme-1-dek/outside/rewrap', {
    method: 'POST',
    token: admin,
  });
  expect(rewrapped.json()).toMatchObject({ other_versions: [] });

  const holder = [...customers.tokens.values()][0] as TransitToken;
  holder.mayUse = false;
  await expect.poll(() => both(), PATIENT).toEqual(['project_disabled', 'project_disabled']);
  expect(await both('other')).toEqual(['ok', 'ok']);
  holder.mayUse = true;
  await expect.poll(() => both(), PATIENT).toEqual(['ok', 'ok']);

  customers.intercept = (_request, response) => response.destroy();
  await expect.poll(() => both(), PATIENT).toEqual(['kms_unavailable', 'kms_unavailable']);
  expect(await both('other')).toEqual(['ok', 'ok']);
  customers.intercept = undefined;
  await expect.poll(() => both(), PATIENT).toEqual(['ok', 'ok']);

  customers.keys.set('acme', randomBytes(32));
  await expect.poll(() => both(), PATIENT).not.toContain('ok');
  expect(await both('other')).toEqual(['ok', 'ok']);
});
