import { cpSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type RunningBundoc, startBundoc } from '@bundoc/bundoc/app';
import { readConfig } from '@bundoc/bundoc/config';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { bundocCommand } from './support/bundoc-command.ts';
import { EventReader } from './support/event-reader.ts';
import { type Answer, call, Installation, PATIENT_BUNDOC } from './support/installation.ts';
import { untilConfirmed } from './support/until-confirmed.ts';

let installation: Installation;
let token: string;
const others: RunningBundoc[] = [];
beforeEach(async () => {
  installation = await Installation.start({ isOnFiles: true });
  token = await installation.issue({
    sub: 'app',
    typ: 'client',
    projects: ['*'],
    scope: ['docs:read', 'docs:write', 'docs:admin'],
  });
});
afterEach(async () => {
  for (const other of others.splice(0)) await other.close();
  await installation[Symbol.asyncDispose]();
});

const pathOf = (project: string) => `/v1/projects/${project}/collections/notes/documents/a`;
const read = (url: string, project: string) => call(url, pathOf(project), { token });
const write = (url: string, project: string) =>
  call(url, pathOf(project), { method: 'PUT', token, body: '{"n":1}' });
const facts = (answer: Answer) => [answer.status, answer.json()['code'] ?? answer.json()['n']];
const ready = async (url: string) => (await call(url, '/ready')).json();

/** Starts a second Bundoc on another data folder, with the same BunKMS. */
async function startOn(folder: string): Promise<string> {
  const config = readConfig({
    BUNDOC_PORT: '0',
    ...PATIENT_BUNDOC,
    BUNDOC_DATA_DIR: folder,
    BUNDOC_KMS_URL: installation.kms.internalUrl,
    BUNDOC_KMS_TOKEN_FILE: installation.tokenFile,
  });
  const other = await startBundoc(config, { logger: installation.log.logger('bundoc') });
  others.push(other);
  await untilConfirmed(other.url);
  return other.url;
}

