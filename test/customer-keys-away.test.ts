import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { TransitServer } from '../packages/bunkms/test/support/transit-server.ts';
import { call, Installation } from './support/installation.ts';

/** More than there are connections to BunKMS, and openings at once. */
const PROJECTS = Array.from({ length: 100 }, (_, n) => `acme-${n}`);
let folder: string;
let customers: TransitServer;
let installation: Installation;
let token: string;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'bundoc-away-'));
  customers = await TransitServer.start();
  customers.keys.set('acme', randomBytes(32));
  writeFileSync(join(folder, 'token'), customers.newToken());
  const acme = { kind: 'transit', url: customers.url, key: 'acme', token_file: 'token', create: ['acme-*'] };
  writeFileSync(join(folder, 'outside.json'), JSON.stringify({ keys: { acme } }));
  installation = await Installation.start({
    kmsEnvironment: { BUNKMS_OUTSIDE_KEYS_FILE: join(folder, 'outside.json') },
  });
  token = await installation.client();
});
afterAll(async () => {
  await installation[Symbol.asyncDispose]();
  await customers[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true });
});

const path = (project: string) => `/v1/projects/${project}/collections/c/documents/d`;
const put = (project: string) =>
  call(installation.url, path(project), { method: 'PUT', token, body: '{"n":1}' });
const get = async (project: string) => {
  const answer = await call(installation.url, path(project), { token });
  return answer.status === 200 ? 'ok' : answer.json()['code'];
};
const getAll = async () => new Set(await Promise.all(PROJECTS.map(get)));
const callsOf = async (asked: () => Promise<unknown>) => {
  const before = customers.asked.length;
  await asked();
  return customers.asked.length - before;
};

it("a customer's service that hangs delays no other cold project, and gets few calls until it answers", async () => {
  for (const project of [...PROJECTS, 'other']) expect((await put(project)).status).toBe(201);
  await installation.stopBundoc();
  await installation.startBundoc();
  const made = customers.asked.length;
  customers.intercept = () => undefined;

  const hanging = getAll();
  await expect.poll(() => customers.asked.length).toBeGreaterThan(made);
  let isOver = false;
  void hanging.then(() => {
    isOver = true;
  });
  expect(await get('other')).toBe('ok');
  expect((await put('created')).status).toBe(201);
  expect(isOver).toBe(false);
  expect(await hanging).toEqual(new Set(['kms_unavailable']));

  // Each project learns under which outside key it is, and then one call a pause is left.
  await getAll();
  expect(
    await callsOf(async () => expect(await getAll()).toEqual(new Set(['kms_unavailable']))),
  ).toBeLessThan(5);
  customers.intercept = undefined;
  await expect.poll(getAll, { timeout: 30_000, interval: 500 }).toEqual(new Set(['ok']));
});
