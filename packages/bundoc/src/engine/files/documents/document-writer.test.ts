import { setImmediate } from 'node:timers/promises';
import { AppError } from '@bundoc/shared/contract/app-error';
import { describe, expect, it } from 'vitest';
import { SimulatedDisk } from '../../../testing/simulated-disk.ts';
import type { FileChange } from '../disk/disk.ts';
import { Backlog } from './backlog.ts';
import { DocumentWriter } from './document-writer.ts';
import type { ProjectFiles } from './project-files.ts';

const name = (n: number) => n.toString(16).padStart(32, '0');
const bytes = (length: number, fill = 1) => Buffer.alloc(length, fill);

/** A writer of the files of projects `a`, `b` …, whose rounds wait until the test releases them. */
function start({ backlogBytesMax = 1_000_000, isHeld = true } = {}) {
  const disk = new SimulatedDisk(
    '/',
    ...['a', 'b', 'c'].flatMap((project) => [`/${project}`, `/${project}/docs`]),
  );
  const backlog = new Backlog(backlogBytesMax);
  const rounds: FileChange[][] = [];
  const held: (() => void)[] = [];
  const retries: (() => void)[] = [];
  const state = { isHeld };
  /** Paths that fail, and their errors. */
  const failing = new Map<string, AppError>();
  const writer = new DocumentWriter({
    disk: {
      writeFiles: async (files) => {
        rounds.push([...files]);
        if (state.isHeld) await new Promise<void>((resolve) => held.push(resolve));
        const outcomes = await disk.writeFiles(files.filter(({ path }) => !failing.has(path)));
        return files.map(({ path }) => failing.get(path) ?? outcomes.shift());
      },
    },
    backlog,
    later: (task) => {
      retries.push(task);
      return setTimeout(() => undefined, 0).unref();
    },
  });
  const of = (project: string): ProjectFiles => writer.of(project, `/${project}`);
  const release = async () => {
    for (const resolve of held.splice(0)) resolve();
    for (let turn = 0; turn < 20; turn++) await setImmediate();
  };
  const retry = () => {
    for (const task of retries.splice(0)) task();
  };
  const projectsOf = (round: readonly FileChange[] = []) => round.map(({ path }) => path.split('/')[1]);
  return { disk, backlog, writer, of, rounds, release, retry, failing, state, projectsOf };
}

async function hasSettled(promise: Promise<unknown>): Promise<boolean> {
  let settled = false;
  void promise
    .catch(() => undefined)
    .finally(() => {
      settled = true;
    });
  for (let turn = 0; turn < 20; turn++) await setImmediate();
  return settled;
}

