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
  it.each([['verify'], ['stats'], ['repair', 'project-a']])(
    '%s cannot run beside the service: exit code 2, by a message that names it',
    async (...args) => {
      const { code, stdout, stderr } = await bundoc(args);
      expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
      expect(stderr).toMatch(new RegExp(`in use by another Bundoc process \\(process ${process.pid} on `));
      expect(stderr.trim().split('\n')).toHaveLength(1);
    },
  );

  it('refuses what it does not understand by exit code 2', async () => {
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
    });
    expect(projectFiles()).toEqual(before);
  });

  it('prints what each project holds', async () => {
    const { code, stdout } = await bundoc(['stats']);
    expect(code).toBe(0);
    expect(stdout).toMatch(
      /^storage [0-9a-f-]{36}, generation [0-9a-f-]{36}\nproject +documents +tombstones/,
    );
    expect(stdout).toMatch(/^project-b +2 +0 +1 /m);
    const json = await bundoc(['stats', 'project-a', '--json']);
    expect(JSON.parse(json.stdout)).toMatchObject({
      storage: { id: expect.any(String), generation: expect.any(String) },
      projects: [{ project: 'project-a', documents: 2, tombstones: 0, keyVersions: [1], lastSeq: 2 }],
    });
  });

  it('takes a key service that is down for a finding in each project', async () => {
    const { code, stdout } = await bundoc(['verify', 'project-b'], 'http://127.0.0.1:1');
    expect(code).toBe(1);
    expect(stdout).toBe('project-b  key  kms_unavailable\n');
  });

  it('finds damage, goes on with the other projects, and repairs it for the service to go on', async () => {
    rmSync(projectFile('catalog'));
    writeFileSync(projectFile('project.json'), '{');
    const found = await bundoc(['verify']);
    expect(found.code).toBe(1);
    expect(found.stdout).toBe(
      'project-a  project.json  is no project file of this project\nproject-a  catalog  the catalog is missing\n',
    );
    expect(found.stderr).toContain('2 documents in 2 projects: 2 findings');

    const repaired = await bundoc(['repair', 'project-a']);
    expect(repaired).toMatchObject({ code: 0, stderr: '' });
    expect(repaired.stdout).toMatch(/restored project.json from catalog-project.json/);
    expect(repaired.stdout).toMatch(/rebuilt the catalog/);
    expect((await bundoc(['verify'])).code).toBe(0);
    expect((await bundoc(['repair', 'project-a'])).stdout).toBe('nothing to repair\n');

    await installation.startBundoc();
    const read = await call(installation.url, '/v1/projects/project-a/collections/notes/documents/one', {
      token,
    });
    expect(read.status).toBe(200);
    expect(read.json()).toMatchObject({ _id: 'one', of: 'project-a' });
  });
});
