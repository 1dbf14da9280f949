import { createHash, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import {
  appendFileSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { startBundoc } from '@bundoc/bundoc/app';
import { readConfig } from '@bundoc/bundoc/config';
import { runBunkms } from '@bundoc/bunkms/cli/program';
import { capturedRun } from '@bundoc/shared/testing/captured-run';
import { runs } from '@bundoc/shared/testing/long';
import { spawnNode } from '@bundoc/shared/testing/node-process';
import { PATIENT_MS } from '@bundoc/shared/testing/timing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { bundocCommand } from './support/bundoc-command.ts';
import { HeldProxy } from './support/held-proxy.ts';
import { call, Installation, PATIENT_BUNDOC } from './support/installation.ts';

const MAIN = fileURLToPath(new URL('../packages/bundoc/src/cli/main.ts', import.meta.url));
const PROJECTS = Array.from({ length: runs(6, 250) }, (_, n) => `p-${String(n).padStart(4, '0')}`);
const [FIRST = '', SECOND = '', THIRD = '', FOURTH = ''] = PROJECTS;
const FILES = PROJECTS.map((project) => `${project}.backup`);

let installation: Installation;
let token: string;
let admin: string;
let auditor: string;
beforeAll(async () => {
  installation = await Installation.start();
  token = await installation.client();
  admin = await installation.client(PROJECTS, ['docs:read', 'docs:admin']);
  auditor = await installation.issue({ sub: 'auditor', typ: 'client', scope: ['kms:audit'] });
  for (const project of PROJECTS) await put(project, 'first');
});
afterAll(() => installation[Symbol.asyncDispose]());

async function put(project: string, id: string): Promise<void> {
  const path = `/v1/projects/${project}/collections/notes/documents/${id}`;
  const answer = await call(installation.url, path, { method: 'PUT', token, body: '{"n":1}' });
  expect(answer.status).toBe(201);
}

const folderOf = (name: string) => join(installation.folder, name);
const online = (who = admin, url = installation.url) => ({ BUNDOC_URL: url, BUNDOC_TOKEN: who });
const bundoc = (environment: Record<string, string>, ...args: string[]) => bundocCommand(environment, args);

interface Summary {
  readonly projects: number;
  readonly written: number;
  readonly unchanged: number;
  readonly failed: readonly { readonly project: string; readonly code: string }[];
  readonly gone: readonly { readonly project: string; readonly why: string }[];
  readonly sha256: string;
}

/** Backs up into a folder, and returns the summary. */
async function backUp(folder: string, environment = online(), code = 0): Promise<Summary> {
  const done = await bundoc(environment, 'backup', '--all', folder, '--json');
  expect(done.code, done.stderr).toBe(code);
  return JSON.parse(done.stdout) as Summary;
}

/** The findings of a folder, as pairs of file and fault. */
async function verify(folder: string): Promise<{ code: number | null; findings: string[] }> {
  const { code, stdout } = await bundoc({}, 'verify-backup', folder, '--json');
  const { findings } = JSON.parse(stdout) as { findings: { file: string; fault: string }[] };
  return { code, findings: findings.map(({ file, fault }) => `${file} ${fault}`) };
}
const GOOD = { code: 0, findings: [] };

/** The identity of each file: it differs once a file is written again. */
const identities = (folder: string) =>
  new Map(readdirSync(folder).map((name) => [name, `${statSync(join(folder, name)).ino}`]));

/** The number of exports of keys of these projects. */
async function exportsOfKeys(): Promise<number> {
  let count = 0;
  for (let cursor = ''; ; ) {
    const path = `/v1/audit?severity=CRITICAL&limit=500${cursor && `&cursor=${cursor}`}`;
    const audit = await call(installation.kms.apiUrl, path, { token: auditor });
    expect(audit.status).toBe(200);
    const { records, next_cursor: next } = audit.json() as {
      records: { action: string; key?: string }[];
      next_cursor?: string;
    };
    const keys = new Set(PROJECTS.map((project) => `${project}-dek`));
    count += records.filter(({ action, key = '' }) => action === 'key.export' && keys.has(key)).length;
    if (next === undefined) return count;
    cursor = next;
  }
}

describe('bundoc backup --all', () => {
  it('writes a backup of each project that the token is for, and a manifest that names each by its SHA-256', async () => {
    const folder = folderOf('whole');
    const summary = await backUp(folder);
    expect(summary).toMatchObject({
      projects: PROJECTS.length,
      written: PROJECTS.length,
      unchanged: 0,
      failed: [],
      gone: [],
    });
    expect(readdirSync(folder).filter((name) => name.endsWith('.backup'))).toEqual(FILES);
    const manifest = readFileSync(join(folder, 'manifest.ndjson'));
    expect(createHash('sha256').update(manifest).digest('hex')).toBe(summary.sha256);
    const lines = manifest.toString().trim().split('\n');
    const storage = await installation.storageId();
    for (const [at, project] of PROJECTS.entries()) {
      const [word, entry] = JSON.parse(lines[at + 1] as string) as [string, Record<string, unknown>];
      const bytes = readFileSync(join(folder, `${project}.backup`));
      const sha256 = createHash('sha256').update(bytes).digest('hex');
      expect([word, entry]).toEqual([
        'project',
        {
          project,
          bytes: bytes.length,
          sha256,
          at: expect.any(String),
          storage,
          last_change: expect.any(String),
        },
      ]);
    }
    expect(await verify(folder)).toEqual(GOOD);
    const single = await bundoc({}, 'verify-backup', join(folder, `${FIRST}.backup`), '--json');
    expect(JSON.parse(single.stdout)).toMatchObject({ project: FIRST });
  });

  it('writes an unchanged project not again, opens it not, and exports no key for it', async () => {
    const folder = folderOf('whole');
    copyFileSync(join(folder, `${SECOND}.backup`), folderOf('older'));
    await installation.stopBundoc();
    await installation.startBundoc();
    await put(SECOND, 'second');
    const [files, exports] = [identities(folder), await exportsOfKeys()];
    expect(await backUp(folder)).toMatchObject({ written: 1, unchanged: PROJECTS.length - 1, failed: [] });
    const after = identities(folder);
    for (const name of FILES)
      expect([name, after.get(name) === files.get(name)]).toEqual([name, name !== `${SECOND}.backup`]);
    // The write has fetched the key of the changed project.
    expect(await exportsOfKeys()).toBe(exports);
    expect(await backUp(folder)).toMatchObject({ written: 0, unchanged: PROJECTS.length });
    expect(await verify(folder)).toEqual(GOOD);
  });

  it('exports one key for each project that it opens, and none for listing them', async () => {
    await installation.stopBundoc();
    await installation.startBundoc();
    const before = await exportsOfKeys();
    await backUp(folderOf('cold'));
    expect(await exportsOfKeys()).toBe(before + PROJECTS.length);
  });

  it('writes a project again once its documents are re-sealed, since its backup needs the former key', async () => {
    const folder = folderOf('cold');
    const ops = await installation.issue({
      sub: 'ops',
      typ: 'service',
      scope: ['kms:rotate_key'],
      keys: ['*'],
    });
    const path = `/v1/keys/${FOURTH}-dek/rotate`;
    const rotated = await call(installation.kms.apiUrl, path, { method: 'POST', token: ops });
    expect(rotated.status).toBe(200);
    await expect
      .poll(async () => (await call(installation.url, `/v1/projects/${FOURTH}`, { token })).json()['key'], {
        timeout: PATIENT_MS,
      })
      .toEqual({ version: 2, versions: [1, 2], documents_to_reseal: 0 });
    expect(await backUp(folder)).toMatchObject({ written: 1, unchanged: PROJECTS.length - 1 });
    expect(await backUp(folder)).toMatchObject({ written: 0 });
  });

  it('is finished by a second run after kill -9, which writes only what is missing, and leaves no half file', async () => {
    const folder = folderOf('killed');
    await using proxy = await HeldProxy.start(installation.url);
    proxy.act = (path) => (path.includes(`/${THIRD}/backup`) ? 'hold' : 'pass');
    const child = spawnNode([MAIN, 'backup', '--all', folder], {
      NODE_ENV: 'test',
      ...online(admin, proxy.url),
    });
    const written = () =>
      (existsSync(folder) ? readdirSync(folder) : []).filter((name) => FILES.includes(name));
    await expect.poll(() => written().length, { timeout: PATIENT_MS }).toBe(PROJECTS.length - 1);
    const journal = join(folder, 'manifest.journal');
    await expect
      .poll(() => readFileSync(journal, 'utf8').split('\n').length, { timeout: PATIENT_MS })
      .toBe(PROJECTS.length + 1);
    child.kill('SIGKILL');
    await expect.poll(() => child.signalCode).toBe('SIGKILL');
    expect(readdirSync(folder).some((name) => name.endsWith('.tmp'))).toBe(true);
    expect(existsSync(join(folder, `${THIRD}.backup`))).toBe(false);
    expect((await verify(folder)).findings).toContain('manifest.journal unfinished');
    // A crash may cut the last line of the journal short.
    appendFileSync(journal, '["project",{"proj');
    const before = identities(folder);
    expect(await backUp(folder)).toMatchObject({ written: 1, unchanged: PROJECTS.length - 1 });
    for (const name of FILES)
      if (name !== `${THIRD}.backup`)
        expect([name, identities(folder).get(name)]).toEqual([name, before.get(name)]);
    expect(
      readdirSync(folder)
        .filter((name) => !FILES.includes(name))
        .sort(),
    ).toEqual(['lock.sqlite', 'manifest.ndjson']);
    expect(await verify(folder)).toEqual(GOOD);
  });

  it('goes on after a project that fails, lists it at the end, and has exit code 1 until it succeeds', async () => {
    const folder = folderOf('failing');
    const ops = await installation.issue({
      sub: 'ops',
      typ: 'service',
      scope: ['kms:manage_key'],
      keys: ['*'],
    });
    const key = (act: string) =>
      call(installation.kms.apiUrl, `/v1/keys/${SECOND}-dek/${act}`, { method: 'POST', token: ops });
    await key('disable');
    await expect
      .poll(async () => (await call(installation.url, `/v1/projects/${SECOND}`, { token })).status)
      .not.toBe(200);
    const made = await bundoc(online(), 'backup', '--all', folder);
    expect([made.code, made.stderr]).toEqual([1, expect.stringContaining(`${SECOND}: project_disabled`)]);
    expect(await verify(folder)).toEqual({ code: 1, findings: ['manifest.ndjson not_backed_up'] });
    await key('enable');
    await expect
      .poll(async () => (await call(installation.url, `/v1/projects/${SECOND}`, { token })).status)
      .toBe(200);
    expect(await backUp(folder)).toMatchObject({ written: 1, unchanged: PROJECTS.length - 1 });
    expect(await verify(folder)).toEqual(GOOD);
  });

  it('waits for a limit as long as the service says', async () => {
    await using proxy = await HeldProxy.start(installation.url);
    const seen = new Set<string>();
    proxy.act = (path) => {
      const isFirst = !seen.has(path);
      seen.add(path);
      if (!isFirst || !path.includes(`/${FIRST}/backup`)) return 'pass';
      const body = JSON.stringify({ code: 'rate_limited', status: 429, title: 'Too many requests' });
      return {
        status: 429,
        headers: { 'content-type': 'application/problem+json', 'retry-after': '2' },
        body,
      };
    };
    const startMs = performance.now();
    expect(await backUp(folderOf('limited'), online(admin, proxy.url))).toMatchObject({
      written: PROJECTS.length,
      failed: [],
    });
    expect(performance.now() - startMs).toBeGreaterThan(2_000);
  });

  it('counts a damaged project as the failure of that project alone', async () => {
    await using proxy = await HeldProxy.start(installation.url);
    const body = JSON.stringify({ code: 'project_damaged', status: 503, title: 'The project is damaged' });
    const headers = { 'content-type': 'application/problem+json' };
    proxy.act = (path) => (path.includes(`/${SECOND}/backup`) ? { status: 503, headers, body } : 'pass');
    expect(await backUp(folderOf('of-damaged'), online(admin, proxy.url), 1)).toMatchObject({
      written: PROJECTS.length - 1,
      failed: [{ project: SECOND, code: 'project_damaged' }],
    });
  });

  it('ends at once when no project can be backed up, and says why', async () => {
    const reader = await installation.client(PROJECTS, ['docs:read']);
    const refused = await bundoc(online(reader), 'backup', '--all', folderOf('refused'));
    expect([refused.code, refused.stdout, refused.stderr]).toEqual([
      2,
      '',
      expect.stringContaining('forbidden'),
    ]);
  });

  it('leaves the backups of projects alone that its token is not for', async () => {
    const folder = folderOf('reach');
    await backUp(folder);
    const narrow = await installation.client([FIRST], ['docs:read', 'docs:admin']);
    expect(await backUp(folder, online(narrow))).toMatchObject({ projects: 1, unchanged: 1, gone: [] });
    expect(await verify(folder)).toEqual(GOOD);
    const fresh = folderOf('narrow');
    expect(await backUp(fresh, online(narrow))).toMatchObject({ projects: 1, written: 1 });
    expect(readdirSync(fresh).filter((name) => name.endsWith('.backup'))).toEqual([`${FIRST}.backup`]);
  });

  it('refuses a folder with other files, and a second run beside a running one', async () => {
    const folder = folderOf('other');
    mkdirSync(folder);
    writeFileSync(join(folder, 'letter.txt'), 'x');
    const other = await bundoc(online(), 'backup', '--all', folder);
    expect([other.code, other.stderr]).toEqual([2, expect.stringContaining('letter.txt')]);
    await using proxy = await HeldProxy.start(installation.url);
    proxy.act = (path) => (path.endsWith('/backup') ? 'hold' : 'pass');
    const busy = folderOf('busy');
    const child = spawnNode([MAIN, 'backup', '--all', busy], {
      NODE_ENV: 'test',
      ...online(admin, proxy.url),
    });
    await expect
      .poll(() => proxy.asked.some((path) => path.endsWith('/backup')), { timeout: PATIENT_MS })
      .toBe(true);
    const second = await bundoc(online(), 'backup', '--all', busy);
    expect([second.code, second.stderr]).toEqual([2, expect.stringContaining('another process')]);
    child.kill('SIGKILL');
    await expect.poll(() => child.signalCode).toBe('SIGKILL');
  });

  it('takes the root of a file system', async () => {
    const folder = folderOf('volume');
    mkdirSync(join(folder, 'lost+found'), { recursive: true });
    await backUp(folder);
    expect(await verify(folder)).toEqual(GOOD);
  });

  it('writes to no path outside the folder, whatever the service names, and lists in large pages', async () => {
    const asked: (string | null)[] = [];
    const server = createServer((request, response) => {
      asked.push(new URL(request.url ?? '', 'http://service').searchParams.get('limit'));
      const isList = request.url?.startsWith('/v1/projects') === true;
      response.setHeader('content-type', 'application/json');
      response.end(isList ? '{"projects":[{"project":"../escaped"}]}' : '{}');
    });
    await once(server.listen(0), 'listening');
    const folder = folderOf('hostile/folder');
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const refused = await bundoc(online(admin, url), 'backup', '--all', folder);
    server.close();
    expect([refused.code, refused.stderr]).toEqual([2, expect.stringContaining('cannot be one')]);
    expect(asked.filter((limit) => limit !== null)).toEqual(['1000', '100']);
    expect(readdirSync(folderOf('hostile'))).toEqual(['folder']);
    expect((await bundoc({}, 'verify-backup', folder)).stderr).toContain('has not ended');
  });

  it('needs a project and a file, or a folder', async () => {
    for (const args of [[], ['p'], ['p', 'file', '--all', 'folder']])
      expect((await bundoc(online(), 'backup', ...args)).code).toBe(2);
  });
});

describe('bundoc verify-backup of a folder', () => {
  it('names a file that is changed, missing, of another project, no file, or not in the manifest', async () => {
    const folder = folderOf('whole');
    const at = (name: string) => join(folder, name);
    const saved = new Map(FILES.map((name) => [name, readFileSync(at(name))]));
    const restore = () => {
      for (const [name, bytes] of saved) {
        rmSync(at(name), { recursive: true, force: true });
        writeFileSync(at(name), bytes);
      }
    };
    const expectOnly = async (...findings: string[]) => {
      expect(await verify(folder)).toEqual({ code: 1, findings });
      restore();
    };
    const changed = Buffer.from(saved.get(`${FIRST}.backup`) as Buffer);
    changed[changed.length >> 1] = (changed[changed.length >> 1] as number) ^ 1;
    writeFileSync(at(`${FIRST}.backup`), changed);
    await expectOnly(`${FIRST}.backup damaged`);
    copyFileSync(folderOf('older'), at(`${SECOND}.backup`));
    await expectOnly(`${SECOND}.backup changed`);
    copyFileSync(join(folderOf('cold'), `${THIRD}.backup`), at(`${THIRD}.backup`));
    await expectOnly(`${THIRD}.backup changed`);
    renameSync(at(`${FIRST}.backup`), at(`${FOURTH}.backup`));
    await expectOnly(`${FIRST}.backup missing`, `${FOURTH}.backup changed`);
    rmSync(at(`${FIRST}.backup`));
    mkdirSync(at(`${FIRST}.backup`));
    await expectOnly(`${FIRST}.backup no_file`);
    writeFileSync(at('more.backup'), 'x');
    await expectOnly('more.backup surplus');
    const printed = await bundoc({}, 'verify-backup', folder);
    expect(printed.stderr).toContain('more.backup is not in the manifest');
    rmSync(at('more.backup'));
    expect(await verify(folder)).toEqual(GOOD);
  });

  it('refuses a manifest that is forged or damaged with a clear error, and opens no path outside the folder', async () => {
    const folder = folderOf('whole');
    const path = join(folder, 'manifest.ndjson');
    const good = readFileSync(path, 'utf8');
    const [head = '', first = '', ...rest] = good.split('\n');
    const changedFirst = (change: object) => {
      const [word, entry] = JSON.parse(first) as [string, object];
      return sealed([head, JSON.stringify([word, { ...entry, ...change }]), ...rest.slice(0, -2)]);
    };
    /** With a right end, as an attacker would write it. */
    const sealed = (lines: string[]) => {
      const before = `${lines.join('\n')}\n`;
      const sha256 = createHash('sha256').update(before).digest('hex');
      const end = { at: new Date().toISOString(), projects: lines.length - 1, failed: [], sha256 };
      return `${before}${JSON.stringify(['end', end])}\n`;
    };
    const forged: [text: string, why: string][] = [
      ['', 'line 1'],
      ['no JSON\n', 'line 1'],
      [good.slice(0, -20), 'manifest.ndjson'],
      [good.replace(/"bytes":\d+/, '"bytes":7'), 'SHA-256'],
      [changedFirst({ file: '../../etc/passwd' }), 'line 2'],
      [changedFirst({ project: '../up' }), 'line 2: project'],
      [changedFirst({ project: '/etc/passwd' }), 'line 2: project'],
      [changedFirst({ bytes: 1e300 }), 'line 2: bytes'],
      [changedFirst({ bytes: -1 }), 'line 2: bytes'],
      [changedFirst({ sha256: 'x' }), 'line 2: sha256'],
      [changedFirst({ more: 1 }), 'line 2'],
      [sealed([head, first, first]), 'twice'],
      [good.replace('"format":1', '"format":2'), 'line 1: format'],
    ];
    for (const [text, why] of forged) {
      writeFileSync(path, text);
      const checked = await bundoc({}, 'verify-backup', folder);
      expect([checked.code, checked.stdout, checked.stderr]).toEqual([2, '', expect.stringContaining(why)]);
    }
    rmSync(path);
    mkdirSync(path);
    const notFile = await bundoc({}, 'verify-backup', folder);
    expect([notFile.code, notFile.stderr]).toEqual([2, expect.stringContaining('not a regular file')]);
    rmSync(path, { recursive: true });
    const without = await bundoc({}, 'verify-backup', folder);
    expect([without.code, without.stderr]).toEqual([2, expect.stringContaining('has no manifest.ndjson')]);
    writeFileSync(path, good);
    expect(await verify(folder)).toEqual(GOOD);
  });
});

const offline = (kmsUrl = installation.kms.internalUrl) => ({
  ...installation.stored.environment,
  BUNDOC_KMS_URL: kmsUrl,
  BUNDOC_KMS_TOKEN_FILE: installation.tokenFile,
});

/** Restores a folder, and returns the summary. */
async function restoreAll(folder: string, environment: Record<string, string>, code = 0) {
  const done = await bundoc(environment, 'restore', folder, '--json');
  expect(done.code, done.stderr).toBe(code);
  return JSON.parse(done.stdout) as Record<string, unknown>;
}

describe('bundoc restore of a folder', () => {
  it('restores the projects that are missing, and leaves the others as they are', async () => {
    await backUp(folderOf('whole'));
    await installation.stopBundoc();
    await installation.stored.remove(FIRST);
    await installation.stored.remove(SECOND);
    expect(await restoreAll(folderOf('whole'), offline())).toMatchObject({
      projects: PROJECTS.length,
      restored: 2,
      present: PROJECTS.length - 2,
      failed: [],
      held: [],
    });
    await installation.startBundoc();
    const path = `/v1/projects/${SECOND}/collections/notes/documents/second`;
    expect((await call(installation.url, path, { token })).status).toBe(200);
    // A restored project has other positions, so it is backed up again.
    expect(await backUp(folderOf('whole'))).toMatchObject({ written: 2, unchanged: PROJECTS.length - 2 });
  });

  it('names a project that was created in the place of a lost one, and those that the folder lacks', async () => {
    await installation.stopBundoc();
    await installation.stored.remove(FIRST);
    await installation.startBundoc();
    await put(FIRST, 'of-a-client-that-was-too-early');
    await put('extra', 'a');
    await installation.stopBundoc();
    const done = await bundoc(offline(), 'restore', folderOf('whole'));
    expect(done.code).toBe(1);
    expect(done.stderr).toContain(`bundoc: ${FIRST}: another project with this id was created at 2`);
    expect(done.stderr).toContain('also has 1 project of which the folder has no backup, such as extra');
    await installation.stored.remove(FIRST);
    expect(await restoreAll(folderOf('whole'), offline())).toMatchObject({
      restored: 1,
      present: PROJECTS.length - 1,
      failed: [],
      others: { projects: 1, such_as: ['extra'] },
    });
    await installation.startBundoc();
    await backUp(folderOf('whole'));
  });

  it('names a folder without a manifest', async () => {
    const refused = await bundoc(offline(), 'restore', folderOf('other'));
    expect([refused.code, refused.stderr]).toEqual([2, expect.stringContaining('has no manifest.ndjson')]);
  });
});

describe('a project that is deleted', () => {
  it('keeps its backup, which the manifest marks, until the operator removes the file', async () => {
    const folder = folderOf('whole');
    const last = PROJECTS.at(-1) as string;
    const path = `/v1/projects/${last}?confirm=${last}`;
    expect((await call(installation.url, path, { method: 'DELETE', token: admin })).status).toBe(200);
    for (let run = 0; run < 2; run++) {
      const summary = await backUp(folder);
      expect(summary).toMatchObject({ written: 0, failed: [], gone: [{ project: last, why: 'deleted' }] });
    }
    expect(existsSync(join(folder, `${last}.backup`))).toBe(true);
    expect(await verify(folder)).toEqual(GOOD);
    rmSync(join(folder, `${last}.backup`));
    expect(await verify(folder)).toEqual(GOOD);
    expect(await backUp(folder)).toMatchObject({ gone: [] });
    expect(readFileSync(join(folder, 'manifest.ndjson'), 'utf8')).not.toContain(last);
  });
});

describe('bundoc restore of a folder into another storage', () => {
  // The folder has a backup of the project that was deleted since.
  const KEPT = PROJECTS.slice(0, -1);
  const folder = () => folderOf('killed');
  const elsewhere = (name: string, kmsUrl?: string) => ({
    ...offline(kmsUrl),
    BUNDOC_STORAGE: 'files',
    BUNDOC_DATA_DIR: folderOf(name),
  });

  it('names one command for all keys of the former storage, and restores what this one holds already', async () => {
    const old = await installation.storageId();
    const refused = await bundoc(elsewhere('new'), 'restore', folder());
    expect(refused.code).toBe(1);
    const { id } = JSON.parse(readFileSync(join(folderOf('new'), 'storage.json'), 'utf8')) as { id: string };
    expect(refused.stderr.trim().split('\n')).toEqual([
      expect.stringContaining('its key was permanently destroyed'),
      expect.stringContaining(`"bunkms storage take-over ${id} --of ${old} --confirm"`),
    ]);
    // The key of the first project may stay, for example with a deletion intent.
    await installation.takeOverKey(`${SECOND}-dek`, id);
    const { held, restored } = await restoreAll(folder(), elsewhere('new'), 1);
    expect([restored, held]).toMatchObject([1, [{ storage: old, projects: KEPT.length - 1 }]]);
  });

  it('names one command for each of several former storages, which give it all keys as they are printed', async () => {
    const old = await installation.storageId();
    const another = randomUUID();
    await installation.takeOverKey(`${FIRST}-dek`, another);
    const { stderr } = await bundoc(elsewhere('new'), 'restore', folder());
    const commands = [...stderr.matchAll(/"bunkms (storage take-over [^"]+)"/g)].map(([, text = '']) => text);
    expect(commands.map((command) => command.split(' ')[4])).toEqual([another, old]);
    const run = (command: string) =>
      capturedRun(() => runBunkms(command.split(' '), { NODE_ENV: 'test', ...installation.kmsEnvironment }));
    // Bundoc has served these projects until now.
    const waits = await run(commands[1] as string);
    expect([waits.code, waits.stderr]).toEqual([5, expect.stringContaining('lease_live')]);
    // The key of a third project is the new storage's already. The folder lacks one project.
    for (const [at, count] of ['1 key', `${KEPT.length - 1} keys`].entries()) {
      const taken = await run(`${commands[at]} --force`);
      expect(taken).toMatchObject({ code: 0, stdout: expect.stringContaining(`has taken over ${count} of`) });
    }
  });

  it('continues after kill -9, restores each project once, and goes on after a file that fails', async () => {
    await using kms = await HeldProxy.start(installation.kms.internalUrl);
    const held = [THIRD, FOURTH].map((project) => `/export/${project}-dek`);
    const isHeld = (path: string) => held.some((one) => path.includes(one));
    kms.act = (path) => (isHeld(path) ? 'hold' : 'pass');
    const environment = {
      NODE_ENV: 'test',
      BUNDOC_KMS_DEADLINE_MS: String(PATIENT_MS),
      ...elsewhere('new', kms.url),
    };
    const child = spawnNode([MAIN, 'restore', folder()], environment);
    await expect
      .poll(() => held.filter((one) => kms.asked.some((path) => path.includes(one))), { timeout: PATIENT_MS })
      .toEqual(held);
    child.kill('SIGKILL');
    await expect.poll(() => child.signalCode).toBe('SIGKILL');
    const file = join(folder(), `${FOURTH}.backup`);
    const bytes = readFileSync(file);
    rmSync(file);
    const deleted = { project: PROJECTS.at(-1), code: 'deleted' };
    const second = await restoreAll(folder(), elsewhere('new'), 1);
    expect(second).toMatchObject({
      failed: [{ project: FOURTH, code: 'missing' }],
      skipped: [deleted],
      held: [],
    });
    // The other workers restored some of them before the end.
    expect([second['restored'], Number(second['present']) + Number(second['restored'])]).toEqual([
      expect.toSatisfy((restored: number) => restored >= 1),
      KEPT.length - 1,
    ]);
    writeFileSync(file, bytes);
    expect(await restoreAll(folder(), elsewhere('new'))).toMatchObject({
      present: KEPT.length - 1,
      restored: 1,
      failed: [],
    });
    const verified = await bundoc(elsewhere('new'), 'verify');
    expect([verified.code, verified.stderr]).toEqual([0, expect.stringContaining('all good')]);
  });

  it('writes nothing over backups of another storage', async () => {
    const config = readConfig({ BUNDOC_PORT: '0', ...PATIENT_BUNDOC, ...elsewhere('new') });
    const service = await startBundoc(config, { logger: installation.log.logger('bundoc') });
    try {
      const before = identities(folder());
      const refused = await bundoc(online(admin, service.url), 'backup', '--all', folder());
      expect([refused.code, refused.stderr]).toEqual([2, expect.stringContaining('has backups of storage')]);
      expect(identities(folder())).toEqual(before);
    } finally {
      await service.close();
    }
  });
});