describe('the writer of document files', () => {
  it('serves all projects: files added during a round share the next one', async () => {
    const { disk, of, rounds, release, projectsOf } = start();
    of('a').put(name(1), bytes(10));
    for (const project of ['a', 'b', 'c']) of(project).put(name(2), bytes(20));
    const written = Promise.all(['a', 'b', 'c'].map((project) => of(project).whenWritten()));
    await release();
    expect(rounds.map((round) => projectsOf(round))).toEqual([['a'], ['a', 'b', 'c']]);
    await release();
    await written;
    expect(disk.files().get(`/b/docs/${name(2)}`)).toEqual(bytes(20));
  });

  it('lets projects take turns: one with a thousand files does not delay a neighbour with one', async () => {
    const { of, rounds, release, projectsOf } = start();
    for (let n = 0; n < 1_000; n++) of('a').put(name(n), bytes(10));
    of('b').put(name(1), bytes(10));
    await release();
    const [, second] = rounds.map((round) => projectsOf(round));
    expect(second?.filter((project) => project === 'b')).toHaveLength(1);
    const written = of('b').whenWritten();
    await release();
    expect(await hasSettled(written)).toBe(true);
    expect(of('a').pendingWrites.size).toBeGreaterThan(500);
  });

  it('first writes files that a caller waits for, then the others in their turns', async () => {
    const { of, rounds, release, projectsOf } = start();
    for (let n = 0; n < 10; n++)
      for (const project of ['a', 'b', 'c']) of(project).put(name(n), bytes(1_000_000));
    const written = of('c').whenWritten();
    while (!(await hasSettled(written))) await release();
    const [, ...behindTheFirst] = rounds.map((round) => projectsOf(round));
    expect(
      behindTheFirst
        .slice(0, 2)
        .flat()
        .filter((project) => project === 'c'),
    ).toHaveLength(10);
    of('c').put(name(11), bytes(10));
    await release();
    await release();
    const [last] = rounds.slice(-1).map((round) => projectsOf(round));
    expect(last?.[0]).not.toBe('c');
  });

  it('writes only the last of several contents of a file', async () => {
    const { backlog, disk, of, rounds, release } = start();
    of('a').put(name(0), bytes(1));
    of('a').put(name(1), bytes(800));
    of('a').put(name(1), bytes(300, 2));
    expect(backlog.bytes).toBe(301);
    of('a').put(name(2), bytes(5));
    of('a').remove(name(2));
    const written = of('a').whenWritten();
    await release();
    await release();
    await written;
    expect(rounds.flat().map(({ content }) => content?.length)).toEqual([1, 300, undefined]);
    expect([disk.files().get(`/a/docs/${name(1)}`), backlog.bytes]).toEqual([bytes(300, 2), 0]);
  });

  it('still writes the files of a closed store, so that the next opening need not', async () => {
    const { disk, of, writer, release } = start();
    const first = of('a');
    first.put(name(1), bytes(10));
    first.isUpToDate = true;
    // Closing forgets only clean projects.
    writer.forget('a');
    expect(of('a')).toBe(first);
    await release();
    expect(disk.files().has(`/a/docs/${name(1)}`)).toBe(true);
    expect([of('a'), of('a').isUpToDate]).toEqual([first, true]);
    // Its name takes memory until it is synced.
    expect(first.memoryBytes).toBe(64);
    expect(first.takeUnsynced()).toEqual([`/a/docs/${name(1)}`]);
    expect(first.memoryBytes).toBe(0);
    writer.forget('a');
    expect([of('a') === first, of('a').isUpToDate]).toEqual([false, false]);
  });

  it('writes nothing more of a dropped project, and waits for its current write', async () => {
    const { backlog, of, rounds, writer, release } = start();
    of('a').put(name(1), bytes(10));
    of('a').put(name(2), bytes(10));
    const waiting = of('a').whenWritten();
    waiting.catch(() => undefined);
    const dropped = writer.drop('a');
    expect(await hasSettled(dropped)).toBe(false);
    await release();
    await dropped;
    await expect(waiting).rejects.toThrow('given up');
    expect([rounds.length, backlog.bytes, of('a').pendingWrites.size]).toEqual([1, 0, 0]);
  });

  it('keeps a project with pending writes when it forgets written ones', async () => {
    const { of, writer, release } = start();
    const first = of('a');
    first.put(name(1), bytes(10));
    writer.dropWritten('a');
    expect(of('a')).toBe(first);
    await release();
    writer.dropWritten('a');
    expect(of('a')).not.toBe(first);
  });

  it('continues with other projects when the files of one cannot be written', async () => {
    const { backlog, disk, of, failing, state } = start();
    state.isHeld = false;
    failing.set(`/a/docs/${name(1)}`, new AppError('storage_unavailable'));
    const failures: unknown[] = [];
    for (const project of ['a', 'b']) of(project).onFailure = (error) => failures.push([project, error]);
    for (const project of ['a', 'b']) for (const n of [1, 2]) of(project).put(name(n), bytes(10));
    const failed = of('a');
    await of('b').whenWritten();
    await expect(failed.whenWritten()).rejects.toMatchObject({ code: 'storage_unavailable' });
    expect(failures).toEqual([['a', expect.objectContaining({ code: 'storage_unavailable' })]]);
    // The content of its files is unknown, so nothing is written to them.
    failed.put(name(3), bytes(10));
    of('b').put(name(3), bytes(10));
    await of('b').whenWritten();
    expect([disk.files().has(`/a/docs/${name(3)}`), backlog.bytes]).toEqual([false, 0]);
  });

  it('refuses waiters on a full disk, removes files, and writes pending contents once there is space', async () => {
    const { disk, of, writer, retry, state } = start();
    state.isHeld = false;
    of('b').put(name(1), bytes(10));
    await of('b').whenWritten();
    disk.full = true;
    of('a').put(name(1), bytes(10));
    await expect(of('a').whenWritten()).rejects.toMatchObject({ code: 'disk_full' });
    await expect(of('a').whenWritten()).rejects.toMatchObject({ code: 'disk_full' });
    expect([writer.full, of('b').isFull]).toEqual([true, true]);
    of('b').remove(name(1));
    await expect.poll(() => disk.files().has(`/b/docs/${name(1)}`)).toBe(false);
    expect(of('a').pending(name(1))).toEqual(bytes(10));
    disk.full = false;
    retry();
    await expect.poll(() => disk.files().has(`/a/docs/${name(1)}`)).toBe(true);
    expect([writer.full, of('a').isFull]).toEqual([false, false]);
  });

  it('clears the full-disk flag when the blocked write was deleted', async () => {
    const { disk, of, writer, retry, state } = start();
    state.isHeld = false;
    disk.full = true;
    of('a').put(name(1), bytes(10));
    await expect(of('a').whenWritten()).rejects.toMatchObject({ code: 'disk_full' });
    of('a').remove(name(1));
    await expect.poll(() => of('a').pendingWrites.size).toBe(0);
    expect(writer.full).toBe(true);
    disk.full = false;
    retry();
    expect([writer.full, of('b').isFull]).toEqual([false, false]);
  });

  it('clears the full-disk flag when the blocked project was dropped', async () => {
    const { disk, of, writer, retry, state } = start();
    state.isHeld = false;
    disk.full = true;
    of('a').put(name(1), bytes(10));
    await expect(of('a').whenWritten()).rejects.toMatchObject({ code: 'disk_full' });
    await writer.drop('a');
    // Removals need no space, so they prove nothing.
    state.isHeld = true;
    of('b').remove(name(1));
    expect(writer.full).toBe(true);
    disk.full = false;
    retry();
    expect([writer.full, of('b').isFull]).toEqual([false, false]);
  });

  it('keeps the full-disk flag while a content is blocked', async () => {
    const { disk, of, writer, retry, state, rounds } = start();
    state.isHeld = false;
    disk.full = true;
    for (const project of ['a', 'b']) of(project).put(name(1), bytes(10));
    await expect(of('b').whenWritten()).rejects.toMatchObject({ code: 'disk_full' });
    await writer.drop('a');
    const before = rounds.length;
    retry();
    expect(writer.full).toBe(true);
    await expect.poll(() => rounds.length).toBeGreaterThan(before);
    expect([writer.full, of('c').isFull]).toEqual([true, true]);
  });

  it('starts fresh with a project whose files have failed while it was closed', async () => {
    const { disk, of, failing, state } = start();
    state.isHeld = false;
    failing.set(`/a/docs/${name(1)}`, new AppError('storage_unavailable'));
    const first = of('a');
    first.put(name(1), bytes(10));
    first.isUpToDate = true;
    await expect(first.whenWritten()).rejects.toMatchObject({ code: 'storage_unavailable' });
    failing.clear();
    const second = of('a');
    expect([second === first, second.isUpToDate]).toEqual([false, false]);
    second.put(name(1), bytes(20));
    await second.whenWritten();
    expect(disk.files().get(`/a/docs/${name(1)}`)).toEqual(bytes(20));
  });

  it('writes nothing more after it is stopped, and frees the waiting bytes', async () => {
    const { backlog, of, rounds, writer, release } = start();
    for (const project of ['a', 'b']) for (const n of [1, 2]) of(project).put(name(n), bytes(500));
    const stopped = writer.stop();
    expect(await hasSettled(stopped)).toBe(false);
    await release();
    await stopped;
    expect([rounds.length, backlog.bytes]).toEqual([1, 0]);
  });
});

