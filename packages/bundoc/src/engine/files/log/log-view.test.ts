import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { runNode } from '@bundoc/shared/testing/node-process';
import { describe, expect, it } from 'vitest';
import { openAll } from '../../../testing/log-history.ts';
import { writeLargeLog } from '../../../testing/log-large.ts';
import { LogWorld, type OpenLogProject, SMALL_LIMITS } from '../../../testing/log-projects.ts';
import { SimulatedDisk } from '../../../testing/simulated-disk.ts';
import { decodeHead } from './frame.ts';
import { BLOCK_BYTES } from './layout.ts';
import type { ReadableLog } from './log-api.ts';
import { type LogView, readLog } from './log-view.ts';
import { LogDamaged } from './scan.ts';
import { decodeHeader } from './segment-header.ts';

const MIB = 1_048_576;

function view(world: LogWorld, disk: SimulatedDisk, everyFrame = false): Promise<LogView> {
  const { storageId, limits } = world;
  return readLog({ disk, directory: '/log', storageId, segmentBytes: limits.segmentBytes, everyFrame });
}

/** The content of each project, and the facts about its handle. */
async function stateOf(world: LogWorld, log: ReadableLog, disk: SimulatedDisk) {
  const projects: unknown[] = [];
  for (const project of world.projects) {
    const { handle } = project;
    projects.push({
      newest: log.newest(handle),
      isDoubtful: log.isDoubtful(handle, undefined),
      content: await world.contentOf(log, disk, project),
      stuck: await log.stuck.read(handle),
    });
  }
  return { projects, handles: [...log.handles], stuck: log.stuck.handles };
}

/** A closed log of several segments, with a snapshot, carried parts and stuck ones. */
async function history(): Promise<{ world: LogWorld; disk: SimulatedDisk }> {
  const world = new LogWorld(4, { ...SMALL_LIMITS, segmentsMax: 40 });
  const disk = new SimulatedDisk(...world.directories());
  const [log, open] = await openAll(world, disk);
  for (let round = 0; round < 14; round++)
    await Promise.all(open.map((one, at) => one.commit(world.newCommit(), at === 0 ? 5_000 : 900)));
  await world.checkpoint(log, disk, open[1]!);
  await log.carryOldest(world.carryTarget(disk, (name) => name === 'p2'));
  expect(log.stuck.handles.size).toBe(1);
  await log[Symbol.asyncDispose]();
  return { world, disk };
}

/** The segment file with the lowest number, and the offsets of its frames. */
function oldestSegment(disk: SimulatedDisk): { path: string; bytes: Buffer; frames: number[] } {
  const found = [...disk.files()]
    .filter(([path, bytes]) => /^\/log\/\d{8}$/.test(path) && decodeHeader(bytes) !== undefined)
    .sort(([, a], [, b]) => decodeHeader(a)!.number - decodeHeader(b)!.number);
  const newest = decodeHeader(found.at(-1)![1])!;
  const [path, content] = found.find(([, bytes]) => decodeHeader(bytes)!.number >= newest.firstLive)!;
  const bytes = Buffer.from(content);
  const frames: number[] = [];
  for (let block = decodeHeader(bytes)!.firstFrame; ; ) {
    const head = decodeHead(bytes, block * BLOCK_BYTES);
    if (head === undefined) return { path, bytes, frames };
    frames.push(block);
    block += Math.ceil(head.bytes / BLOCK_BYTES);
  }
}

