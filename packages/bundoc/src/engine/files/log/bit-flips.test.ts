import { isDeepStrictEqual } from 'node:util';
import { LONG } from '@bundoc/shared/testing/long';
import { beforeAll, describe, expect, it } from 'vitest';
import { openAll } from '../../../testing/log-history.ts';
import { type LogProject, LogWorld, type OpenLogProject } from '../../../testing/log-projects.ts';
import { SimulatedDisk } from '../../../testing/simulated-disk.ts';
import { decodeHead } from './frame.ts';
import { BLOCK_BYTES } from './layout.ts';
import type { Log } from './log.ts';
import type { ReadableLog } from './log-api.ts';
import { readLog } from './log-view.ts';
import type { ReadableLogDisk } from './ports.ts';
import { PartsDamaged } from './sealed-part.ts';
import { decodeHeader } from './segment-header.ts';

const LIMITS = {
  segmentBytes: 15 * BLOCK_BYTES,
  segmentsMin: 3,
  segmentsMax: 12,
  frameBytes: 12_288,
  chunkBytes: 4_096,
};
const HEADER_COPIES = [0, BLOCK_BYTES / 2];
const HEADER_BYTES = 148;
/** With LONG_TESTS=1, every bit is flipped. */
const ALL_BITS_MS = 4 * 3_600_000;

/** A range of bytes that the log reads, and the projects with parts in it. */
interface Used {
  readonly path: string;
  readonly start: number;
  readonly end: number;
  readonly handles: readonly string[];
}

/** Every byte of every live header, index and frame. */
function usedBytes(files: ReadonlyMap<string, Buffer>): Used[] {
  const used: Used[] = [];
  for (const [path, bytes] of files) {
    const header = path.startsWith('/log/') ? decodeHeader(bytes) : undefined;
    if (header === undefined) continue;
    for (const start of HEADER_COPIES) used.push({ path, start, end: start + HEADER_BYTES, handles: [] });
    used.push({ path, start: BLOCK_BYTES, end: BLOCK_BYTES + header.indexBytes, handles: [] });
    for (let block = header.firstFrame; block * BLOCK_BYTES < bytes.length; ) {
      const start = block * BLOCK_BYTES;
      const head = decodeHead(bytes, start);
      if (head === undefined) break;
      used.push({ path, start, end: start + head.bytes, handles: head.entries.map(({ handle }) => handle) });
      block += Math.ceil(head.bytes / BLOCK_BYTES);
    }
  }
  return used;
}

/** All files except free segments. */
function imageOf(disk: SimulatedDisk): Map<string, Buffer> {
  const files = [...disk.files()].filter(([path, bytes]) => !path.startsWith('/log/') || decodeHeader(bytes));
  return new Map(files.map(([path, bytes]) => [path, Buffer.from(bytes)]));
}

/** A read-only disk over these files. */
function readOnly(files: ReadonlyMap<string, Buffer>): ReadableLogDisk {
  return {
    list: async (directory) =>
      [...files.keys()]
        .filter((path) => path.startsWith(`${directory}/`))
        .map((path) => path.slice(directory.length + 1)),
    openLogFile: async (path) => {
      const bytes = files.get(path) as Buffer;
      return {
        bytes: bytes.length,
        read: async (offset, count) => bytes.subarray(offset, offset + count),
        writeDurably: () => Promise.reject(new Error('a view writes nothing')),
        close: async () => undefined,
      };
    },
  };
}

function bits(used: readonly Used[]): number {
  return used.reduce((sum, { start, end }) => sum + (end - start) * 8, 0);
}

function placeOfBit(
  used: readonly Used[],
  bit: number,
): { readonly range: Used; readonly byte: number; readonly mask: number } {
  let left = bit;
  for (const range of used) {
    const here = (range.end - range.start) * 8;
    if (left < here) return { range, byte: range.start + Math.floor(left / 8), mask: 1 << (left % 8) };
    left -= here;
  }
  throw new RangeError('there are not that many bits');
}

