import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { startInBackground } from '@bundoc/shared/testing/timing';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { bundocCommand } from './support/bundoc-command.ts';
import { call, Installation } from './support/installation.ts';

const NOTES = '/v1/projects/p/collections/notes/documents';

const onPostgres = inject('postgresUrl') !== undefined;
let installation: Installation;
let token: string;
let admin: string;
beforeAll(async () => {
  installation = await Installation.start();
  token = await installation.client();
  admin = await installation.client(['p'], ['docs:admin']);
  for (let n = 0; n < 50; n++) await put(`planted-${n}`, n);
});
afterAll(() => installation[Symbol.asyncDispose]());

const put = (id: string, n: number) =>
  call(installation.url, `${NOTES}/${id}`, { method: 'PUT', token, body: `{ "n": ${n}.10 }` });
/** All documents. The restored project continues at a later position. */
const listed = async () => {
  const { text } = await call(installation.url, `${NOTES}?limit=1000`, { token });
  expect(text).toMatch(/"as_of":\d+/);
  return text.replace(/"as_of":\d+/, '');
};
const file = (name: string) => join(installation.folder, name);

const bundoc = (environment: Record<string, string>, ...args: string[]) => bundocCommand(environment, args);
const online = () => ({ BUNDOC_URL: installation.url, BUNDOC_TOKEN: admin });
const offline = () => ({
  ...installation.stored.environment,
  BUNDOC_KMS_URL: installation.kms.internalUrl,
  BUNDOC_KMS_TOKEN_FILE: installation.tokenFile,
});

