import { setImmediate } from 'node:timers/promises';
import type { AppError } from '@bundoc/shared/contract/app-error';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { describe, expect, it } from 'vitest';
import { type LogProject, LogWorld, type OpenLogProject } from '../../../testing/log-projects.ts';
import { SimulatedDisk } from '../../../testing/simulated-disk.ts';
import type { Log } from './log.ts';
import type { LogDisk } from './ports.ts';

describe('Log', () => {
  it("returns each project's acknowledged commits in order", async () => {
    const world = new LogWorld(5);
    const disk = new SimulatedDisk(...world.directories());
    const log = await world.openLog(disk);
    const open = await Promise.all(world.projects.map((project) => world.open(log, disk, project)));
    for (let round = 0; round < 12; round++)
      await Promise.all(open.map((one, at) => one.commit(world.newCommit(), at * 300 + round * 50)));
    await log[Symbol.asyncDispose]();
    const again = await world.openLog(disk.restart());
    for (const project of world.projects) {
      const { ids } = await world.contentOf(again, disk, project);
      expect(ids).toEqual(project.given.map(({ id }) => id));
    }
    expect(log.stats).toMatchObject({ frames: 12, commits: 60 });
  });

  it('splits a large commit into chunks, which count only when the last one is durable', async () => {
    const world = new LogWorld(2);
    const disk = new SimulatedDisk(...world.directories());
    const log = await world.openLog(disk);
    const [a, b] = [
      await world.open(log, disk, world.projects[0]!),
      await world.open(log, disk, world.projects[1]!),
    ];
    await Promise.all([a.commit(world.newCommit(), 10), b.commit(world.newCommit(), 10)]);
    await Promise.all([
      a.commit(world.newCommit(), 30_000),
      a.commit(world.newCommit(), 100),
      b.commit(world.newCommit(), 100),
    ]);
    await log[Symbol.asyncDispose]();
    const again = await world.openLog(disk.powerCut('synced only'));
    for (const project of world.projects)
      expect((await world.contentOf(again, disk, project)).ids).toEqual(project.given.map(({ id }) => id));
  });
});

describe('a full log from which nothing is freed', () => {
  const full = async (projects: number) => {
    const world = new LogWorld(projects);
    const disk = new SimulatedDisk(...world.directories());
    const clock = new FakeClock();
    const waits: { readonly ms: number; readonly end: () => void }[] = [];
    const wait = (ms: number) => new Promise<void>((end) => void waits.push({ ms, end }));
    const log = await world.openLog(disk, { clock, wait, observer: {} });
    const open = await Promise.all(world.projects.map((project) => world.open(log, disk, project)));
    const outcomes: string[] = [];
    /** Concurrent commits of every project. @returns those that still wait. */
    const write = async () => {
      let waiting = open.length;
      for (const one of open)
        one.commit(world.newCommit(), 3_000).then(
          () => waiting--,
          (error: AppError) => {
            waiting--;
            outcomes.push(error.code);
          },
        );
      for (let turn = 0; turn < 200; turn++) await setImmediate();
      return waiting;
    };
    const fill = async () => {
      let waiting = 0;
      while (waiting === 0) waiting = await write();
      return waiting;
    };
    const letPass = async (ms: number) => {
      clock.advance(ms);
      for (const { end } of waits.splice(0)) end();
      for (let turn = 0; turn < 20; turn++) await setImmediate();
    };
    return { waits, fill, letPass, write, outcomes };
  };

  it('refuses a commit that has waited for 5 seconds, and lets the next one wait as long', async () => {
    const { waits, fill, letPass, write, outcomes } = await full(90);
    const waiting = await fill();
    expect(waits.map(({ ms }) => ms)).toEqual([5_000]);
    await letPass(4_999);
    expect(outcomes).toEqual([]);
    await letPass(1);
    expect(outcomes).toEqual(Array(waiting).fill('overloaded'));
    expect(await write()).toBe(90);
    await letPass(4_000);
    expect(outcomes).toHaveLength(waiting);
    await letPass(1_000);
    expect(outcomes).toHaveLength(waiting + 90);
  });

  it('tells a project that its share is used up', async () => {
    const { fill, letPass, outcomes } = await full(1);
    await fill();
    await letPass(5_000);
    expect(outcomes).toEqual(['rate_limited']);
  });
});