describe('a log of three segments, four projects and thirty frames', () => {
  const world = new LogWorld(4, LIMITS);
  let closed: ReadonlyMap<string, Buffer>;
  let crashed: ReadonlyMap<string, Buffer>;

  beforeAll(async () => {
    const disk = new SimulatedDisk(...world.directories());
    const [log, open] = await openAll(world, disk);
    for (let frame = 0; frame < 30; frame++) {
      const writing = open.filter((_, at) => frame === 0 || (frame + at) % 3 !== 0);
      await Promise.all(
        writing.map((one, at) =>
          one.commit(world.newCommit(), frame === 9 && at === 0 ? 9_000 : 40 * at + 20),
        ),
      );
      if (frame === 12) await world.checkpoint(log, disk, open[2]!);
    }
    crashed = imageOf(disk);
    await log[Symbol.asyncDispose]();
    closed = imageOf(disk);
    expect(log.stats).toMatchObject({ segmentsLive: 3 });
    expect(log.stats.frames).toBeGreaterThanOrEqual(30);
  });

  function diskOf(files: ReadonlyMap<string, Buffer>): SimulatedDisk {
    const disk = new SimulatedDisk(...world.directories(), '/log');
    for (const [path, bytes] of files) disk.tamper(path, bytes);
    return disk;
  }

  type State = Map<LogProject, readonly number[] | 'damaged'>;

  /** The content of each project after a start, or that it is damaged. */
  async function stateOf(disk: SimulatedDisk): Promise<State> {
    return stateIn(await world.openLog(disk), disk);
  }

  /** @param disk with the folders of the projects. */
  async function stateIn(log: ReadableLog, disk: SimulatedDisk): Promise<State> {
    const state = new Map<LogProject, readonly number[] | 'damaged'>();
    for (const project of world.projects) {
      try {
        state.set(project, (await world.contentOf(log, disk, project)).ids);
      } catch (error) {
        if (!(error instanceof PartsDamaged)) throw error;
        state.set(project, 'damaged');
      }
    }
    return state;
  }

  /** Flips each chosen bit, and checks the result. */
  async function flip(
    files: ReadonlyMap<string, Buffer>,
    used: readonly Used[],
    bit: number,
    stateOfFlipped: (files: ReadonlyMap<string, Buffer>) => Promise<State>,
  ): Promise<boolean> {
    const { range, byte, mask } = placeOfBit(used, bit);
    const bytes = files.get(range.path)!;
    bytes.writeUInt8(bytes.readUInt8(byte) ^ mask, byte);
    const state = await stateOfFlipped(files);
    bytes.writeUInt8(bytes.readUInt8(byte) ^ mask, byte);
    let isNoticed = false;
    for (const [project, content] of state) {
      const where = `bit ${bit}: byte ${byte - range.start} of ${range.end - range.start} at ${range.path} ${range.start}`;
      if (content !== 'damaged') {
        // Without a message, because there are millions of checks.
        const isSame = isDeepStrictEqual(
          content,
          project.given.map(({ id }) => id),
        );
        if (!isSame) expect(content, where).toEqual(project.given.map(({ id }) => id));
        continue;
      }
      if (!range.handles.includes(project.handle)) expect(range.handles, where).toContain(project.handle);
      isNoticed = true;
    }
    return isNoticed;
  }

  /** All of them, or a sample. */
  function* chosen(count: number, sample: number): Generator<number> {
    if (LONG) {
      for (let bit = 0; bit < count; bit++) yield bit;
      return;
    }
    let state = Number(process.env['BUNDOC_FLIP_SEED'] ?? 20_240_913);
    for (let at = 0; at < sample; at++) {
      state = (state * 48_271) % 2_147_483_647;
      yield state % count;
    }
  }

  it(
    'loses nothing silently when any bit is flipped: the state is the same, or a project with a part in the frame is damaged',
    async () => {
      const used = usedBytes(closed);
      const folders = diskOf(closed);
      const { storageId } = world;
      const { segmentBytes } = LIMITS;
      const view = async (files: ReadonlyMap<string, Buffer>) => {
        const log = await readLog({ disk: readOnly(files), directory: '/log', storageId, segmentBytes });
        return stateIn(log, folders);
      };
      const start = (files: ReadonlyMap<string, Buffer>) => stateOf(diskOf(files));
      let [flips, noticed] = [0, 0];
      for (const bit of chosen(bits(used), 4_000)) {
        if (await flip(closed, used, bit, view)) noticed++;
        // A start uses the same code as a view and also writes, so it is sampled.
        if (flips++ % 40 === 0) await flip(closed, used, bit, start);
      }
      // Most bits belong to sealed bodies, whose tags then fail.
      expect(noticed).toBeGreaterThan(flips / 2);
    },
    ALL_BITS_MS,
  );

  it('distinguishes damage from a torn tail, even after a crash, except in the very last frame', {
    timeout: ALL_BITS_MS,
  }, async () => {
    const used = usedBytes(crashed);
    const last = used.at(-1)!;
    for (const bit of chosen(bits(used.slice(0, -1)), 200))
      await flip(crashed, used, bit, (files) => stateOf(diskOf(files)));
    const disk = diskOf(crashed);
    const bytes = Buffer.from(crashed.get(last.path)!);
    bytes.writeUInt8(bytes.readUInt8(last.end - 20) ^ 1, last.end - 20);
    disk.tamper(last.path, bytes);
    for (const [project, content] of await stateOf(disk)) {
      const ids = project.given.map(({ id }) => id);
      expect(content).toEqual(last.handles.includes(project.handle) ? ids.slice(0, -1) : ids);
    }
  });

  it('attributes a frame with a lost head to the handles of its parts, without a key', async () => {
    const used = usedBytes(closed).filter(({ handles }) => handles.length > 0);
    for (const range of used) {
      const bytes = Buffer.from(closed.get(range.path)!);
      bytes.fill(0, range.start, range.end);
      const disk = diskOf(closed);
      disk.tamper(range.path, bytes);
      for (const [project, content] of await stateOf(disk)) {
        const isCovered = project === world.projects[2];
        if (!range.handles.includes(project.handle) || isCovered) continue;
        expect(content).toBe('damaged');
      }
    }
  });
});

