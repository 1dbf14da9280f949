import { join } from 'node:path';
import { type RunningBundoc, startBundoc } from '@bundoc/bundoc/app';
import { readConfig } from '@bundoc/bundoc/config';
import { withStore } from '@bundoc/bunkms/cli/open-kms';
import { runBunkms } from '@bundoc/bunkms/cli/program';
import { dekNameOf } from '@bundoc/shared/contract/keys';
import { capturedRun } from '@bundoc/shared/testing/captured-run';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, inject, it } from 'vitest';
import { type Answer, call, Installation, PATIENT_BUNDOC } from './support/installation.ts';
import { newStorage, type StoredProjects } from './support/stored-projects.ts';
import { untilConfirmed } from './support/until-confirmed.ts';

let installation: Installation;
let token: string;
const others: RunningBundoc[] = [];
/** A project that no other test has. */
let p: string;
let tests = 0;
beforeEach(() => {
  p = `p${tests++}`;
});
const start = async () => {
  installation = await Installation.start();
  token = await installation.client(['*'], ['docs:read', 'docs:write', 'docs:admin']);
};
const stop = async () => {
  for (const other of others.splice(0)) await other.close();
  await installation[Symbol.asyncDispose]();
};
/** Call it in a `describe` whose tests change projects only. */
const shareInstallation = () => {
  beforeAll(start);
  afterAll(stop);
};
/** Call it in a `describe` whose tests change the holder of the whole storage. */
const startForEach = () => {
  beforeEach(start);
  afterEach(stop);
};

const pathOf = (project: string) => `/v1/projects/${project}/collections/notes/documents/a`;
const read = (project: string, url = installation.url) => call(url, pathOf(project), { token });
const write = (project: string, url = installation.url) =>
  call(url, pathOf(project), { method: 'PUT', token, body: '{"n":1}' });
const remove = (project: string, url = installation.url) =>
  call(url, `/v1/projects/${project}?confirm=${project}`, { method: 'DELETE', token });
const facts = (answer: Answer) => [answer.status, answer.json()['code'] ?? answer.json()['n']];
const SERVED = [200, 1];
const SUPERSEDED = [409, 'storage_superseded'];

/** Starts a second Bundoc on another storage, with the same BunKMS. */
async function startOn(stored: StoredProjects, kmsUrl = installation.kms.internalUrl): Promise<string> {
  const config = readConfig({
    BUNDOC_PORT: '0',
    ...PATIENT_BUNDOC,
    ...stored.environment,
    BUNDOC_KMS_URL: kmsUrl,
    BUNDOC_KMS_TOKEN_FILE: installation.tokenFile,
  });
  const other = await startBundoc(config, { logger: installation.log.logger('bundoc') });
  others.push(other);
  await untilConfirmed(other.url);
  return other.url;
}

/** The audit actions of a key without its uses, in order. */
async function changesOf(project: string): Promise<string[]> {
  const { items } = await withStore(installation.kmsEnvironment, (store) =>
    store.listAudit({ after: 0, limit: 10_000 }),
  );
  return items
    .filter(({ key, outcome }) => key === dekNameOf(project) && outcome === 'allowed')
    .map(({ action }) => action)
    .filter((action) => action !== 'key.export');
}

function takeOver(id: string, ...options: string[]) {
  const environment = { NODE_ENV: 'test', ...installation.kmsEnvironment };
  return capturedRun(() => runBunkms(['storage', 'take-over', id, ...options], environment));
}

describe('the content of a project that an attacker removes', () => {
  shareInstallation();

  it('is missing without further harm: the project starts empty under the same key, which is not rotated', async () => {
    expect((await write(p)).status).toBe(201);
    for (let n = 0; n < 3; n++) {
      await installation.stopBundoc();
      await installation.stored.remove(p);
      await installation.startBundoc();
      expect((await write(p)).status).toBe(201);
      expect(facts(await read(p))).toEqual(SERVED);
    }
    // The storage is closed, so Bundoc sends no more requests to BunKMS.
    await installation.stopBundoc();
    expect(await changesOf(p)).toEqual(['key.create']);
  });
});

