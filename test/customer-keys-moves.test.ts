import { join } from 'node:path';
import { PostgresServer } from '@bundoc/shared/testing/postgres-server';
import { needs } from '@bundoc/shared/testing/programs';
import { patientUrl } from '@bundoc/shared/testing/timing';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { ATTITUDES, type Attitude, Customer } from '../packages/bunkms/test/support/customer.ts';
import { bundocCommand } from './support/bundoc-command.ts';
import { startConfiguredBundoc } from './support/bundoc-process.ts';
import { call, Installation, PATIENT_BUNDOC } from './support/installation.ts';

const LEASE_MS = 2_000;
const PATIENT = { timeout: 60_000, interval: 100 };
/** What Bundoc answers once the lease is over. */
const CODE = { away: 'kms_unavailable', denying: 'project_disabled' } as const;

describe('a project of a customer', needs('postgresql'), () => {
  let server: PostgresServer;
  let customer: Customer;
  let installation: Installation;
  let onPostgres: string;
  let token: string;
  const admin = () => installation.issue({ sub: 'ops', typ: 'service', scope: ['kms:admin'], keys: ['*'] });

  beforeAll(async () => {
    server = await PostgresServer.start();
    onPostgres = patientUrl((await server.createDatabase('bundoc')).url);
    customer = await Customer.start();
    installation = await Installation.start({
      environment: { BUNDOC_MOVE_TO: onPostgres },
      kmsEnvironment: { BUNKMS_OUTSIDE_KEYS_FILE: customer.file, BUNKMS_LEASE_TTL_MS: String(LEASE_MS) },
    });
    token = await installation.client(['*'], ['docs:read', 'docs:write', 'docs:admin']);
    for (const project of ['ours', ...ATTITUDES]) expect((await put(project)).status).toBe(201);
    for (const project of ATTITUDES) await attach(project);
  });
  afterAll(async () => {
    await installation?.[Symbol.asyncDispose]();
    await customer?.[Symbol.asyncDispose]();
    await server?.[Symbol.asyncDispose]();
  });

  const path = (project: string) => `/v1/projects/${project}/collections/c/documents/a`;
  const put = (project: string) =>
    call(installation.url, path(project), { method: 'PUT', token, body: '{"n":1}' });
  const answerOf = async (project: string, url = installation.url) =>
    (await call(url, path(project), { token })).json();
  const read = async (project: string, url = installation.url) => {
    const answer = await answerOf(project, url);
    return answer['code'] ?? answer['n'];
  };
  /** All versions of its key need the customer, and Bundoc uses the newest one. */
  const attach = async (project: string) => {
    const outside = `/v1/keys/${project}-dek/outside`;
    const by = { token: await admin() };
    const api = installation.kms.apiUrl;
    const attached = await call(api, outside, { ...by, method: 'PUT', body: '{"key":"acme"}' });
    expect(attached.status, attached.text).toBe(200);
    expect((await call(api, `${outside}/rewrap`, { ...by, method: 'POST' })).status).toBe(200);
    await vi.waitFor(async () => {
      await put(project);
      expect(JSON.parse(await installation.stored.projectFile(project)).versions).toHaveLength(2);
    }, PATIENT);
  };
  const bundoc = (...args: string[]) =>
    bundocCommand({ BUNDOC_URL: installation.url, BUNDOC_TOKEN: token }, args);
  /** The customer behaves so, and what was released before has ended. */
  const become = async (attitude: Attitude, projects: readonly string[] = ATTITUDES) => {
    customer.attitude = attitude;
    const expected = attitude === 'present' ? 1 : CODE[attitude];
    for (const project of projects) await expect.poll(() => read(project), PATIENT).toBe(expected);
  };

  it.each(['away', 'denying'] as const)(
    'is named by a backup of all projects while he is %s, which has the others, and by the next one with him',
    async (attitude) => {
      const folder = join(installation.folder, `backups-${attitude}`);
      await become(attitude);
      expect(await answerOf(attitude)).toMatchObject({
        code: CODE[attitude],
        outside_key: 'acme',
        detail: expect.stringContaining('acme'),
      });
      const refused = await bundoc('backup', '--all', folder, '--json');
      expect(refused.code).not.toBe(0);
      const { failed, written } = JSON.parse(refused.stdout);
      expect(written).toBe(1);
      expect(failed).toHaveLength(ATTITUDES.length);
      for (const project of ATTITUDES)
        expect(failed).toContainEqual(expect.objectContaining({ project, code: CODE[attitude] }));
      await become('present');
      const complete = await bundoc('backup', '--all', folder, '--json');
      expect(complete).toMatchObject({ code: 0 });
      expect(JSON.parse(complete.stdout)).toMatchObject({ written: 3, failed: [] });
      expect(await bundoc('verify-backup', folder)).toMatchObject({ code: 0 });
    },
  );

  it.each(['away', 'denying'] as const)(
    'stays where it is while he is %s, and moves to another storage once he is back',
    async (attitude) => {
      await become(attitude, [attitude]);
      const refused = await bundoc('move', attitude);
      expect(refused).toMatchObject({ code: 2, stderr: expect.stringContaining(CODE[attitude]) });
      await become('present', [attitude]);
      expect(await bundoc('move', attitude)).toMatchObject({ code: 0 });
      expect(await read(attitude)).toBe('project_elsewhere');
    },
  );

  it('needs him at its new storage as before', async () => {
    customer.attitude = 'present';
    expect(await bundoc('move', 'present')).toMatchObject({ code: 0 });
    await using node = await startConfiguredBundoc({
      ...PATIENT_BUNDOC,
      BUNDOC_STORAGE: onPostgres,
      BUNDOC_KMS_URL: installation.kms.internalUrl,
      BUNDOC_KMS_TOKEN_FILE: installation.tokenFile,
    });
    expect(await read('present', node.url)).toBe(1);
    customer.attitude = 'denying';
    await expect.poll(() => read('present', node.url), PATIENT).toBe('project_disabled');
    customer.attitude = 'present';
    await expect.poll(() => read('present', node.url), PATIENT).toBe(1);
  });
});