describe('two adjacent lost frames', () => {
  it('damage each project without a later part, at every start until the loss is accepted', async () => {
    const world = new LogWorld(4, LIMITS);
    const disk = new SimulatedDisk(...world.directories());
    const [log, open] = await openAll(world, disk);
    const [before, last, later, covered] = open as [
      OpenLogProject,
      OpenLogProject,
      OpenLogProject,
      OpenLogProject,
    ];
    await Promise.all(open.map((one) => one.commit(world.newCommit(), 10)));
    await last.commit(world.newCommit(), 10);
    await later.commit(world.newCommit(), 10);
    await later.commit(world.newCommit(), 10);
    await covered.commit(world.newCommit(), 10);
    await world.checkpoint(log, disk, covered);
    await world.checkpoint(log, disk, later);
    const [path, segment] = [...disk.files()].find(([, bytes]) => decodeHeader(bytes)?.number === 1)!;
    const frames = usedBytes(new Map([[path, segment]])).filter(({ handles }) => handles.length > 0);
    const bytes = Buffer.from(segment);
    for (const { start, end } of frames.slice(1, 3)) bytes.fill(0, start, end);
    disk.tamper(path, bytes);

    const damaged = async (at: Log) => {
      const names: string[] = [];
      for (const project of world.projects)
        await world.contentOf(at, disk, project).catch(() => names.push(project.name));
      return names;
    };
    // The first project had no part in them, but that is unknown.
    const hidden = [before.project, last.project];
    const again = await world.openLog(disk);
    expect(again.stats).toMatchObject({ holes: 1, suspectFrames: 1 });
    expect(await damaged(again)).toEqual(hidden);
    // The same when a newer segment follows, because its header repeats the hole.
    const writing = await world.open(again, disk, world.projects[3]!);
    await writing.commit(world.newCommit(), 10);
    await again[Symbol.asyncDispose]();
    const third = await world.openLog(disk);
    expect(third.stats.holes).toBe(1);
    expect(await damaged(third)).toEqual(hidden);
    await third.acceptLoss();
    await third[Symbol.asyncDispose]();
    const accepted = await world.openLog(disk);
    expect(accepted.stats.holes).toBe(0);
    expect(await damaged(accepted)).toEqual([]);
  });
});