describe('a planted deletion marker', () => {
  shareInstallation();

  const since = '2026-01-01T00:00:00.000Z';
  const markOf = (project: string) => {
    const receipt = { name: dekNameOf(project), versions: [1], destroyed_at: since };
    const times = { since, keyDestroyedAt: since, finishedAt: since };
    return `${JSON.stringify({ deleted: project, format: 1, ...times, receipt })}\n`;
  };
  const bare = (project: string) => `${JSON.stringify({ deleted: project, format: 1, since })}\n`;

  it.each([
    ['finished', markOf],
    ['begun', bare],
    ['of nothing', () => 'no mark'],
  ])('on an existing project destroys nothing, and the project is served (%s)', async (_name, textOf) => {
    expect((await write(p)).status).toBe(201);
    await installation.stopBundoc();
    await installation.stored.plantMark('deleted.json', p, textOf(p));
    const logged = installation.log.text.length;
    await installation.startBundoc();
    expect(facts(await read(p))).toEqual(SERVED);
    expect((await write(p)).status).toBe(200);
    expect(await changesOf(p)).toEqual(['key.create']);
    expect(installation.log.text.slice(logged)).toContain('an unconfirmed marker was set aside');
    expect(await installation.metrics()).toMatch(/^bundoc_unconfirmed_markers_total 1$/m);
  });

  it('on an open project destroys nothing, and is set aside when the project is next opened', async () => {
    expect((await write(p)).status).toBe(201);
    await installation.stored.plantMark('deleted.json', p, markOf(p));
    expect(facts(await read(p))).toEqual(SERVED);
    await installation.stopBundoc();
    await installation.startBundoc();
    expect(facts(await read(p))).toEqual(SERVED);
    expect(await changesOf(p)).toEqual(['key.create']);
  });

  it('on unused ids destroys and creates nothing: they are not found, and can be created', async () => {
    const [never, not] = [`${p}-never`, `${p}-not`];
    await installation.stopBundoc();
    for (const project of [never, not])
      await installation.stored.plantMark('deleted.json', project, markOf(project));
    await installation.startBundoc();
    expect(facts(await read(never))).toEqual([404, 'project_not_found']);
    for (const project of [never, not])
      expect(facts(await remove(project))).toEqual([404, 'project_not_found']);
    expect([await changesOf(never), await changesOf(not)]).toEqual([[], []]);
    expect((await write(never)).status).toBe(201);
    expect([facts(await read(never)), await changesOf(never)]).toEqual([SERVED, ['key.create']]);
  });

  it('in place of the whole project destroys no key: the project is empty, under the same key', async () => {
    expect((await write(p)).status).toBe(201);
    await installation.stopBundoc();
    await installation.stored.remove(p);
    await installation.stored.plantMark('deleted.json', p, markOf(p));
    await installation.startBundoc();
    expect(facts(await remove(p))).toEqual([404, 'project_not_found']);
    expect((await write(p)).status).toBe(201);
    expect((await changesOf(p)).filter((action) => action !== 'key.rotate')).toEqual(['key.create']);
  });

  it('copied from a deleted project has no effect on another one', async () => {
    const q = `${p}-other`;
    for (const project of [p, q]) expect((await write(project)).status).toBe(201);
    expect((await remove(q)).status).toBe(200);
    await installation.stopBundoc();
    await installation.stored.plantMark('deleted.json', p, markOf(q));
    await installation.startBundoc();
    expect([facts(await read(p)), facts(await read(q))]).toEqual([SERVED, [410, 'project_destroyed']]);
    expect(await changesOf(p)).toEqual(['key.create']);
  });
});

describe('a planted move marker', () => {
  shareInstallation();

  const noise = (version: number) => {
    const bytes = Buffer.alloc(120, 7);
    bytes.writeUInt32BE(version);
    return `bundoc-move-mark-1.${bytes.toString('base64url')}`;
  };

  it.each([1, 2, 0, 0x7f_ff_ff_ff, 0xff_ff_ff_ff])(
    'changes no holder, and the project is served (version %i of its key)',
    async (version) => {
      const never = `${p}-never`;
      expect((await write(p)).status).toBe(201);
      await installation.stopBundoc();
      for (const project of [p, never])
        await installation.stored.plantMark('move.mark', project, noise(version));
      await installation.startBundoc();
      expect(facts(await read(p))).toEqual(SERVED);
      expect(facts(await remove(never))).toEqual([404, 'project_not_found']);
      expect((await write(never)).status).toBe(201);
      expect([await changesOf(p), await changesOf(never)]).toEqual([['key.create'], ['key.create']]);
      expect(await installation.metrics()).toMatch(/^bundoc_unconfirmed_markers_total 2$/m);
    },
  );
});

