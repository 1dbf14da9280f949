import { AppError } from '@bundoc/shared/contract/app-error';
import { describe, expect, it } from 'vitest';
import { CliProject } from '../../../testing/cli-project.ts';
import { flip, framesOn } from '../../../testing/log-frames.ts';
import type { SimulatedDisk } from '../../../testing/simulated-disk.ts';
import { closeEngine } from '../../../testing/test-engine.ts';
import { put, ref, remove } from '../../../testing/writes.ts';
import { verifyProject } from './verify-project.ts';

/**
 * A project with every case: documents that were checkpointed, overwritten and deleted before and after, and
 * commits that only the log has.
 */
async function made() {
  const project = new CliProject();
  const disk = CliProject.disk();
  let store = await project.open(disk);
  for (const id of ['a', 'b', 'c', 'd']) await store.commit([put(id, `{"v":"old ${id}"}`)]);
  await store.commit([remove('d')]);
  await store.checkpoint();
  await store[Symbol.asyncDispose]();
  await closeEngine(disk);
  store = await project.open(disk);
  await store.commit([put('b', '{"v":"new b"}'), put('e', '{"v":"e"}')]);
  await store.commit([put('f', '{"v":"f"}')]);
  await store.commit([remove('c')]);
  await store[Symbol.asyncDispose]();
  await closeEngine(disk);
  return { project, disk };
}

const P = '/projects/p/';
const filesBelow = (disk: SimulatedDisk, part: string) =>
  [...disk.files().keys()].filter((path) => path.startsWith(P + part)).sort();
const check = async (project: CliProject, disk: SimulatedDisk) =>
  verifyProject(await project.place(disk), () => undefined);

const damageBody = (disk: SimulatedDisk, at: number) => {
  const { path, lastByte } = framesOn(disk).at(at)!;
  flip(disk, path, lastByte);
};
const flipHead = (disk: SimulatedDisk, at: number) => {
  const { path, frame } = framesOn(disk).at(at)!;
  flip(disk, path, frame * 4_096);
};

