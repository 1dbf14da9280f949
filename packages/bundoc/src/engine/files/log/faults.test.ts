import { describe, expect, it } from 'vitest';
import { check, openAll } from '../../../testing/log-history.ts';
import { type Fate, LogWorld, type OpenLogProject, SMALL_LIMITS } from '../../../testing/log-projects.ts';
import { type Fault, SimulatedDisk } from '../../../testing/simulated-disk.ts';
import { LogDamaged } from './scan.ts';
import { decodeHeader } from './segment-header.ts';

const newDisk = (world: LogWorld) => new SimulatedDisk(...world.directories());

/** Some rounds of commits by all projects. @returns how many of the last round were acknowledged. */
async function rounds(world: LogWorld, open: readonly OpenLogProject[], count: number): Promise<number> {
  let acknowledged = 0;
  for (let round = 0; round < count; round++) {
    const answers = await Promise.allSettled(
      open.map((one, at) => one.commit(world.newCommit(), round % 3 === 0 && at === 0 ? 9_000 : 900)),
    );
    acknowledged = answers.filter(({ status }) => status === 'fulfilled').length;
  }
  return acknowledged;
}

/** Operations of a history without faults whose line of the trace matches. */
async function operationsOf(line: RegExp): Promise<number[]> {
  const world = new LogWorld(3);
  const disk = newDisk(world);
  const [log, open] = await openAll(world, disk);
  await rounds(world, open, 12);
  await log[Symbol.asyncDispose]();
  return disk.trace.flatMap((one, at) => (line.test(one) ? [at + 1] : []));
}

/**
 * Runs a history with faults. Afterwards everything is accepted again, and correct both now and after a power
 * cut.
 */
async function survives(...faults: readonly Fault[]): Promise<void> {
  const world = new LogWorld(3);
  const disk = newDisk(world);
  disk.failAt(...faults);
  // A log that cannot be created is created at the next start.
  let opened = await openAll(world, disk).catch(() => undefined);
  for (const _ of faults) opened ??= await openAll(world, disk).catch(() => undefined);
  const [log, open] = opened ?? (await openAll(world, disk));
  await rounds(world, open, 12);
  // Writes may have stopped for a moment.
  await expect.poll(() => rounds(world, open, 1)).toBe(open.length);
  await check(world, log, disk);
  const killed = disk.restart();
  await check(world, await world.openLog(killed), killed);
  const cut = disk.powerCut('synced only');
  await check(world, await world.openLog(cut), cut);
  await log[Symbol.asyncDispose]();
}

