import { randomBytes, randomUUID } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { init } from '@bundoc/bunkms/cli/init';
import { withKms } from '@bundoc/bunkms/cli/open-kms';
import { dekNameOf } from '@bundoc/shared/contract/keys';
import { type IssueTokenInput, issueTokenSchema } from '@bundoc/shared/contract/tokens';
import { runs } from '@bundoc/shared/testing/long';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type Server, startServer } from '../packages/bunkms/test/support/process.ts';
import { type BundocProcess, startBundocProcess } from './support/bundoc-process.ts';
import { call } from './support/installation.ts';
import { newStorage } from './support/stored-projects.ts';

/** Repeated, because a stall of the machine may delay one of them. */
const TAKE_OVERS = runs(3, 5);
const WITHIN_MS = 1_000;
const PROJECTS = Array.from({ length: TAKE_OVERS }, (_, n) => `p${n}`);

let folder: string;
let kmsEnvironment: Record<string, string>;
let kms: Server | undefined;
let bundoc: BundocProcess | undefined;
let client: string;
let admin: string;

/** Every service has its own process, so none waits for the work of another one or of the test. */
beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'bundoc-take-over-'));
  const tokenFile = join(folder, 'kms-token');
  kmsEnvironment = { BUNKMS_DATA_DIR: join(folder, 'kms'), BUNKMS_KEK: randomBytes(32).toString('hex') };
  await init(kmsEnvironment, { serviceToken: tokenFile });
  kms = await startServer(kmsEnvironment);
  bundoc = await startBundocProcess({
    ...(await newStorage(join(folder, 'data'))).environment,
    BUNDOC_KMS_URL: kms.internalUrl,
    BUNDOC_KMS_TOKEN_FILE: tokenFile,
  });
  client = await issue({ sub: 'app', typ: 'client', scope: ['docs:read', 'docs:write'], projects: ['*'] });
  admin = await issue({ sub: 'admin', typ: 'service', scope: ['kms:manage_key'], keys: ['*'] });
  await expect.poll(async () => (await ready())['kms_events']).toBe('live');
});
afterEach(async () => {
  await bundoc?.stop();
  await kms?.stop();
  [bundoc, kms] = [undefined, undefined];
  rmSync(folder, { recursive: true, force: true });
});

const issue = (request: IssueTokenInput) =>
  withKms(
    kmsEnvironment,
    async ({ tokens }) => (await tokens.issue(issueTokenSchema.parse(request), { actor: 'cli' })).token,
  );
const ready = async () => (await call(String(bundoc?.url), '/ready')).json();
const ask = (project: string, body?: string) =>
  call(String(bundoc?.url), `/v1/projects/${project}/collections/notes/documents/a`, {
    token: client,
    method: body === undefined ? 'GET' : 'PUT',
    ...(body === undefined ? {} : { body }),
  });
const codeOf = async (project: string) => {
  const answer = await ask(project);
  return answer.status === 200 ? 'served' : answer.json()['code'];
};

async function takeOver(what: string, body: Record<string, unknown>): Promise<void> {
  const text = JSON.stringify({ ...body, force: true });
  const path = `/v1/${what}/take-over`;
  const answer = await call(String(kms?.internalUrl), path, { method: 'POST', token: admin, body: text });
  expect(answer.status, answer.text).toBe(200);
}

/** The time for which the former holder still answers after the request for a take-over. */
async function servedFor(project: string, code: string, take: () => Promise<void>): Promise<number> {
  expect(await codeOf(project)).toBe('served');
  const asked = performance.now();
  const taken = take();
  for (;;) {
    const answered = await codeOf(project);
    if (answered === code) break;
    expect(answered).toBe('served');
  }
  const ms = performance.now() - asked;
  await taken;
  return ms;
}

function expectShort(times: readonly number[]): void {
  const [, slowest] = [...times].sort((a, b) => b - a);
  expect(slowest, times.join()).toBeLessThan(WITHIN_MS);
}

describe('the former holder, told by an event,', () => {
  it('serves a project for less than a second after another storage takes its key', async () => {
    for (const project of PROJECTS) expect((await ask(project, '{}')).status).toBe(201);
    const times: number[] = [];
    for (const project of PROJECTS) {
      const take = () => takeOver(`keys/${dekNameOf(project)}`, { storage: randomUUID() });
      times.push(await servedFor(project, 'project_elsewhere', take));
    }
    expectShort(times);
  });

  it('stops serving in less than a second after a copy of its storage takes its place', async () => {
    expect((await ask('p', '{}')).status).toBe(201);
    const id = String((await ready())['storage_id']);
    const times: number[] = [];
    for (const _ of PROJECTS) {
      const take = () => takeOver(`storages/${id}`, { generation: randomUUID() });
      times.push(await servedFor('p', 'storage_superseded', take));
      await takeOver(`storages/${id}`, {});
      await expect.poll(() => codeOf('p')).toBe('served');
    }
    expectShort(times);
  });
});