describe('verify', () => {
  it('finds no fault in an intact project, and counts its documents', async () => {
    const { project, disk } = await made();
    expect(await check(project, disk)).toEqual({ project: 'p', documents: 4, findings: [] });
  });

  it('finds no fault after any power cut, and changes nothing on the disk', async () => {
    const { project, disk } = await made();
    let seed = 7;
    const random = () => {
      seed = (seed * 48_271) % 2_147_483_647;
      return seed / 2_147_483_647;
    };
    for (const survival of [
      'synced only',
      'everything',
      ...Array.from({ length: 20 }, () => ({ random })),
    ] as const) {
      const after = disk.powerCut(survival);
      const before = [...after.files()].map(([path, bytes]) => [path, Buffer.from(bytes)]);
      expect((await check(project, after)).findings).toEqual([]);
      expect(after.operations).toBe(0);
      expect([...after.files()]).toEqual(before);
    }
  });

  it('reports its progress up to the last document', async () => {
    const { project, disk } = await made();
    const told: [number, number][] = [];
    await verifyProject(await project.place(disk), (done, total) => told.push([done, total]));
    expect(told[0]).toEqual([0, 4]);
    expect(told.at(-1)).toEqual([4, 4]);
  });

  it('finds no fault in an interrupted creation', async () => {
    const { project } = await made();
    const disk = CliProject.disk();
    await disk.makeDirectory('/projects/p');
    await disk.makeDirectory('/projects/p/docs');
    expect(await check(project, disk)).toEqual({ project: 'p', documents: 0, findings: [] });
  });

  /** The document that only its file has: `a` was checkpointed and never changed again. */
  const fileOfA = async (project: CliProject, disk: SimulatedDisk) => {
    const store = await project.open(disk);
    const text = (await store.get(ref('a')))!.text.toString();
    await store[Symbol.asyncDispose]();
    await closeEngine(disk);
    expect(text).toContain('old a');
    for (const path of filesBelow(disk, 'docs/')) {
      const bytes = disk.files().get(path)!;
      disk.tamper(path, undefined);
      const problem = (await check(project, disk)).findings;
      disk.tamper(path, bytes);
      if (problem.length > 0) return path;
    }
    throw new Error('no file is needed');
  };

  it.each<[string, string, (disk: SimulatedDisk, fileOfA: string) => void, RegExp, string]>([
    [
      'a missing document file',
      'its path',
      (disk, a) => disk.tamper(a, undefined),
      /file is missing/,
      'docs/',
    ],
    ['a changed document file', 'its path', (disk, a) => flip(disk, a, 20), /does not open/, 'docs/'],
    [
      'a truncated document file',
      'its path',
      (disk, a) => disk.tamper(a, Buffer.alloc(3)),
      /does not open/,
      'docs/',
    ],
    ['a stray file', 'its path', (disk, a) => disk.tamper(`${a}0`, Buffer.from('x')), /stray/, 'docs/'],
    [
      'a file in another folder',
      'its path',
      (disk) => disk.tamper(`${P}docs/zz`, Buffer.from('x')),
      /stray/,
      'docs/zz',
    ],
    [
      'a missing catalog',
      'the catalog',
      (disk) => disk.tamper(`${P}catalog`, undefined),
      /missing/,
      'catalog',
    ],
    ['a changed catalog', 'the catalog', (disk) => flip(disk, `${P}catalog`, -1), /does not open/, 'catalog'],
    [
      'a damaged part',
      'the log',
      (disk) => damageBody(disk, -2),
      /frame \d+ of the log: a part does not open/,
      'log',
    ],
    [
      'a damaged last part',
      'the log',
      (disk) => damageBody(disk, -1),
      /frame \d+ of the log: a part does not open/,
      'log',
    ],
    [
      'a damaged frame head',
      'the log',
      (disk) => flipHead(disk, -2),
      /frame \d+ of the log: a part is damaged or missing/,
      'log',
    ],
    [
      'a missing project.json',
      'project.json',
      (disk) => disk.tamper(`${P}project.json`, undefined),
      /missing/,
      'project.json',
    ],
    [
      'a damaged project.json',
      'project.json',
      (disk) => flip(disk, `${P}project.json`, 1),
      /no project file/,
      'project.json',
    ],
  ])('finds %s and names %s', async (_what, _named, damage, problem, part) => {
    const { project, disk } = await made();
    damage(disk, await fileOfA(project, disk));
    const { findings } = await check(project, disk);
    const found = findings.find((one) => problem.test(one.problem));
    expect(found?.part, JSON.stringify(findings)).toMatch(new RegExp(`^${part}`));
  });

  it('finds an older copy of a document, and one in place of another', async () => {
    const project = new CliProject();
    const disk = CliProject.disk();
    const store = await project.open(disk);
    await store.commit([put('a', '{"v":1}')]);
    await store.checkpoint();
    const path = filesBelow(disk, 'docs/')[0]!;
    const old = Buffer.from(disk.files().get(path)!);
    await store.commit([put('a', '{"v":2}'), put('b', '{"v":3}')]);
    await store.checkpoint();
    await store[Symbol.asyncDispose]();
    await closeEngine(disk);
    disk.tamper(path, old);
    expect((await check(project, disk)).findings).toMatchObject([
      { problem: expect.stringMatching(/another revision/) },
    ]);
    const other = filesBelow(disk, 'docs/').find((one) => one !== path)!;
    disk.tamper(path, disk.files().get(other)!);
    expect((await check(project, disk)).findings).toMatchObject([{ problem: 'does not open' }]);
  });

  it('reports a missing, different or unavailable key as a finding', async () => {
    const { project, disk } = await made();
    project.service.failure = new AppError('kms_unavailable');
    expect((await check(project, disk)).findings).toEqual([{ part: 'key', problem: 'kms_unavailable' }]);
    project.service.failure = undefined;
    project.service.put('p-dek');
    expect((await check(project, disk)).findings[0]).toMatchObject({
      problem: expect.stringMatching(/another key/),
    });
    project.loseKey();
    expect((await check(project, disk)).findings).toMatchObject([
      { part: 'key', problem: expect.stringMatching(/^key_missing/) },
    ]);
  });

  it('reveals nothing that is sealed', async () => {
    const { project, disk } = await made();
    for (const path of filesBelow(disk, '')) if (!path.endsWith('project.json')) flip(disk, path, -1);
    const text = JSON.stringify(await check(project, disk));
    expect(text).not.toContain('notes');
    expect(text).not.toMatch(/"[a-f]"/);
  });
});
