import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { KeyCalls } from './support/lifecycle.ts';
import {
  bundoc,
  codeOf,
  expectWhole,
  makeProject,
  NAME,
  newService,
  useRecovery,
} from './support/recovered-stores.ts';
import { recoverFrom, writeCatalog, writeProject } from './support/recovery.ts';

useRecovery();

describe('a project file', () => {
  it('a project file whose copy alone is intact is read from the copy, and the versions of both are combined', async () => {
    const all = await makeProject('p', 2);
    const directory = writeProject(bundoc, 'p', all);
    const service = await newService();
    writeFileSync(join(directory, 'project.json'), '{');
    expect(await recoverFrom(service, bundoc, { dryRun: true })).toMatchObject([
      { outcome: 'recovered', versions: [1, 2] },
    ]);
    // After a crash the file is older than its copy, and the copy has a damaged version.
    writeProject(bundoc, 'p', all, (file) => ({
      ...file,
      versions: file.versions.map((one) => (one.version === 1 ? { ...one, wrapped: 'AAAA' } : one)),
    }));
    const copy = readFileSync(join(directory, 'project.json'), 'utf8');
    writeProject(bundoc, 'p', all.slice(0, 1));
    writeCatalog(directory, copy);
    expect(await recoverFrom(service, bundoc)).toMatchObject([{ outcome: 'recovered', versions: [1, 2] }]);
    await (await KeyCalls.of(service)).post(NAME, 'enable');
    await expectWhole(service, all);
  });

  it.each<
    [
      string,
      (file: {
        project: string;
        key: object;
        versions: { version: number; kcv: string; wrapped: string }[];
      }) => object,
      string,
    ]
  >([
    [
      'of another key id',
      (file) => ({ ...file, key: { ...file.key, id: '00000000-0000-4000-8000-000000000000' } }),
      'unreadable',
    ],
    ['of another name', (file) => ({ ...file, key: { ...file.key, name: 'q-dek' } }), 'unreadable'],
    ['of another project', (file) => ({ ...file, project: 'q' }), 'unreadable'],
    [
      'whose versions are swapped',
      (file) => ({ ...file, versions: file.versions.map((one) => ({ ...one, version: 3 - one.version })) }),
      'unreadable',
    ],
    [
      'whose check values are others',
      (file) => ({ ...file, versions: file.versions.map((one) => ({ ...one, kcv: '0'.repeat(32) })) }),
      'unreadable',
    ],
    [
      'whose newest version does not open',
      (file) => ({
        ...file,
        versions: file.versions.map((one) => (one.version === 2 ? { ...one, wrapped: 'AAAA' } : one)),
      }),
      'unreadable',
    ],
    [
      'that claims a version which does not open',
      (file) => ({ ...file, versions: [...file.versions, { version: 999, kcv: '', wrapped: 'AAAA' }] }),
      'unreadable',
    ],
    ['that is no JSON object', () => [], 'unreadable'],
  ])('%s gives no key', async (_what, change, outcome) => {
    const all = await makeProject('p', 2);
    writeProject(bundoc, 'p', all, change as never);
    const service = await newService();
    const [found] = await recoverFrom(service, bundoc);
    expect(found).toMatchObject({ project: 'p', outcome, problem: expect.any(String) });
    expect((await service.store.counts()).keys).toBe(0);
  });

  it('a project file with an older version that does not open gives its other versions', async () => {
    const all = await makeProject('p', 3);
    writeProject(bundoc, 'p', all, (file) => ({
      ...file,
      versions: file.versions.map((one) => (one.version === 2 ? { ...one, wrapped: 'AAAA' } : one)),
    }));
    const service = await newService();
    expect(await recoverFrom(service, bundoc)).toMatchObject([
      { outcome: 'recovered', versions: [1, 3], lost_versions: [2] },
    ]);
    const calls = await KeyCalls.of(service);
    await calls.post(NAME, 'enable');
    await expectWhole(service, [all[0]!, all[2]!]);
    expect(await codeOf(calls, NAME, 2)).toBe('key_damaged');
    // Once it is available, it is restored.
    writeProject(bundoc, 'p', all);
    expect(await recoverFrom(service, bundoc)).toMatchObject([
      { outcome: 'recovered', state: 'enabled', versions: [2] },
    ]);
    await expectWhole(service, all);
  });
});