describe('a log on a failing disk', () => {
  it('cuts each failed write off, even if it reached the disk, and accepts the next commits', async () => {
    for (const operation of await operationsOf(/^(write|fdatasync) \/log/))
      for (const when of ['before', 'after'] as const)
        await survives({ operation, when, what: 'storage_unavailable' });
  });

  it('stops until it can cut, when the header after a failed write fails, too', async () => {
    for (const operation of await operationsOf(/^fdatasync \/log/))
      for (const when of ['before', 'after'] as const)
        await survives(
          { operation, when, what: 'storage_unavailable' },
          { operation: operation + 1, when, what: 'storage_unavailable' },
          { operation: operation + 4, when, what: 'storage_unavailable' },
        );
  });

  it('continues when a segment cannot be created', async () => {
    for (const operation of await operationsOf(/^create \/log/))
      for (const when of ['before', 'after'] as const) await survives({ operation, when, what: 'disk_full' });
  });

  it('ignores frames after a cut, even intact ones and with a damaged index of their segment', async () => {
    const world = new LogWorld(2);
    const disk = newDisk(world);
    const [log, open] = await openAll(world, disk);
    await rounds(world, open, 2);
    // The frame is durable, but the disk reports a failure.
    disk.failAt({ operation: 2, when: 'after', what: 'storage_unavailable' });
    const refused = world.newCommit();
    await expect(open[0]!.commit(refused, 10)).rejects.toMatchObject({ code: 'storage_unavailable' });
    await rounds(world, [open[1]!], 1);
    expect(log.stats.cuts).toBe(1);
    await check(world, log, disk);
    const cut = disk.powerCut('everything');
    await check(world, await world.openLog(cut), cut);
    const [path, bytes] = [...disk.files()].find(([, file]) => decodeHeader(file)?.number === 2)!;
    const damaged = Buffer.from(bytes);
    damaged.writeUInt8(damaged.readUInt8(4_100) ^ 1, 4_100);
    cut.tamper(path, damaged);
    await check(world, await world.openLog(cut), cut);
  });

  it('makes its visible end durable after a kill between a write and its sync', async () => {
    const world = new LogWorld(1);
    const disk = newDisk(world);
    const [, open] = await openAll(world, disk);
    await rounds(world, open, 1);
    disk.failAt({ operation: 2, when: 'before', what: 'crash' });
    const lost = world.newCommit();
    open[0]!.commit(lost, 10).catch(() => undefined);
    await expect(disk.crashes).rejects.toThrow();
    const killed = disk.restart();
    const seen = await world.contentOf(await world.openLog(killed), killed, world.projects[0]!);
    expect(seen.ids).toContain(lost.id);
    const cut = killed.powerCut('synced only');
    expect((await world.contentOf(await world.openLog(cut), cut, world.projects[0]!)).ids).toEqual(seen.ids);
  });

  it('a stopped log allows reads, refuses commits, and answers no commit of the failed frame', async () => {
    const world = new LogWorld(2);
    const disk = newDisk(world);
    const retries: (() => void)[] = [];
    const seen: string[] = [];
    const log = await world.openLog(disk, {
      wait: () => new Promise<void>((resolve) => retries.push(resolve)),
      observer: {
        onCut: () => seen.push('cut'),
        onStopped: () => seen.push('stopped'),
        onResumed: () => seen.push('resumed'),
      },
    });
    const [a, b] = [
      await world.open(log, disk, world.projects[0]!),
      await world.open(log, disk, world.projects[1]!),
    ];
    await a.commit(world.newCommit(), 10);
    // The frame, the header after it, and that of the first retry.
    disk.failAt(
      { operation: 2, when: 'after', what: 'storage_unavailable' },
      { operation: 3, when: 'before', what: 'storage_unavailable' },
      { operation: 4, when: 'before', what: 'storage_unavailable' },
    );
    const failed = world.newCommit();
    const answer = a.commit(failed, 10);
    answer.catch(() => undefined);
    await expect.poll(() => seen).toEqual(['cut', 'cut', 'stopped']);
    retries.shift()?.();
    await expect.poll(() => retries.length).toBe(1);
    expect(seen).toEqual(['cut', 'cut', 'stopped', 'cut']);
    await expect(b.commit(world.newCommit(), 10)).rejects.toMatchObject({ code: 'storage_unavailable' });
    expect(failed.fate).toBe('waiting');
    expect(log.stats.writesStopped).toBe(true);
    expect((await world.contentOf(log, disk, world.projects[0]!)).ids).toHaveLength(1);
    retries.shift()?.();
    await expect(answer).rejects.toMatchObject({ code: 'storage_unavailable' });
    expect(seen.at(-1)).toBe('resumed');
    await b.commit(world.newCommit(), 10);
    await check(world, log, disk);
  });

  it('fails only the project that cannot publish its durable part, answers others, and keeps the part', async () => {
    const world = new LogWorld(3);
    const disk = newDisk(world);
    const [log, open] = await openAll(world, disk);
    await rounds(world, open, 1);
    const [failing, ...others] = open as [OpenLogProject, ...OpenLogProject[]];
    const { frames } = log.stats;
    failing.durableFault = new Error('a defect');
    const unpublished = world.newCommit();
    const answers = [
      failing.commit(unpublished, 10),
      ...others.map((one) => one.commit(world.newCommit(), 10)),
    ];
    const [answer, ...rest] = await Promise.allSettled(answers);
    expect(log.stats.frames).toBe(frames + 1);
    expect(answer).toMatchObject({ status: 'rejected', reason: { code: 'storage_unavailable' } });
    expect([unpublished.fate, failing.failures]).toEqual(['unknown', [new Error('a defect')]]);
    expect(rest.map(({ status }) => status)).toEqual(['fulfilled', 'fulfilled']);
    expect(await rounds(world, others, 1)).toBe(2);
    expect(others.flatMap(({ failures }) => failures)).toEqual([]);
    await log[Symbol.asyncDispose]();
    const cut = disk.powerCut('synced only');
    const again = await world.openLog(cut);
    expect((await world.contentOf(again, cut, world.projects[0]!)).ids).toContain(unpublished.id);
    await check(world, again, cut);
  });

  it('keeps accepting deletes on a full disk, and everything once there is space', async () => {
    const world = new LogWorld(3);
    const disk = newDisk(world);
    const [log, open] = await openAll(world, disk);
    disk.full = true;
    const [first] = open as [OpenLogProject, ...OpenLogProject[]];
    let refusal: unknown;
    for (let at = 0; at < 200 && refusal === undefined; at++)
      await first.commit(world.newCommit(), 3_000).catch((error: unknown) => {
        refusal = error;
      });
    expect(refusal).toMatchObject({ code: 'disk_full' });
    for (let at = 0; at < 10; at++) await first.commit(world.newCommit(), 50, true);
    for (const one of open) await one.commit(world.newCommit(), 50, true);
    await expect(first.commit(world.newCommit(), 50)).rejects.toMatchObject({ code: 'disk_full' });
    disk.full = false;
    await expect.poll(() => rounds(world, open, 1)).toBe(open.length);
    await check(world, log, disk);
  });

  it('sets aside the parts of a project whose folder fails, without delaying other projects', async () => {
    const world = new LogWorld(3);
    const disk = newDisk(world);
    const [log, open] = await openAll(world, disk);
    await rounds(world, open, 12);
    const failing = world.projects[1]!;
    while (log.pinning().length > 0) {
      const failed = await log.carryOldest(world.carryTarget(disk, (name) => name === failing.name));
      expect(failed.keys().every((handle) => handle === failing.handle)).toBe(true);
    }
    expect(log.stuck.handles).toEqual(new Set([failing.handle]));
    expect(log.stats.stuckHandles).toBe(1);
    // Its segments are reused.
    await rounds(world, [open[0]!, open[2]!], 40);
    await check(world, log, disk);
    const cut = disk.powerCut('synced only');
    const again = await world.openLog(cut);
    await check(world, again, cut);
    await again.stuck.remove(failing.handle);
    await expect(world.contentOf(again, cut, failing)).rejects.toThrow('damaged or missing');
  });

  it('uses no segment for a hundred openings without a write, and frees those of a hundred with one', async () => {
    const world = new LogWorld(2);
    const disk = newDisk(world);
    for (let start = 0; start < 100; start++) await (await world.openLog(disk))[Symbol.asyncDispose]();
    const idle = (await world.openLog(disk)).stats;
    expect(idle).toMatchObject({ segmentsLive: 0, segmentsFree: 4 });
    for (let start = 0; start < 100; start++) {
      const log = await world.openLog(disk);
      const one = await world.open(log, disk, world.projects[0]!);
      await one.commit(world.newCommit(), 100);
      if (start % 3 === 0) await world.checkpoint(log, disk, one);
      await log[Symbol.asyncDispose]();
    }
    const last = await world.openLog(disk);
    expect(last.stats.segmentsLive + last.stats.segmentsFree).toBeLessThanOrEqual(world.limits.segmentsMax);
    await check(world, last, disk);
  });
});