describe('a view of a log', () => {
  it('shows the same as a start finds, and changes nothing on the disk', async () => {
    const { world, disk } = await history();
    disk.tamper('/log/stuck/left-over.tmp', Buffer.from('x'));
    const before = new Map([...disk.files()].map(([path, bytes]) => [path, Buffer.from(bytes)]));
    const copy = disk.restart();
    const found = await stateOf(world, await view(world, copy), copy);
    expect(copy.operations).toBe(0);
    expect(copy.files()).toEqual(before);
    expect(found.stuck.size).toBe(1);
    expect(found).toEqual(await stateOf(world, await world.openLog(disk), disk));
  });

  it('shows nothing without a log, and refuses a missing log', async () => {
    const world = new LogWorld(1);
    const disk = new SimulatedDisk(...world.directories());
    const none = await view(world, disk);
    expect([...none.handles]).toEqual([]);
    expect(none.damage).toEqual([]);
    expect(none.newest('00'.repeat(8))).toBeUndefined();
    expect(await none.stuck.read('00'.repeat(8))).toEqual([]);
    const lost = readLog({ disk, directory: '/log', storageId: world.storageId, mustExist: true });
    await expect(lost).rejects.toThrow(LogDamaged);
    expect(disk.operations).toBe(0);
  });

  it('names the handles of each damaged frame, even in segments with an intact index', async () => {
    const { world, disk } = await history();
    const { path, bytes, frames } = oldestSegment(disk);
    const [, second] = frames as [number, number];
    const head = decodeHead(bytes, second * BLOCK_BYTES)!;
    const end = second * BLOCK_BYTES + head.bytes - 20;
    bytes.writeUInt8(bytes.readUInt8(end) ^ 1, end);
    disk.tamper(path, bytes);
    const handles = head.entries.map(({ handle }) => handle);
    expect((await view(world, disk)).damage).toEqual([]);
    const { damage, suspects } = await view(world, disk, true);
    expect(suspects).toEqual([{ segment: head.segment, frame: second, handles }]);
    const whose = handles.length === 1 ? 'handle' : 'handles';
    expect(damage).toEqual([
      `segment ${head.segment}, frame ${second} of the log is damaged; it has parts of ${whose} ${handles.join(', ')}`,
    ]);
  });

  it('reports lost frames of unknown projects', async () => {
    const world = new LogWorld(3);
    const disk = new SimulatedDisk(...world.directories());
    const [log, open] = await openAll(world, disk);
    const [first] = open as [OpenLogProject];
    for (let at = 0; at < 4; at++) await first.commit(world.newCommit(), 10);
    await log[Symbol.asyncDispose]();
    const { path, bytes, frames } = oldestSegment(disk);
    const [, second, third] = frames as [number, number, number];
    bytes.fill(0, second * BLOCK_BYTES, (third + 1) * BLOCK_BYTES);
    disk.tamper(path, bytes);
    const found = await view(world, disk);
    expect(found.damage).toEqual([
      `segment 1, frame ${third} of the log is damaged; it has parts of handle ${first.handle}`,
      `segment 1 of the log has lost frames up to frame ${second}; their projects are unknown`,
    ]);
    expect(found.isDoubtful(world.projects[1]!.handle, undefined)).toBe(true);
    expect(found.isDoubtful(first.handle, undefined)).toBe(false);
  });

  it('returns every readable part of a handle, even if no later part links to it', async () => {
    const { world, disk } = await history();
    const handles = new Set([world.projects[0]!.handle]);
    const placesIn = async () => {
      const places: string[] = [];
      for await (const { place } of (await view(world, disk)).partsOf(handles))
        places.push(`${place.segment} ${place.frame}`);
      return places;
    };
    const all = await placesIn();
    const { path, bytes, frames } = oldestSegment(disk);
    const [, second] = frames as [number, number];
    const { segment } = decodeHead(bytes, second * BLOCK_BYTES)!;
    bytes.writeUInt8(bytes.readUInt8(second * BLOCK_BYTES) ^ 1, second * BLOCK_BYTES);
    disk.tamper(path, bytes);
    expect(all).toContain(`${segment} ${second}`);
    expect(await placesIn()).toEqual(all.filter((place) => place !== `${segment} ${second}`));
  });

  it('takes a fraction of the memory of a log of 1 GiB while it reads each frame and part', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'bundoc-large-log-'));
    try {
      const storageId = randomBytes(16);
      const handle = randomBytes(8).toString('hex');
      const parts = writeLargeLog(join(directory, 'log'), storageId, 64, handle);
      const script = fileURLToPath(new URL('../../../testing/log-large-reader.ts', import.meta.url));
      const run = await runNode([script, directory, storageId.toString('hex'), handle], {});
      expect(run.stderr).toBe('');
      const { memoryBytes, ...found } = JSON.parse(run.stdout) as { memoryBytes: number };
      expect(found).toEqual({ parts, bytes: parts * MIB, walked: parts * MIB, damage: [] });
      expect(parts * MIB).toBeGreaterThan(940 * MIB);
      expect(memoryBytes).toBeLessThan(384 * MIB);
    } finally {
      rmSync(directory, { recursive: true });
    }
  });
});