describe('a backup of a project', () => {
  it('is made while documents are written, can be verified without a key, and restores the same bytes', async () => {
    let isOver = false;
    const writing = startInBackground(
      (async () => {
        for (let n = 0; !isOver; n++) await put(`meanwhile-${n % 20}`, n);
      })(),
    );
    const made = await bundoc(online(), 'backup', 'p', file('during'), '--json');
    isOver = true;
    await writing;
    expect([made.code, made.stderr]).toEqual([0, '']);
    const quiet = await bundoc(online(), 'backup', 'p', file('quiet'));
    expect([quiet.code, quiet.stderr]).toEqual([0, '']);
    for (const name of ['during', 'quiet']) {
      const checked = await bundoc({}, 'verify-backup', file(name), '--json');
      expect(JSON.parse(checked.stdout)).toMatchObject({ project: 'p', key_versions: [1] });
      expect(readFileSync(file(name)).toString('latin1')).not.toMatch(/notes|meanwhile|planted/);
    }
    const authentic = await bundoc(offline(), 'verify-backup', file('quiet'), '--with-key', '--json');
    expect(JSON.parse(authentic.stdout)).toMatchObject({ entries: expect.any(Number) });

    const before = await listed();
    await installation.stopBundoc();
    const refused = await bundoc(offline(), 'restore', file('quiet'));
    expect([refused.code, refused.stderr]).toEqual([2, expect.stringContaining('already')]);
    await installation.stored.remove('p');
    const elsewhere = { ...offline(), BUNDOC_STORAGE: 'files', BUNDOC_DATA_DIR: file('elsewhere') };
    // A backup from either engine can be restored into the other.
    const notHere = await bundoc(elsewhere, 'restore', file('quiet'));
    const takeOver = /bunkms key take-over p-dek --storage ([0-9a-f-]{36})/.exec(notHere.stderr);
    expect([notHere.code, takeOver]).toEqual([2, expect.anything()]);
    for (const environment of [offline(), elsewhere]) {
      if (environment === elsewhere) await installation.takeOverKey('p-dek', String(takeOver?.[1]));
      const restored = await bundoc(environment, 'restore', file('quiet'));
      expect([restored.code, restored.stderr]).toEqual([0, '']);
      const verified = await bundoc(environment, 'verify', 'p');
      expect([verified.code, verified.stderr]).toEqual([0, expect.stringContaining('all good')]);
    }
    await installation.startBundoc();
    const gone = await call(installation.url, '/v1/projects/p', { token });
    expect([gone.status, gone.json()]).toEqual([
      409,
      expect.objectContaining({ code: 'project_elsewhere', storage: takeOver?.[1] }),
    ]);
    await installation.takeOverKey('p-dek', await installation.storageId());
    await expect
      .poll(async () => (await call(installation.url, '/v1/projects/p', { token })).status)
      .toBe(200);
    expect(await listed()).toBe(before);
    expect((await put('new', 1)).status).toBe(201);
  });

  it('a changed backup is refused, and restores nothing', async () => {
    const bytes = readFileSync(file('quiet'));
    bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] as number) ^ 1;
    writeFileSync(file('changed'), bytes);
    const checked = await bundoc({}, 'verify-backup', file('changed'));
    expect([checked.code, checked.stdout]).toEqual([2, '']);
    expect(checked.stderr).toContain('was changed');
  });

  it('leaves no file when it fails', async () => {
    const forbidden = await bundoc({ ...online(), BUNDOC_TOKEN: token }, 'backup', 'p', file('none'));
    expect([forbidden.code, forbidden.stderr]).toEqual([2, expect.stringContaining('forbidden')]);
    const missing = await bundoc(online(), 'backup', 'q', file('none'));
    expect([missing.code, existsSync(file('none'))]).toEqual([2, false]);
    const again = await bundoc(online(), 'backup', 'p', file('quiet'));
    expect([again.code, again.stderr]).toEqual([2, expect.stringContaining('already exists')]);
  });

  it('a backup of a deleted project is refused permanently, with or without its deletion marker', async () => {
    const gone = '/v1/projects/gone/collections/notes/documents/a';
    const owner = await installation.client(['gone'], ['docs:write', 'docs:admin']);
    await call(installation.url, gone, { method: 'PUT', token: owner, body: '{}' });
    const made = await bundoc({ ...online(), BUNDOC_TOKEN: owner }, 'backup', 'gone', file('gone'));
    expect([made.code, made.stderr]).toEqual([0, '']);
    const deleted = await call(installation.url, '/v1/projects/gone?confirm=gone', {
      method: 'DELETE',
      token: owner,
    });
    expect(deleted.status).toBe(200);
    await installation.stopBundoc();
    const marked = await bundoc(offline(), 'restore', file('gone'));
    expect([marked.code, marked.stderr]).toEqual([
      2,
      expect.stringContaining('its key was permanently destroyed'),
    ]);
    expect(await installation.stored.partsOf('gone')).toEqual([onPostgres ? 'projects' : 'deleted.json']);
    await installation.stored.remove('gone');
    const elsewhere = await bundoc(offline(), 'restore', file('gone'));
    expect([elsewhere.code, elsewhere.stderr]).toEqual([
      2,
      expect.stringContaining('its key was permanently destroyed'),
    ]);
    expect(await installation.stored.partsOf('gone')).toEqual([]);
    await installation.startBundoc();
  });

  it('restores a project over a deletion marker that BunKMS does not confirm', async () => {
    await installation.stopBundoc();
    await installation.stored.remove('p');
    await installation.stored.plantMark('deleted.json', 'p', '{"deleted":"p","format":1}');
    const restored = await bundoc(offline(), 'restore', file('quiet'));
    expect([restored.code, restored.stderr]).toEqual([0, expect.stringContaining('was set aside')]);
    const verified = await bundoc(offline(), 'verify', 'p');
    expect([verified.code, verified.stderr]).toEqual([0, expect.stringContaining('all good')]);
    await installation.startBundoc();
  });

  it('restores nothing while the key is not available', async () => {
    await installation.stopBundoc();
    const ops = await installation.issue({
      sub: 'ops',
      typ: 'service',
      scope: ['kms:manage_key'],
      keys: ['*'],
    });
    await call(installation.kms.apiUrl, '/v1/keys/p-dek/disable', { method: 'POST', token: ops });
    await installation.stored.remove('p');
    const restored = await bundoc(offline(), 'restore', file('quiet'));
    expect([restored.code, restored.stderr]).toEqual([2, expect.stringContaining('its key is disabled')]);
    expect(await installation.stored.partsOf('p')).toEqual([]);
  });
});
