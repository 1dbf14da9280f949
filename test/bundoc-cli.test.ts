import { readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { bundocCommand, bundocProcess } from './support/bundoc-command.ts';
import { call, Installation } from './support/installation.ts';

let installation: Installation;
let token: string;
beforeAll(async () => {
  installation = await Installation.start();
  token = await installation.client();
  for (const project of ['project-a', 'project-b'])
    for (const id of ['one', 'two'])
      await call(installation.url, `/v1/projects/${project}/collections/notes/documents`, {
        method: 'POST',
        token,
        body: JSON.stringify({ _id: id, of: project }),
      });
});
afterAll(() => installation[Symbol.asyncDispose]());

const environmentOf = (kmsUrl: string) => ({
  BUNDOC_DATA_DIR: installation.dataDir,
  BUNDOC_KMS_URL: kmsUrl,
  BUNDOC_KMS_TOKEN_FILE: installation.tokenFile,
});
const bundoc = (args: readonly string[], kmsUrl = installation.kms.internalUrl) =>
  bundocCommand(environmentOf(kmsUrl), args);

const projectFile = (...path: string[]) => join(installation.dataDir, 'projects', 'project-a', ...path);
const projectFiles = () =>
  readdirSync(join(installation.dataDir, 'projects'), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .sort()
    .map((path) => [path, readFileSync(path).toString('base64'), statSync(path).mtimeMs]);

describe('bundoc on the command line', () => {
  it.each([['verify'], ['stats'], ['repair', 'project-a'], ['carry']])(
    '%s cannot run while the service runs: it exits with code 2 and names the process',
    async (...args) => {
      const { code, stdout, stderr } = await bundoc(args);
      expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
      expect(stderr).toMatch(new RegExp(`in use by another Bundoc process \\(process ${process.pid} on `));
      expect(stderr.trim().split('\n')).toHaveLength(1);
    },
  );

  it('names a wrong URL when the service there has nothing at the path, and what looks for the cause', async () => {
    for (const url of [installation.kms.apiUrl, installation.kms.internalUrl, `${installation.url}/v1`]) {
      const args = ['query', 'project-a', 'notes', '--url', url];
      const { code, stderr } = await bundocCommand({ BUNDOC_TOKEN: token }, args);
      expect(code).toBe(2);
      expect(stderr).toBe(
        `bundoc: not_found: There is nothing at this path: is ${url} the URL of Bundoc, without a path? "bundoc doctor" looks for the cause\n`,
      );
    }
  });

  it('refuses invalid arguments with exit code 2', async () => {
    await installation.stopBundoc();
    const calls = [
      ['verify', '--nonsense'],
      ['nonsense'],
      ['repair'],
      ['verify', '../x'],
      ['stats', 'no-such-project'],
    ];
    for (const result of await Promise.all(calls.map((args) => bundoc(args))))
      expect(result).toMatchObject({ code: 2, stdout: '' });
    const asProcess = await bundocProcess(environmentOf(installation.kms.internalUrl), ['nonsense']);
    expect(asProcess).toMatchObject({ code: 2, stdout: '', stderr: expect.stringContaining('nonsense') });
  });

  it('verifies a whole installation, and changes nothing', async () => {
    const before = projectFiles();
    const { code, stdout, stderr } = await bundoc(['verify']);
    expect({ code, stdout }).toEqual({ code: 0, stdout: '' });
    expect(stderr).toBe('bundoc: 4 documents in 2 projects: all good\n');
    const json = await bundocProcess(environmentOf(installation.kms.internalUrl), [
      'verify',
      'Project-A',
      '--json',
    ]);
    expect(json.code).toBe(0);
    expect(JSON.parse(json.stdout)).toEqual({
      ok: true,
      projects: [{ project: 'project-a', documents: 2, findings: [] }],
      log: [],
    });
    expect(projectFiles()).toEqual(before);
  });

  it('prints what each project holds', async () => {
    const { code, stdout } = await bundoc(['stats']);
    expect(code).toBe(0);
    expect(stdout).toMatch(
      /^storage [0-9a-f-]{36}, generation [0-9a-f-]{36}\nproject +documents +tombstones .* log bytes /,
    );
    expect(stdout).toMatch(/^project-b +2 +0 +1 /m);
    const json = await bundoc(['stats', 'project-a', '--json']);
    expect(JSON.parse(json.stdout)).toMatchObject({
      storage: { id: expect.any(String), generation: expect.any(String) },
      projects: [{ project: 'project-a', documents: 2, tombstones: 0, keyVersions: [1], lastSeq: 2 }],
    });
  });

  it('reports an unreachable key service as a finding in each project', async () => {
    const { code, stdout } = await bundoc(['verify', 'project-b'], 'http://127.0.0.1:1');
    expect(code).toBe(1);
    expect(stdout).toBe('project-b  key  kms_unavailable\n');
  });

  it('copies the commits of the log into the folders without a key', async () => {
    expect(await bundoc(['carry', '--json'], 'http://127.0.0.1:1')).toMatchObject({
      code: 0,
      stdout: '{"stuck":[]}\n',
    });
    expect(await bundoc(['carry'], 'http://127.0.0.1:1')).toMatchObject({
      code: 0,
      stdout: '',
      stderr: 'bundoc: every folder of a project is complete\n',
    });
    for (const project of ['project-a', 'project-b'])
      expect(readdirSync(join(installation.dataDir, 'projects', project, 'carried'))).toHaveLength(1);
    expect((await bundoc(['verify'])).stderr).toBe('bundoc: 4 documents in 2 projects: all good\n');
  });

  it('lets followers restart, and repeats no position, once the loss of unknown commits is accepted', async () => {
    const changes = (since = '') =>
      call(installation.url, `/v1/projects/project-b/changes${since === '' ? '' : `?since=${since}`}`, {
        token,
      });
    await installation.startBundoc();
    const since = encodeURIComponent(String((await changes()).json()['since']));
    expect((await changes(since)).status).toBe(200);
    await installation.stopBundoc();
    expect((await bundoc(['accept-loss', 'project-b', '--frames'])).code).toBe(2);
    expect((await bundoc(['accept-loss', '--frames'])).code).toBe(0);
    const { lossAcceptedMs } = JSON.parse(readFileSync(join(installation.dataDir, 'storage.json'), 'utf8'));
    expect(Date.now() - lossAcceptedMs).toBeLessThan(600_000);
    await installation.startBundoc();
    expect((await changes(since)).json()).toMatchObject({ code: 'position_gone' });
    expect((await changes()).json()['changes']).toHaveLength(2);
    await installation.stopBundoc();
  });

  it('finds damage, continues with the other projects, and repairs it so that the service can start', async () => {
    await installation.startBundoc();
    const read = (id: string) =>
      call(installation.url, `/v1/projects/project-a/collections/notes/documents/${id}`, { token });
    expect((await read('one')).status).toBe(200);
    await call(installation.url, '/v1/projects/project-a/collections/notes/documents', {
      method: 'POST',
      token,
      body: JSON.stringify({ _id: 'three', of: 'project-a' }),
    });
    await installation.stopBundoc();
    const whole = readFileSync(projectFile('project.json'));
    writeFileSync(projectFile('project.json'), '{');
    const restored = await bundoc(['repair', 'project-a']);
    expect(restored).toMatchObject({ code: 0, stderr: '' });
    expect(restored.stdout).toMatch(/restored project.json from the copy of project.json in catalog/);
    expect(readFileSync(projectFile('project.json'))).toEqual(whole);
    writeFileSync(projectFile('catalog'), 'no catalog');
    const found = await bundoc(['verify']);
    expect(found.code).toBe(1);
    expect(found.stdout).toBe('project-a  catalog  it is no catalog of a known format\n');
    expect(found.stderr).toContain('2 documents in 2 projects: 1 finding');

    const repaired = await bundoc(['repair', 'project-a']);
    expect(repaired).toMatchObject({ code: 0, stderr: '' });
    expect(repaired.stdout).toMatch(/rebuilt the catalog/);
    expect(readFileSync(projectFile('project.json'))).toEqual(whole);
    expect((await bundoc(['verify'])).code).toBe(0);
    expect((await bundoc(['repair', 'project-a'])).stdout).toBe('nothing to repair\n');

    await installation.startBundoc();
    for (const id of ['one', 'three'])
      expect((await read(id)).json()).toMatchObject({ _id: id, of: 'project-a' });
    await installation.stopBundoc();
  });

  it('repairs a project of which only the files of documents are left', async () => {
    await installation.startBundoc();
    const documents = '/v1/projects/project-c/collections/notes/documents';
    const made = { method: 'POST', token, body: JSON.stringify({ _id: 'one', of: 'project-c' }) };
    expect((await call(installation.url, documents, made)).status).toBe(201);
    await installation.stopBundoc();
    expect((await bundoc(['carry'], 'http://127.0.0.1:1')).code).toBe(0);
    for (const name of ['carried', 'catalog'])
      rmSync(projectFile('..', 'project-c', name), { recursive: true });
    expect((await bundoc(['repair', 'project-c'])).stdout).toMatch(/^done: took 1 document from the files$/m);
    await installation.startBundoc();
    const found = await call(installation.url, `${documents}/one`, { token });
    expect(found.json()).toMatchObject({ _id: 'one', of: 'project-c' });
    await installation.stopBundoc();
  });

  it('reports log damage that concerns other projects, and drops commits only with --accept-loss', async () => {
    await installation.startBundoc();
    const write = async (project: string, id: string) =>
      call(installation.url, `/v1/projects/${project}/collections/notes/documents`, {
        method: 'POST',
        token,
        body: JSON.stringify({ _id: id, of: project }),
      });
    for (const id of ['four', 'five', 'six']) expect((await write('project-b', id)).status).toBe(201);
    await installation.stopBundoc();
    damageFrameBeforeLast();

    const other = await bundoc(['verify', 'project-a', '--json']);
    expect(other.code).toBe(1);
    expect(JSON.parse(other.stdout)).toMatchObject({
      ok: false,
      projects: [{ project: 'project-a', findings: [] }],
      log: [
        expect.stringMatching(
          /^segment \d+, frame \d+ of the log is damaged; it has parts of handle [0-9a-f]{16}$/,
        ),
      ],
    });
    const own = await bundoc(['verify']);
    expect(own.stdout).toMatch(/^log {2}segment \d+, frame \d+ of the log is damaged/);
    expect(own.stdout).toMatch(
      /^project-b {2}log {2}segment \d+, frame \d+ of the log: a part does not open$/m,
    );

    const refused = await bundoc(['repair', 'project-b']);
    expect(refused).toMatchObject({ code: 1, stdout: '' });
    expect(refused.stderr).toMatch(
      /commits \d+ to \d+ may be lost; to continue without them, repair it with --accept-loss/,
    );
    const repaired = await bundoc(['repair', 'project-b', '--accept-loss']);
    expect(repaired.code).toBe(0);
    expect(repaired.stdout).toMatch(/^may be lost: commits \d+ to \d+$/m);
    expect((await bundoc(['verify', 'project-b'])).stdout).not.toMatch(/^project-b/m);
    await installation.startBundoc();
    expect((await write('project-b', 'seven')).status).toBe(201);
  });
});

/** Damages a part in the second to last frame with parts, so that one more such frame follows it. */
function damageFrameBeforeLast(): void {
  const folder = join(installation.dataDir, 'log');
  const frames: { path: string; segment: number; frame: number; lastByte: number }[] = [];
  for (const name of readdirSync(folder).filter((one) => /^\d{8}$/.test(one))) {
    const path = join(folder, name);
    const bytes = readFileSync(path);
    for (let frame = 1; frame * 4_096 < bytes.length; frame++) {
      const start = frame * 4_096;
      const isFrame =
        bytes.toString('latin1', start, start + 4) === 'BLF1' && bytes.readUInt16BE(start + 56) > 0;
      const lastByte = start + bytes.readUInt32BE(start + 4) - 17;
      if (isFrame) frames.push({ path, segment: Number(bytes.readBigUInt64BE(start + 16)), frame, lastByte });
    }
  }
  frames.sort((one, other) => one.segment - other.segment || one.frame - other.frame);
  const { path, lastByte } = frames.at(-2)!;
  const bytes = readFileSync(path);
  bytes[lastByte]! ^= 1;
  writeFileSync(path, bytes);
}