describe('the capacity for pending document files', () => {
  it('is exhausted while the projects together have too many, and returns as soon as enough are written', async () => {
    const { backlog, of, release } = start({ backlogBytesMax: 1_000 });
    of('a').put(name(1), bytes(400));
    of('b').put(name(2), bytes(700));
    expect([of('a').hasCapacity, of('b').hasCapacity]).toEqual([false, false]);
    const roomy: string[] = [];
    of('b').whenCapacity(() => roomy.push('b'));
    await release();
    expect([roomy, backlog.bytes, of('b').hasCapacity]).toEqual([['b'], 700, true]);
  });

  it('has a reserve of a quarter for projects without pending files, however many there are', () => {
    const { of } = start({ backlogBytesMax: 1_000 });
    of('b').put(name(1), bytes(1_100));
    expect([of('a').hasCapacity, of('b').hasCapacity]).toEqual([true, false]);
    of('c').put(name(1), bytes(150));
    expect([of('a').hasCapacity, of('c').hasCapacity]).toEqual([true, false]);
    of('d').put(name(1), bytes(1));
    expect(of('a').hasCapacity).toBe(false);
  });

  it('is returned by a project whose files cannot be written', async () => {
    const { backlog, of, failing, state } = start({ backlogBytesMax: 1_000 });
    state.isHeld = false;
    failing.set(`/a/docs/${name(1)}`, new AppError('storage_unavailable'));
    const roomy: string[] = [];
    of('a').put(name(1), bytes(5_000));
    of('b').put(name(1), bytes(10));
    of('b').whenCapacity(() => roomy.push('b'));
    await of('b').whenWritten();
    expect([roomy, backlog.bytes, of('a').hasCapacity]).toEqual([['b'], 0, true]);
  });

  it('is announced on a full disk, so that waiting callers are refused', async () => {
    const { disk, of, state } = start({ backlogBytesMax: 1_000 });
    state.isHeld = false;
    disk.full = true;
    const roomy = Promise.withResolvers<void>();
    of('a').put(name(1), bytes(5_000));
    of('a').whenCapacity(roomy.resolve);
    await roomy.promise;
    expect(of('a').isFull).toBe(true);
  });
});