describe('a log that closes during the write of a frame', () => {
  it('answers a large commit by the outcome of its last chunk, and refuses one with chunks left', async () => {
    for (const frames of [2, 5]) {
      const world = new LogWorld(1);
      const disk = new SimulatedDisk(...world.directories());
      let onWrite: () => void = () => undefined;
      const log = await world.openLog(disk, { disk: withWrites(disk, () => onWrite()) });
      const open = await world.open(log, disk, world.projects[0]!);
      await open.commit(world.newCommit(), 10);
      let written = 0;
      let closing: PromiseLike<void> | undefined;
      onWrite = () => {
        if (++written === frames) closing = log[Symbol.asyncDispose]();
      };
      const large = world.newCommit();
      await open.commit(large, 20_000).catch(() => undefined);
      await closing;
      expect(large.fate).toBe(frames === 5 ? 'acknowledged' : 'refused');
      const again = await world.openLog(disk.powerCut('synced only'));
      const { ids } = await world.contentOf(again, disk, world.projects[0]!);
      expect(ids.includes(large.id)).toBe(frames === 5);
    }
  });
});

/** The disk, with a callback before each write. */
function withWrites(disk: SimulatedDisk, onWrite: () => void): LogDisk {
  return {
    list: (path) => disk.list(path),
    makeDirectory: (path) => disk.makeDirectory(path),
    createFile: (path, content) => disk.createFile(path, content),
    rename: (from, to) => disk.rename(from, to),
    remove: (path) => disk.remove(path),
    syncDirectory: (path) => disk.syncDirectory(path),
    frameBuffer: (bytes) => disk.frameBuffer(bytes),
    openLogFile: async (path) => {
      const file = await disk.openLogFile(path);
      return {
        ...file,
        writeDurably: (offset, bytes) => {
          onWrite();
          return file.writeDurably(offset, bytes);
        },
      };
    },
  };
}