describe('a log that is reopened many times', () => {
  it.each([
    ['before', 4, 8, 100],
    ['after', 10, 16, 400],
  ] as const)(
    'has enough segments without growing over a hundred restarts with a commit, when it frees %s it writes',
    async (when, liveMax, filesMax, carriesMax) => {
      const world = new LogWorld(3, { ...SMALL_LIMITS, segmentsMax: 64 });
      const disk = newDisk(world);
      let [most, carries] = [0, 0];
      for (let start = 0; start < 100; start++) {
        const [log, open] = await openAll(world, disk);
        const free = async () => {
          while (log.shouldFree) await log.carryOldest(world.carryTarget(disk));
        };
        // Freeing becomes durable with the next header.
        if (when === 'before') await free();
        await open[start % open.length]!.commit(world.newCommit(), 100);
        if (when === 'after') await free();
        const { segmentsLive, segmentsFree } = log.stats;
        carries += log.stats.carries;
        if (start === 20) most = segmentsLive + segmentsFree;
        if (start > 20) expect(segmentsLive + segmentsFree).toBeLessThanOrEqual(most);
        expect(segmentsLive).toBeLessThanOrEqual(liveMax);
        await log[Symbol.asyncDispose]();
      }
      expect(most).toBeLessThanOrEqual(filesMax);
      expect(carries).toBeLessThanOrEqual(carriesMax);
      const last = await world.openLog(disk);
      await check(world, last, disk);
    },
  );

  it('requests no freeing while closed segments are full of uncovered parts', async () => {
    const world = new LogWorld(2, { ...SMALL_LIMITS, segmentsMax: 64 });
    const disk = newDisk(world);
    const [log, open] = await openAll(world, disk);
    await open[1]!.commit(world.newCommit(), 10);
    while (log.stats.segmentsLive < 10) await open[0]!.commit(world.newCommit(), 6_000);
    expect(log.shouldFree).toBe(false);
    await world.checkpoint(log, disk, open[0]!);
    expect(log.stats.segmentsLive).toBe(10);
    expect(log.shouldFree).toBe(true);
    await log.carryOldest(world.carryTarget(disk));
    expect(log.stats.segmentsLive).toBe(1);
    expect(log.shouldFree).toBe(false);
  });
});

