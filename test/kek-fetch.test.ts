import { randomBytes } from 'node:crypto';
import { runBunkms } from '@bundoc/bunkms/cli/program';
import { capturedRun } from '@bundoc/shared/testing/captured-run';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { call, Installation } from './support/installation.ts';

const ring = Array.from({ length: 3 }, () => randomBytes(32).toString('hex')).join('\n');
let installation: Installation;
let token: string;
let url: string;
beforeAll(async () => {
  installation = await Installation.start({ kmsEnvironment: { BUNKMS_KEK: ring } });
  token = await installation.client();
  url = installation.url;
});
afterAll(() => installation[Symbol.asyncDispose]());

const bunkms = (...args: string[]) =>
  capturedRun(() =>
    runBunkms(args, {
      NODE_ENV: 'test',
      ...installation.kmsEnvironment,
      BUNDOC_URL: url,
      BUNDOC_TOKEN: token,
    }),
  );
const keks = async () =>
  JSON.parse((await bunkms('kek', 'status', '--json')).stdout) as {
    readonly current: string;
    readonly keks: readonly { readonly id: string; readonly state: string }[];
  };
/** Wraps every key with the next KEK of the ring. @returns the former one. */
async function rotate(): Promise<string> {
  const { current, keks: all } = await keks();
  const staged = all.find(({ state }) => state === 'staged')?.id ?? '';
  expect((await bunkms('kek', 'rotate', staged)).code).toBe(0);
  return current;
}

describe('bunkms kek retire --fetch', () => {
  it('makes Bundoc fetch the new wrapping of unused keys, and then retires the former KEK', async () => {
    const projects = ['cold-a', 'cold-b', 'cold-c'];
    for (const project of projects) {
      const path = `/v1/projects/${project}/collections/notes/documents/a`;
      expect((await call(installation.url, path, { method: 'PUT', token, body: '{}' })).status).toBe(201);
    }
    // No key is cached and no project is open any more.
    await installation.stopBundoc();
    const current = await rotate();
    await installation.startBundoc();
    url = installation.url;
    const unfetched = await bunkms('kek', 'unfetched', current);
    expect(unfetched.stdout.trim().split('\n')).toEqual(projects.map((project) => `${project}-dek`));

    expect((await bunkms('kek', 'retire', current)).code).toBe(5);
    const retired = await bunkms('kek', 'retire', current, '--fetch');
    expect([retired.code, retired.stderr, retired.stdout]).toEqual([
      0,
      'bunkms: Bundoc fetches the new wrappings of 3 keys: those of open projects within 15 minutes\n',
      expect.stringContaining('is retired'),
    ]);
    for (const project of projects) {
      const file = JSON.parse(await installation.stored.projectFile(project)) as {
        versions: { wrapped: string }[];
      };
      for (const { wrapped } of file.versions)
        expect(Buffer.from(wrapped, 'base64').toString('hex', 1, 9)).toBe((await keks()).current);
    }
  });

  it('reports why a key is not fetched, and does not retire the KEK', async () => {
    const holder = await installation.issue({
      sub: 'x',
      typ: 'service',
      keys: ['*'],
      scope: ['kms:create_key', 'kms:export_key'],
    });
    for (const name of ['other', 'nowhere-dek']) {
      const create = { method: 'POST', token: holder, body: JSON.stringify({ name, type: 'aes-256' }) };
      expect((await call(installation.kms.apiUrl, '/v1/keys', create)).status).toBe(201);
      const exported = await call(installation.kms.internalUrl, `/v1/export/${name}`, { token: holder });
      expect(exported.status).toBe(200);
    }
    await installation.stopBundoc();
    const current = await rotate();
    await installation.startBundoc();
    url = installation.url;
    const retired = await bunkms('kek', 'retire', current, '--fetch');
    expect([retired.code, retired.stdout]).toEqual([5, 'nowhere-dek\nother\n']);
    expect(retired.stderr).toContain('other was not fetched: it is not the key of a project');
    expect(retired.stderr).toContain('nowhere-dek was not fetched: The project does not exist');
  });

  it('requires a readable token and a valid URL', async () => {
    const { current } = await keks();
    const unread = await bunkms('kek', 'retire', current, '--fetch', '--token-file', '/nowhere');
    expect([unread.code, unread.stderr]).toEqual([
      2,
      expect.stringContaining('there is no file at /nowhere'),
    ]);
    const away = await bunkms('kek', 'retire', current, '--fetch', '--url', 'ftp://x');
    expect([away.code, away.stderr]).toEqual([2, expect.stringContaining('is not an http or https URL')]);
  });
});
