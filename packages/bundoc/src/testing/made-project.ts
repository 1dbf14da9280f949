import { expect } from 'vitest';
import type { FileStore } from '../engine/files/store/file-store.ts';
import { CliProject } from './cli-project.ts';
import { type FrameOnDisk, flip } from './log-frames.ts';
import type { SimulatedDisk } from './simulated-disk.ts';
import { closeEngine } from './test-engine.ts';
import { put, ref, remove } from './writes.ts';

const P = '/projects/p/';
/** The expected content of the documents of {@link made}. */
export const EXPECTED: Record<string, string> = { a: 'old a', b: 'new b', e: 'e', f: 'f' };

/** A project with documents only in files, only in the log and in both, and deletions around a checkpoint. */
export async function made({ isStartFreed = true } = {}) {
  const project = new CliProject();
  const disk = CliProject.disk();
  let store = await project.open(disk);
  for (const id of ['a', 'b', 'c', 'd']) {
    await store.commit([put(id, `{"v":"old ${id}"}`)]);
    project.clock.advance(5);
  }
  await store.commit([remove('d')]);
  if (isStartFreed) {
    await store.checkpoint();
    await store[Symbol.asyncDispose]();
    await closeEngine(disk);
    store = await project.open(disk);
  }
  await store.commit([put('b', '{"v":"new b"}'), put('e', '{"v":"e"}')]);
  project.clock.advance(5);
  await store.commit([put('f', '{"v":"f"}')]);
  await store.commit([remove('c')]);
  const { position } = await store.changes(0, 100);
  await store[Symbol.asyncDispose]();
  await closeEngine(disk);
  return { project, disk, position };
}

export type Made = Pick<Awaited<ReturnType<typeof made>>, 'project' | 'disk'>;

export const repair = ({ project, disk }: Made, acceptLoss = false) => project.repair(disk, acceptLoss);

async function contentOf(store: FileStore): Promise<Record<string, string>> {
  const content: Record<string, string> = {};
  for (const id of ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h']) {
    const document = await store.get(ref(id));
    if (document !== undefined) content[id] = JSON.parse(document.text.toString()).v;
  }
  return content;
}

/** Verifies the project, opens it as the service does, and reads its content. */
export async function reopened({ project, disk }: Made) {
  expect(await project.findings(disk)).toEqual([]);
  const store = await project.open(disk);
  return { store, content: await contentOf(store) };
}

export async function close({ disk }: Made, store: FileStore): Promise<void> {
  await store[Symbol.asyncDispose]();
  await closeEngine(disk);
}

/** The content by {@link reopened}, after which the project is closed. */
export async function contentAfter(made: Made): Promise<Record<string, string>> {
  const { store, content } = await reopened(made);
  await close(made, store);
  return content;
}

export const path = (name: string) => P + name;
export const kept = (disk: SimulatedDisk) =>
  [...disk.files().keys()].filter((one) => one.includes('.before-repair-'));
/** The frames behind the checkpoint: `b` and `e`, `f`, the deletion of `c`; the first one reserves seals. */
export const damageBody = (disk: SimulatedDisk, { path: file, lastByte }: FrameOnDisk) =>
  flip(disk, file, lastByte);
export const flipHead = (disk: SimulatedDisk, { path: file, frame }: FrameOnDisk) =>
  flip(disk, file, frame * 4_096 + 60);