describe('a project file in its folder', () => {
  it('is recovered despite any deletion marker beside it', async () => {
    const mark = { deleted: 'p', format: 1, since: '2026-01-01T00:00:00.000Z' };
    const destroyed = { ...mark, keyDestroyedAt: '2026-01-02T00:00:00.000Z' };
    const path = join(bundoc, 'projects', 'p', 'deleted.json');
    for (const content of ['', '{', mark, destroyed, { ...destroyed, finishedAt: mark.since }]) {
      await makeProject('p');
      writeFileSync(path, typeof content === 'string' ? content : JSON.stringify(content));
      const service = await newService();
      expect(await recoverFrom(service, bundoc)).toMatchObject([
        { project: 'p', outcome: 'recovered', state: 'disabled' },
      ]);
      expect((await service.store.findKey(NAME, 'current'))?.record).toMatchObject({ holder: 'unknown' });
    }
  });

  it('is not expected in a folder with only a deletion marker, and a conflict is reported when the key exists', async () => {
    const folder = await makeProject('p').then(() => join(bundoc, 'projects', 'p'));
    const keyDestroyedAt = '2026-01-02T00:00:00.000Z';
    const mark = { deleted: 'p', format: 1, since: '2026-01-01T00:00:00.000Z', keyDestroyedAt };
    const service = await newService();
    await recoverFrom(service, bundoc);
    for (const name of ['project.json', 'catalog']) rmSync(join(folder, name));
    writeFileSync(join(folder, 'deleted.json'), JSON.stringify(mark));
    expect(await recoverFrom(service, bundoc)).toEqual([
      {
        project: 'p',
        key: NAME,
        outcome: 'deleted',
        problem: `deleted.json says that the key was destroyed at ${keyDestroyedAt}, but the key exists`,
      },
    ]);
    await (await KeyCalls.of(service)).shred(NAME);
    expect(await recoverFrom(service, bundoc)).toEqual([{ project: 'p', key: NAME, outcome: 'deleted' }]);
  });

  it('is read only from regular files: no links, no pipes, no folders that are not projects', async () => {
    const all = await makeProject('p');
    const projects = join(bundoc, 'projects');
    mkdirSync(join(projects, 'linked'));
    for (const name of ['project.json', 'catalog'])
      symlinkSync(join(projects, 'p', name), join(projects, 'linked', name));
    symlinkSync(join(projects, 'p'), join(projects, 'linked-folder'));
    mkdirSync(join(projects, 'huge'));
    writeFileSync(join(projects, 'huge/project.json'), '');
    truncateSync(join(projects, 'huge/project.json'), 10 * 1_073_741_824);
    mkdirSync(join(projects, 'piped'));
    for (const name of ['deleted.json', 'project.json'])
      execFileSync('mkfifo', [join(projects, 'piped', name)]);
    mkdirSync(join(projects, 'Not-A-Project'));
    mkdirSync(join(projects, 'empty'));
    mkdirSync(join(projects, 'folder', 'project.json'), { recursive: true });
    const service = await newService();
    expect(await recoverFrom(service, bundoc)).toEqual([
      {
        project: 'empty',
        outcome: 'unreadable',
        problem: 'project.json is missing, the copy in catalog is missing',
      },
      {
        project: 'folder',
        outcome: 'unreadable',
        problem: expect.stringMatching(/^project.json is a folder where a file belongs/),
      },
      {
        project: 'huge',
        outcome: 'unreadable',
        problem: expect.stringMatching(/^project.json has 10737418240 bytes/),
      },
      {
        project: 'linked',
        outcome: 'unreadable',
        problem: 'project.json is a symbolic link, the copy in catalog is a symbolic link',
      },
      {
        project: 'linked-folder',
        outcome: 'unreadable',
        problem:
          'project.json is not a folder, or its parent is not, the copy in catalog is not a folder, or its parent is not',
      },
      { project: 'p', key: NAME, outcome: 'recovered', state: 'disabled', versions: [1] },
      {
        project: 'piped',
        outcome: 'unreadable',
        problem: 'project.json is not a regular file, the copy in catalog is missing',
      },
    ]);
    expect(all).toHaveLength(1);
    await expect(recoverFrom(service, join(bundoc, 'projects'))).rejects.toMatchObject({
      name: 'NoDataFolder',
    });
  });
});