describe('the parts of projects in one log', () => {
  it('give each project its turn while another one writes large commits', async () => {
    const world = new LogWorld(3);
    const disk = new SimulatedDisk(...world.directories());
    const log = await world.openLog(disk);
    const open: OpenLogProject[] = [];
    for (const project of world.projects) open.push(await world.open(log, disk, project));
    await Promise.all(open.map((one) => one.commit(world.newCommit(), 10)));
    const [large, small] = open as [OpenLogProject, OpenLogProject];
    const before = log.stats.frames;
    let isLargeThere = false;
    const writing = large.commit(world.newCommit(), 60_000).then(() => {
      isLargeThere = true;
    });
    for (let at = 0; at < 5; at++) await small.commit(world.newCommit(), 100);
    expect(isLargeThere).toBe(false);
    expect(log.stats.frames - before).toBeLessThan(15);
    await writing;
    // A snapshot taken during a large commit does not cover it.
    const second = large.commit(world.newCommit(), 60_000);
    await small.commit(world.newCommit(), 100);
    await world.checkpoint(log, disk, large);
    await second;
    await world.checkpoint(log, disk, small);
    await log[Symbol.asyncDispose]();
    const again = await world.openLog(disk.powerCut('synced only'));
    for (const project of world.projects)
      expect((await world.contentOf(again, disk, project)).ids).toEqual(project.given.map(({ id }) => id));
  });

  it('are known by their handle without a key, until it is gone', async () => {
    const world = new LogWorld(2);
    const disk = new SimulatedDisk(...world.directories());
    const log = await world.openLog(disk);
    const [kept, gone] = world.projects as [LogProject, LogProject];
    const open = await world.open(log, disk, kept);
    await open.commit(world.newCommit(), 10);
    await (await world.open(log, disk, gone)).commit(world.newCommit(), 10);
    await log[Symbol.asyncDispose]();
    const second = await world.openLog(disk.restart());
    expect([...second.handles]).toEqual([kept.handle, gone.handle]);
    await goneFor(second, gone);
    expect([...second.handles]).toEqual([kept.handle]);
    await second[Symbol.asyncDispose]();
    const third = await world.openLog(disk.restart());
    expect([...third.handles]).toEqual([kept.handle]);
  });

  it('stay readable for a reader that started before their segment was freed', async () => {
    const world = new LogWorld(1);
    const disk = new SimulatedDisk(...world.directories());
    const log = await world.openLog(disk);
    const [project] = world.projects as [LogProject];
    const open = await world.open(log, disk, project);
    await open.commit(world.newCommit(), 100);
    const first = log.newest(project.handle)!;
    const fill = async () => {
      for (let at = 0; at < 150; at++) {
        await open.commit(world.newCommit(), 3_000);
        await world.checkpoint(log, disk, open);
      }
    };
    {
      await using reader = log.reader();
      await fill();
      expect((await reader.read(project.handle, first))?.entry.kind).toBe('data');
    }
    const path = [...disk.files()].find(
      ([, bytes]) => bytes.length > 64 && bytes.readUIntBE(26, 6) === first.segment,
    );
    await fill();
    expect(path).not.toBeUndefined();
    expect(disk.files().get(path![0])!.readBigUInt64BE(24)).not.toBe(BigInt(first.segment));
  });

  it('make only the project with the most uncovered bytes wait when the log fills', async () => {
    const world = new LogWorld(4);
    const disk = new SimulatedDisk(...world.directories());
    const asked = new Set<string | undefined>();
    const log = await world.openLog(disk, { observer: { onPressure: (handle) => asked.add(handle) } });
    const open: OpenLogProject[] = [];
    for (const project of world.projects) open.push(await world.open(log, disk, project));
    const [greedy, ...others] = open as [OpenLogProject, ...OpenLogProject[]];
    const waiting: Promise<unknown>[] = [];
    for (let at = 0; at < 120; at++) waiting.push(greedy.commit(world.newCommit(), 3_500));
    await expect.poll(() => asked.has(greedy.handle)).toBe(true);
    for (const one of others) await one.commit(world.newCommit(), 100);
    // Its snapshot lets it continue.
    while (world.projects[0]!.given.some(({ fate }) => fate === 'waiting')) {
      await world.checkpoint(log, disk, greedy);
      for (const one of others) await world.checkpoint(log, disk, one);
      await setImmediate();
    }
    await Promise.all(waiting);
    expect(greedy.ids).toHaveLength(120);
  });

  it('make the subject with the most uncovered bytes wait in a nearly full log, however many projects it has', async () => {
    const world = new LogWorld(64);
    const disk = new SimulatedDisk(...world.directories());
    let subject = '';
    const asked = new Set<string | undefined>();
    // Nothing is freed without a request.
    const observer = { onPressure: (handle: string | undefined) => asked.add(handle) };
    const log = await world.openLog(disk, { observer, writer: () => subject });
    const open: OpenLogProject[] = [];
    for (const project of world.projects) open.push(await world.open(log, disk, project));
    const [neighbour, ...greedy] = open as [OpenLogProject, ...OpenLogProject[]];
    const waiting: Promise<unknown>[] = [];
    // Less than an eighth of the log for each of its projects, but more than the log in total.
    subject = 'greedy';
    for (let at = 0; at < 2; at++)
      for (const one of greedy) waiting.push(one.commit(world.newCommit(), 3_500));
    await expect.poll(() => asked.size).toBeGreaterThan(0);
    await drained();
    const { uncoveredBytes } = log.stats;
    subject = 'neighbour';
    for (let at = 0; at < 4; at++) await neighbour.commit(world.newCommit(), 100);
    expect(log.stats.uncoveredBytes - uncoveredBytes).toBeLessThan(2_000);
    // None of its projects has used up its own share.
    expect([...asked]).toEqual([undefined]);
    while (world.projects.some(({ given }) => given.some(({ fate }) => fate === 'waiting'))) {
      for (const one of open) await world.checkpoint(log, disk, one);
      await setImmediate();
    }
    await Promise.all(waiting);
  });
});

/** Waits long enough for all possible writes. */
async function drained(): Promise<void> {
  for (let turn = 0; turn < 500; turn++) await setImmediate();
}

/** Ends a project. */
function goneFor(log: Log, { handle, name, keys }: LogProject): Promise<void> {
  return new Promise((resolve, reject) => {
    let isTaken = false;
    const attached = log.attach(
      {
        handle,
        project: name,
        keys,
        makesRoom: true,
        nextBytes: 0,
        take: () => {
          if (isTaken) return undefined;
          isTaken = true;
          return {
            kind: 'gone',
            plaintext: [],
            keyVersion: 0,
            commits: 0,
            durable: () => undefined,
            answer: resolve,
            refused: reject,
            unknown: reject,
          };
        },
        refuse: reject,
        fail: reject,
      },
      log.newest(handle),
    );
    attached.ready();
  });
}
