import { expect, it } from 'vitest';
import { ProjectInFiles } from '../../testing/project-in-files.ts';
import { commitOne, put, remove } from '../../testing/writes.ts';
import { describeQuota } from '../conformance/quota-conformance.ts';
import { GroupQuota, usageDelta } from './quota.ts';

describeQuota('the files engine', async (quota) => {
  const project = new ProjectInFiles({ quota });
  const disk = ProjectInFiles.disk();
  await project.create(disk);
  return project.open(disk);
});

it('a quota lets a project above it shrink and change, but not grow', async () => {
  const disk = ProjectInFiles.disk();
  const project = new ProjectInFiles();
  await project.create(disk);
  const before = await project.open(disk);
  await before.commit(['a', 'b', 'c'].map((id) => put(id, '{"v":1}')));
  await before[Symbol.asyncDispose]();
  Object.assign(project, { quota: { documentsMax: 1, bytesMax: 1 } });
  await using store = await project.open(disk);
  await commitOne(store, put('a', '{"v":2}'));
  await commitOne(store, put('a', '{}'));
  await expect(store.commit([put('a', '{"v":2}')])).rejects.toMatchObject({ code: 'quota_exceeded' });
  await expect(store.commit([put('d', '{}')])).rejects.toMatchObject({ code: 'quota_exceeded' });
  await store.commit([remove('a'), remove('b')]);
  await expect(store.commit([put('d', '{}')])).rejects.toMatchObject({ code: 'quota_exceeded' });
});

it('a quota does not count commits that it refuses', () => {
  const quota = new GroupQuota({ documentsMax: 2, bytesMax: 100 }, { documents: 1, bytes: 90 });
  expect(() => quota.admit({ documents: 1, bytes: 11 })).toThrow('quota_exceeded');
  quota.admit({ documents: 1, bytes: 10 });
  expect(() => quota.admit({ documents: 1, bytes: -50 })).toThrow('quota_exceeded');
  quota.admit({ documents: 0, bytes: 0 });
  quota.admit({ documents: -1, bytes: -1 });
});

it('a quota counts a deletion as freed space, and does not count its tombstone', () => {
  const dead = { size: 0, deletedMs: 5 };
  const alive = { size: 30, deletedMs: 0 };
  expect(usageDelta(undefined, alive)).toEqual({ documents: 1, bytes: 30 });
  expect(usageDelta(dead, alive)).toEqual({ documents: 1, bytes: 30 });
  expect(usageDelta(alive, dead)).toEqual({ documents: -1, bytes: -30 });
  expect(usageDelta(alive, { size: 20, deletedMs: 0 })).toEqual({ documents: 0, bytes: -10 });
});