describe('a storage', () => {
  it('is served once BunKMS has confirmed it, whichever service starts first', async () => {
    expect((await write(installation.url, 'p')).status).toBe(201);
    const kmsUrl = installation.kms.internalUrl;
    await installation.stopBundoc();
    await installation.stopKms();
    const config = readConfig({
      BUNDOC_PORT: '0',
      BUNDOC_DATA_DIR: installation.dataDir,
      BUNDOC_KMS_URL: kmsUrl,
      BUNDOC_KMS_TOKEN_FILE: installation.tokenFile,
    });
    const bundoc = await startBundoc(config, { logger: installation.log.logger('bundoc') });
    others.push(bundoc);
    const logged = installation.log.text.length;
    expect((await call(bundoc.url, '/health')).status).toBe(200);
    const waiting = await call(bundoc.url, '/ready');
    expect([waiting.status, waiting.json()]).toEqual([
      503,
      expect.objectContaining({ reason: 'kms_unavailable', storage_id: expect.any(String) }),
    ]);
    const refused = await read(bundoc.url, 'p');
    expect([...facts(refused), refused.headers['retry-after']]).toEqual([
      503,
      'kms_unavailable',
      expect.stringMatching(/^\d+$/),
    ]);
    await installation.startKms();
    await expect.poll(async () => facts(await read(bundoc.url, 'p'))).toEqual([200, 1]);
    expect(await ready(bundoc.url)).toMatchObject({ status: 'ready', storage: 'ok' });
    expect(installation.log.text.slice(logged)).toContain('BunKMS has confirmed this storage');
  });

  it('creates and deletes no twin of a project that another storage holds, and names that storage', async () => {
    expect((await write(installation.url, 'p')).status).toBe(201);
    const twin = await startOn(join(installation.folder, 'twin'));
    const elsewhere = [
      409,
      expect.objectContaining({ code: 'project_elsewhere', storage: await installation.storageId() }),
    ];
    const written = await write(twin, 'p');
    expect([written.status, written.json()]).toEqual(elsewhere);
    const lines = join(installation.folder, 'lines');
    writeFileSync(lines, '{"_id":"a","n":2}\n');
    const imported = await bundocCommand({ BUNDOC_URL: twin, BUNDOC_TOKEN: token }, [
      ...['import', 'p', lines, '--collection', 'notes'],
    ]);
    expect([imported.code, imported.stderr]).toEqual([
      2,
      expect.stringContaining(`storage ${await installation.storageId()} holds it`),
    ]);
    const deleted = await call(twin, '/v1/projects/p?confirm=p', { method: 'DELETE', token });
    expect(facts(deleted)).toEqual([404, 'project_not_found']);
    // The same holds with a copy of the project's folder.
    await installation.stopBundoc();
    const copy = join(installation.folder, 'copied');
    await others.pop()?.close();
    cpSync(join(installation.folder, 'twin'), copy, { recursive: true });
    cpSync(join(installation.dataDir, 'projects'), join(copy, 'projects'), { recursive: true });
    const copied = await startOn(copy);
    expect((await read(copied, 'p')).json()).toMatchObject({ code: 'project_elsewhere' });
    const again = await call(copied, '/v1/projects/p?confirm=p', { method: 'DELETE', token });
    expect([again.status, again.json()]).toEqual(elsewhere);
    await installation.startBundoc();
    expect(facts(await read(installation.url, 'p'))).toEqual([200, 1]);
  });

  it('an older copy of a storage is refused until an administrator takes it over, and then the former one stops', async () => {
    for (const project of ['p', 'q']) expect((await write(installation.url, project)).status).toBe(201);
    await installation.stopBundoc();
    const copy = join(installation.folder, 'copy');
    cpSync(installation.dataDir, copy, { recursive: true });
    await installation.startBundoc();
    expect(facts(await read(installation.url, 'p'))).toEqual([200, 1]);
    const logged = installation.log.text.length;
    const url = await startOn(copy);
    expect(await ready(url)).toMatchObject({ status: 'not ready', reason: 'storage_superseded' });
    const refused = await read(url, 'p');
    expect(facts(refused)).toEqual([409, 'storage_superseded']);
    const remedy = /storage take-over (\S+) --generation ([0-9a-f-]{36})/.exec(
      installation.log.text.slice(logged),
    );
    expect(remedy?.[1]).toBe(await installation.storageId());
    const admin = await installation.issue({
      sub: 'admin',
      typ: 'service',
      scope: ['kms:manage_key'],
      keys: ['*'],
    });
    const taken = await call(installation.kms.internalUrl, `/v1/storages/${remedy?.[1]}/take-over`, {
      method: 'POST',
      token: admin,
      body: JSON.stringify({ generation: remedy?.[2], force: true }),
    });
    expect(taken.status).toBe(200);
    await expect
      .poll(async () => facts(await read(installation.url, 'p')))
      .toEqual([409, 'storage_superseded']);
    await expect.poll(async () => facts(await read(url, 'q')), { timeout: 20_000 }).toEqual([200, 1]);
    const metrics = await call(installation.url, '/metrics', {
      token: await installation.issue({ sub: 'm', typ: 'service', scope: ['docs:metrics'], projects: ['*'] }),
    });
    expect(metrics.text).toMatch(/^bundoc_storage_superseded 1$/m);
  });

  it('a storage that loses a key stops serving its project, and serves it again once it has the key back', async () => {
    for (const project of ['p', 'q']) expect((await write(installation.url, project)).status).toBe(201);
    const other = await startOn(join(installation.folder, 'other'));
    const [here, there] = [await installation.storageId(), String((await ready(other))['storage_id'])];
    for (const url of [installation.url, other])
      await expect.poll(async () => (await ready(url))['kms_events']).toBe('live');
    using reader = await EventReader.open(`${installation.url}/v1/projects/p/changes`, token);
    await reader.until(() => reader.changes.length === 1);
    expect(facts(await read(other, 'p'))).toEqual([404, 'project_not_found']);
    await installation.takeOverKey('p-dek', there);
    await expect
      .poll(() => read(installation.url, 'p').then((answer) => [answer.status, answer.json()['storage']]))
      .toEqual([409, there]);
    await reader.ended();
    const deletion = await call(installation.url, '/v1/projects/p?confirm=p', { method: 'DELETE', token });
    for (const refused of [await write(installation.url, 'p'), deletion])
      expect([refused.status, refused.json()]).toEqual([
        409,
        expect.objectContaining({ code: 'project_elsewhere', storage: there }),
      ]);
    expect(facts(await read(installation.url, 'q'))).toEqual([200, 1]);
    expect((await write(other, 'p')).status).toBe(201);
    await installation.takeOverKey('p-dek', here);
    await expect.poll(async () => facts(await read(other, 'p'))).toEqual([409, 'project_elsewhere']);
    // A refusal is remembered for a second.
    await expect.poll(async () => facts(await read(installation.url, 'p'))).toEqual([200, 1]);
  });

  it('a storage without its file does not start, and the error says what to do', async () => {
    expect((await write(installation.url, 'p')).status).toBe(201);
    await installation.stopBundoc();
    const file = join(installation.dataDir, 'storage.json');
    renameSync(file, `${file}.lost`);
    await expect(installation.startBundoc()).rejects.toThrow(/storage\.json is missing.*Restore it/);
    renameSync(`${file}.lost`, file);
    await installation.startBundoc();
    expect(facts(await read(installation.url, 'p'))).toEqual([200, 1]);
  });
});
