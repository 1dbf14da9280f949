import { readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { dekNameOf } from '@bundoc/shared/contract/keys';
import { DataFolder } from '@bundoc/shared/files/data-folder';
import { describe, expect, it } from 'vitest';
import { backedUpProjects, hasBackups, projectFileInBackup } from '../src/recovery/backed-up-projects.ts';
import { contentOfFolder } from '../src/recovery/claim-keys.ts';
import { KeyCalls } from './support/lifecycle.ts';
import { bundoc, expectWhole, makeProject, newService, useRecovery } from './support/recovered-stores.ts';
import { recoverFrom } from './support/recovery.ts';

useRecovery();

const GOLDEN = new URL('../../bundoc/test/golden/backup-v1.golden.bin', import.meta.url);
const LINE_HEAD = '["manifest",{"format":1}]';

/** A backup with one block of documents before its end. Its hashes are zeros: BunKMS checks none. */
function backupOf(project: string, projectFile: string | Buffer): Buffer {
  const head = Buffer.alloc(29);
  head.write('BUNDOCB1');
  head.writeUInt8(project.length, 28);
  const block = (kind: number, sealed: Buffer, clear: Buffer) => {
    const lengths = Buffer.alloc(9);
    lengths.writeUInt8(kind);
    lengths.writeUInt32BE(sealed.length, 1);
    lengths.writeUInt32BE(clear.length, 5);
    return [lengths, sealed, clear, Buffer.alloc(32)];
  };
  const documents = block(1, Buffer.alloc(60, 2), Buffer.alloc(700, 1));
  const end = block(2, Buffer.alloc(60, 1), Buffer.from(projectFile));
  return Buffer.concat([head, Buffer.from(project), Buffer.alloc(32), ...documents, ...end]);
}

/** Turns the project that {@link makeProject} has written into a backup of it. */
function backUp(project: string): void {
  const file = readFileSync(join(bundoc, 'projects', project, 'project.json'));
  writeFileSync(join(bundoc, `${project}.backup`), backupOf(project, file));
}

/** Writes the manifest, and removes the data folder. */
function finish(lines: readonly object[] = []): void {
  rmSync(join(bundoc, 'projects'), { recursive: true });
  const text = [LINE_HEAD, ...lines.map((line) => JSON.stringify(line))].join('\n');
  writeFileSync(join(bundoc, 'manifest.ndjson'), `${text}\n`);
}

describe('a folder of backups', () => {
  it('gives back the keys that a restored store lacks, with all their versions', async () => {
    const all = await makeProject('p', 2);
    backUp('p');
    finish();
    const service = await newService();
    expect(await recoverFrom(service, bundoc)).toMatchObject([
      { project: 'p', outcome: 'recovered', state: 'disabled', versions: [1, 2] },
    ]);
    await (await KeyCalls.of(service)).post(dekNameOf('p'), 'enable');
    await expectWhole(service, all);
    expect(await recoverFrom(service, bundoc)).toMatchObject([{ outcome: 'sound' }]);
  });

  it('is read as Bundoc writes it', () => {
    writeFileSync(join(bundoc, 'golden.backup'), readFileSync(GOLDEN));
    using folder = DataFolder.open(bundoc);
    const file = projectFileInBackup(folder, 'golden', 10_000);
    expect(JSON.parse(String(file))).toMatchObject({ format: 1, project: 'golden' });
    expect(projectFileInBackup(folder, 'golden', 100)).toBe('is no complete backup');
    expect(projectFileInBackup(folder, 'none', 100)).toBeUndefined();
  });

  it('names each backup that gives no key, takes none from a file of another project, and follows no link', async () => {
    await makeProject('p');
    backUp('p');
    const whole = readFileSync(join(bundoc, 'p.backup'));
    for (const [name, bytes] of [
      ['cut', whole.subarray(0, -100)],
      ['empty', Buffer.alloc(0)],
      ['other', whole],
      ['text', backupOf('text', 'no JSON')],
    ] as const)
      writeFileSync(join(bundoc, `${name}.backup`), bytes);
    symlinkSync(join(bundoc, 'p.backup'), join(bundoc, 'linked.backup'));
    writeFileSync(join(bundoc, '..x.backup'), whole);
    finish();
    const projects = await recoverFrom(await newService(), bundoc);
    const unreadable = (project: string, problem: string) => ({ project, outcome: 'unreadable', problem });
    expect(projects).toEqual([
      unreadable('cut', 'the backup is no complete backup'),
      unreadable('empty', 'the backup is no complete backup'),
      unreadable('linked', 'the backup is a symbolic link'),
      unreadable('other', 'the backup is not a project file of this project'),
      expect.objectContaining({ project: 'p', outcome: 'recovered' }),
      unreadable('text', 'the backup is not a project file of this project'),
    ]);
  });

  it('gives no key of a project that the manifest calls deleted or elsewhere, as no restore brings it back', async () => {
    const since = '2026-01-01T00:00:00.000Z';
    for (const project of ['back', 'deleted', 'elsewhere', 'here', 'lost']) {
      await makeProject(project);
      backUp(project);
    }
    finish([
      ['project', { project: 'back', gone: { since, why: 'deleted' } }],
      ['project', { project: 'deleted', gone: { since, why: 'deleted' } }],
      ['project', { project: 'elsewhere', gone: { since, why: 'elsewhere' } }],
      ['project', { project: 'here' }],
      ['project', { project: 'lost', gone: { since, why: 'not_found' } }],
      ['end', {}],
    ]);
    writeFileSync(join(bundoc, 'manifest.journal'), '["project",{"project":"back"}]\n["project",{"proj');
    using folder = DataFolder.open(bundoc);
    expect(hasBackups(folder)).toBe(true);
    expect(backedUpProjects(folder)).toEqual(['back', 'here', 'lost']);
    expect((await recoverFrom(await newService(), bundoc)).map(({ project }) => project)).toEqual([
      'back',
      'here',
      'lost',
    ]);
  });

  it('shows which keys a storage may claim, by their ids', async () => {
    await makeProject('p');
    backUp('p');
    finish();
    const file = projectFileOf('p');
    writeFileSync(join(bundoc, 'r.backup'), backupOf('r', JSON.stringify({ ...file, project: 'r' })));
    using folder = DataFolder.open(bundoc);
    const content = [];
    for await (const one of contentOfFolder(folder)) content.push(one);
    expect(content).toEqual([
      { project: 'p', keyId: file.key.id },
      { project: 'r', problem: 'the backup is not a project file of this project' },
    ]);
  });
});

function projectFileOf(project: string): { key: { id: string } } {
  using folder = DataFolder.open(bundoc);
  return JSON.parse(String(projectFileInBackup(folder, project, 100_000)));
}
