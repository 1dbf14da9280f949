import { describe, expect, it } from 'vitest';
import { CliProject } from '../../testing/cli-project.ts';
import { framesOn } from '../../testing/log-frames.ts';
import type { SimulatedDisk } from '../../testing/simulated-disk.ts';
import { closeEngine, engineOn, setStorageId, viewLog } from '../../testing/test-engine.ts';
import { put, ref } from '../../testing/writes.ts';
import { LossNotAccepted } from './store/rebuild.ts';

/** One without a checkpoint, one with commits after it, and one whose checkpoint covers everything. */
const KINDS = ['new', 'behind', 'covered'] as const;

async function made() {
  const disk = CliProject.disk();
  const projects = KINDS.map((kind) => new CliProject(kind));
  for (const project of projects) {
    const store = await project.open(disk);
    await store.commit([put('a', '{"v":1}')]);
    if (project.project !== 'new') await store.checkpoint();
    if (project.project === 'behind') await store.commit([put('b', '{"v":2}')]);
    await store[Symbol.asyncDispose]();
  }
  await closeEngine(disk);
  return { disk, projects };
}

async function carryAll(disk: SimulatedDisk): Promise<readonly string[]> {
  const stuck = await (await engineOn(disk)).carryAll();
  await closeEngine(disk);
  return stuck;
}

async function idsOf(project: CliProject, disk: SimulatedDisk): Promise<string[]> {
  const store = await project.open(disk);
  const ids: string[] = [];
  for (const id of ['a', 'b', 'c']) if ((await store.get(ref(id))) !== undefined) ids.push(id);
  await store.commit([put('c', '{"v":3}')]);
  await store[Symbol.asyncDispose]();
  await closeEngine(disk);
  return ids;
}

const IDS = [['a'], ['a', 'b'], ['a']];

describe('bundoc carry', () => {
  it("leaves nothing in the log that the projects' folders lack, without a key", async () => {
    const { disk, projects } = await made();
    expect(await carryAll(disk)).toEqual([]);
    const view = await viewLog(disk);
    expect([...view.handles]).toEqual([]);
    expect(framesOn(disk).filter(({ segment }) => segment >= view.firstLive)).toEqual([]);
    for (const [at, project] of projects.entries()) {
      expect(await project.findings(disk)).toEqual([]);
      expect(await idsOf(project, disk)).toEqual(IDS[at]);
      expect(await idsOf(project, disk)).toEqual([...(IDS[at] ?? []), 'c']);
    }
  });

  it('names the project whose folder fails, and carries the others', async () => {
    const { disk, projects } = await made();
    disk.tamper('/projects/behind/carried', Buffer.from('a file'));
    expect(await carryAll(disk)).toEqual(['behind']);
    disk.tamper('/projects/behind/carried', undefined);
    expect(await carryAll(disk)).toEqual([]);
    for (const [at, project] of projects.entries()) expect(await idsOf(project, disk)).toEqual(IDS[at]);
  });

  it.each(KINDS)('makes a folder that repair accepts in another data folder: %s', async (kind) => {
    const { disk, projects } = await made();
    await carryAll(disk);
    const other = CliProject.disk();
    setStorageId(other, Buffer.alloc(16, 8));
    await other.makeDirectory(`/projects/${kind}`);
    for (const part of ['docs', 'carried']) await other.makeDirectory(`/projects/${kind}/${part}`);
    await other.syncDirectory('/projects');
    await other.syncDirectory(`/projects/${kind}`);
    for (const [path, bytes] of disk.files())
      if (path.startsWith(`/projects/${kind}/`)) other.tamper(path, bytes);
    const at = KINDS.indexOf(kind);
    const project = projects[at]!;
    // Places in the log of another data folder mean nothing here: they must not count as covered by this log.
    await expect(project.open(other)).rejects.toMatchObject({ code: 'project_damaged' });
    await closeEngine(other);
    // A catalog alone does not prove that the log had nothing after it.
    if (kind === 'covered') await expect(project.repair(other)).rejects.toThrow(LossNotAccepted);
    const { lost } = await project.repair(other, kind === 'covered');
    expect(lost).toEqual([]);
    expect(await project.findings(other)).toEqual([]);
    expect(await idsOf(project, other)).toEqual(IDS[at]);
    expect(await idsOf(project, other)).toEqual([...(IDS[at] ?? []), 'c']);
  });
});