describe('a log whose data folder another process takes', () => {
  it('stops writing when it may not begin a segment, and does not answer a frame of unknown outcome', async () => {
    for (const fault of [undefined, 'storage_unavailable'] as const) {
      const world = new LogWorld(2);
      const disk = newDisk(world);
      let isOwn = true;
      const lost: unknown[] = [];
      let asked = 0;
      const taken = new Error('the lock is held by another process');
      const log = await world.openLog(disk, {
        observer: { onLost: (error) => lost.push(error) },
        beforeSegment: async () => {
          asked++;
          if (!isOwn) throw taken;
        },
      });
      expect(asked).toBe(1);
      const open: OpenLogProject[] = [];
      for (const project of world.projects) open.push(await world.open(log, disk, project));
      await Promise.all(open.map((one) => one.commit(world.newCommit(), 10)));
      isOwn = false;
      // A failed write requests a new segment at once, and a full segment eventually.
      if (fault !== undefined) disk.failAt({ operation: 2, when: 'after', what: fault });
      const fates = new Set<Fate>();
      for (let at = 0; at < 40 && lost.length === 0; at++) {
        const given = world.newCommit();
        await open[0]!.commit(given, 3_000).catch(() => undefined);
        fates.add(given.fate);
      }
      expect(lost).toEqual([taken]);
      expect(asked).toBe(2);
      expect(fates).toContain(fault === undefined ? 'refused' : 'unknown');
      const { operations } = disk;
      const refused = { code: 'storage_unavailable' };
      await expect(open[1]!.commit(world.newCommit(), 10)).rejects.toMatchObject(refused);
      await expect(log.acceptLoss()).rejects.toMatchObject(refused);
      await expect(log.carryOldest(world.carryTarget(disk))).rejects.toMatchObject(refused);
      await expect(log.carryAll(world.carryTarget(disk))).rejects.toMatchObject(refused);
      expect(log.stats.writesStopped).toBe(true);
      await log[Symbol.asyncDispose]();
      expect(disk.operations).toBe(operations);
      const cut = disk.powerCut('everything');
      await check(world, await world.openLog(cut), cut);
    }
  });

  it('does not open when its first segment may not begin', async () => {
    const world = new LogWorld(1);
    const disk = newDisk(world);
    const taken = new Error('the lock is held by another process');
    const opening = world.openLog(disk, { beforeSegment: () => Promise.reject(taken) });
    await expect(opening).rejects.toBe(taken);
  });
});

describe('a lost or altered log', () => {
  it("does not open when it, a segment, or a segment's header is missing or belongs to another storage", async () => {
    const world = new LogWorld(3);
    const disk = newDisk(world);
    const [log, open] = await openAll(world, disk);
    await rounds(world, open, 12);
    await log[Symbol.asyncDispose]();
    const segments = [...disk.files().keys()].filter((path) => path.startsWith('/log/'));
    const without = (change: (bytes: Buffer) => Buffer | undefined, path: string) => {
      const copy = disk.powerCut('everything');
      copy.tamper(path, change(Buffer.from(copy.files().get(path)!)));
      return copy;
    };
    const first = segments[0]!;
    await expect(world.openLog(without(() => undefined, first))).rejects.toThrow(LogDamaged);
    await expect(world.openLog(without((bytes) => bytes.fill(0, 0, 4_096), first))).rejects.toThrow(
      'the header of segment 1 is damaged',
    );
    const none = disk.powerCut('everything');
    for (const path of segments) none.tamper(path, undefined);
    await expect(world.openLog(none)).rejects.toThrow('put it back');
    const other = new LogWorld(3);
    await expect(other.openLog(disk.powerCut('everything'))).rejects.toThrow('another storage');
  });

  it('damages a project whose older folder is restored after its parts were freed from the log', async () => {
    const world = new LogWorld(2);
    const disk = newDisk(world);
    const [log, open] = await openAll(world, disk);
    await rounds(world, open, 2);
    await world.checkpoint(log, disk, open[0]!);
    const older = Buffer.from(disk.files().get('/projects/p0/catalog')!);
    for (let time = 0; time < 4; time++) {
      await rounds(world, open, 8);
      for (const one of open) await world.checkpoint(log, disk, one);
    }
    await rounds(world, open, 1);
    disk.tamper('/projects/p0/catalog', older);
    await expect(world.contentOf(log, disk, world.projects[0]!)).rejects.toThrow('damaged or missing');
    expect((await world.contentOf(log, disk, world.projects[1]!)).ids).toHaveLength(35);
  });

  it('damages a project that has seen more of the log than an older log contains', async () => {
    const world = new LogWorld(2);
    const disk = newDisk(world);
    const [log, open] = await openAll(world, disk);
    await rounds(world, open, 2);
    const older = disk.powerCut('everything');
    await rounds(world, open, 10);
    await world.checkpoint(log, disk, open[0]!);
    older.tamper('/projects/p0/catalog', Buffer.from(disk.files().get('/projects/p0/catalog')!));
    const again = await world.openLog(older);
    await expect(world.contentOf(again, older, world.projects[0]!)).rejects.toThrow('do not follow');
  });
});