describe('a copy of a storage', () => {
  startForEach();

  it('that starts while the original runs is refused until an administrator lets it take over', async () => {
    for (const project of ['p', 'q']) expect((await write(project)).status).toBe(201);
    const id = await installation.storageId();
    await installation.stopBundoc();
    const copy = await installation.stored.clone(join(installation.folder, 'copy'));
    await installation.startBundoc();
    expect(facts(await read('p'))).toEqual(SERVED);
    const logged = installation.log.text.length;
    const url = await startOn(copy);
    for (const answer of [await read('p', url), await write('p', url), await write('new', url)])
      expect(facts(answer)).toEqual(SUPERSEDED);
    expect(facts(await remove('p', url))).toEqual(SUPERSEDED);
    expect([await changesOf('p'), await changesOf('new')]).toEqual([['key.create'], []]);
    expect(facts(await read('p'))).toEqual(SERVED);

    const generation = /--generation ([0-9a-f-]{36})/.exec(
      installation.log.text.slice(logged),
    )?.[1] as string;
    const early = await takeOver(id, '--generation', generation);
    expect([early.code, early.stderr]).toEqual([5, expect.stringContaining('lease_live')]);
    expect((await takeOver(id, '--generation', generation, '--force')).code).toBe(0);
    await expect.poll(async () => facts(await read('p'))).toEqual(SUPERSEDED);
    await expect.poll(async () => facts(await read('p', url))).toEqual(SERVED);
    expect(facts(await write('q'))).toEqual(SUPERSEDED);
  });

  it('a copy of a storage that starts after the original has stopped is served, and the original is refused from then on', async () => {
    expect((await write('p')).status).toBe(201);
    const id = await installation.storageId();
    await installation.stopBundoc();
    const copy = await installation.stored.clone(join(installation.folder, 'copy'));
    const url = await startOn(copy);
    expect(facts(await read('p', url))).toEqual(SERVED);
    const logged = installation.log.text.length;
    await installation.startBundoc();
    expect(facts(await read('p'))).toEqual(SUPERSEDED);
    expect(installation.log.text.slice(logged)).toContain(`bunkms storage take-over ${id}`);
    expect(facts(await write('p', url))).toEqual([200, undefined]);
    await others.pop()?.close();
    // The original also needs an administrator to take over again.
    expect(facts(await read('p'))).toEqual(SUPERSEDED);
    expect((await takeOver(id, '--force')).code).toBe(0);
    await expect.poll(async () => facts(await read('p'))).toEqual(SERVED);
  });

  it('a copy of a storage with the identity of another storage holds nothing: no project is served, made or deleted', async () => {
    expect((await write('p')).status).toBe(201);
    const holder = await installation.storageId();
    const twin = await newStorage(join(installation.folder, 'twin'));
    await startOn(twin);
    await others.pop()?.close();
    await installation.stopBundoc();
    const copy = await installation.stored.clone(join(installation.folder, 'copy'));
    await copy.setIdentity(await twin.identity());
    // In files, the log says that it belongs to another storage.
    if (inject('postgresUrl') === undefined)
      await expect(startOn(copy)).rejects.toThrow('belongs to another storage');
    else {
      const url = await startOn(copy);
      for (const answer of [await read('p', url), await write('p', url), await remove('p', url)])
        expect([answer.status, answer.json()]).toEqual([
          409,
          expect.objectContaining({ code: 'project_elsewhere', storage: holder }),
        ]);
    }
    await installation.startBundoc();
    expect([facts(await read('p')), await changesOf('p')]).toEqual([SERVED, ['key.create']]);
  });
});

describe('a request to the wrong Bundoc', () => {
  startForEach();

  it('creates no second project and deletes none, and names the storage that has the project', async () => {
    expect((await write('p')).status).toBe(201);
    const twin = await newStorage(join(installation.folder, 'twin'));
    const url = await startOn(twin);
    const written = await write('p', url);
    const elsewhere = { code: 'project_elsewhere', storage: await installation.storageId() };
    expect([written.status, written.json()]).toEqual([409, expect.objectContaining(elsewhere)]);
    expect(facts(await remove('p', url))).toEqual([404, 'project_not_found']);
    expect([await twin.ids(), await changesOf('p')]).toEqual([[], ['key.create']]);
    expect(facts(await read('p'))).toEqual(SERVED);
  });

  it('is refused while Bundoc uses the wrong BunKMS, and is served again with the right one', async () => {
    await using wrong = await Installation.start();
    expect((await write('p')).status).toBe(201);
    await installation.stopBundoc();
    const before = JSON.parse(await installation.stored.identity());
    const config = readConfig({
      BUNDOC_PORT: '0',
      ...PATIENT_BUNDOC,
      ...installation.stored.environment,
      BUNDOC_KMS_URL: wrong.kms.internalUrl,
      BUNDOC_KMS_TOKEN_FILE: installation.tokenFile,
    });
    const mistaken = await startBundoc(config, { logger: installation.log.logger('bundoc') });
    others.push(mistaken);
    for (const answer of [await read('p', mistaken.url), await remove('p', mistaken.url)])
      expect(answer.status).toBeGreaterThanOrEqual(400);
    await others.pop()?.close();
    expect(JSON.parse(await installation.stored.identity())).toMatchObject({
      generation: before.generation,
    });
    await installation.startBundoc();
    expect(facts(await read('p'))).toEqual(SERVED);
  });
});
