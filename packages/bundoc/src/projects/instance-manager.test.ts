import { Pool } from '@bundoc/shared/admission/pool';
import { AppError } from '@bundoc/shared/contract/app-error';
import { createLogger } from '@bundoc/shared/logs/logger';
import { runInShare } from '@bundoc/shared/shares/share-key';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { nextTurn } from '@bundoc/shared/testing/timing';
import { describe, expect, it } from 'vitest';
import type { FileChange } from '../engine/files/disk/disk.ts';
import { startManager } from '../testing/managed-instances.ts';
import { newPlace, openInstances } from '../testing/open-instances.ts';
import { SimulatedDisk } from '../testing/simulated-disk.ts';
import { closeEngine } from '../testing/test-engine.ts';
import { ref } from '../testing/writes.ts';
import { createServiceShares } from '../work/service-shares.ts';

describe('an InstanceManager', () => {
  it('returns undefined for a project that does not exist, and requests no key', async () => {
    const { service, manager } = startManager();
    expect(await manager.acquire('p', 'existing')).toBeUndefined();
    expect(service.exports).toBe(0);
  });

  it('warns of a project that cannot be opened, but not of one that was deleted', async () => {
    const lines: string[] = [];
    const destination = { write: (line: string) => void lines.push(line) };
    const logger = createLogger({ service: 'bundoc', level: 'info', destination });
    const { service, manager } = startManager({ logger });
    service.destroyed.add('gone-dek');
    await expect(manager.acquire('gone', 'create')).rejects.toMatchObject({ code: 'project_destroyed' });
    expect(lines).toEqual([]);
    service.failure = new AppError('key_damaged');
    await expect(manager.acquire('p', 'create')).rejects.toMatchObject({ code: 'key_damaged' });
    expect(lines).toEqual([expect.stringContaining('a project cannot be opened: key_damaged')]);
  });

  it('opens a project once for many concurrent callers, and creates one key', async () => {
    const { service, write, openings } = startManager();
    await Promise.all(Array.from({ length: 50 }, (_, n) => write('p', `doc-${n}`)));
    expect(openings()).toBe(1);
    expect(service.creations).toBe(1);
  });

  it('closes a project that was idle for too long, but none in use', async () => {
    const { clock, manager, write, opened } = startManager({ idleTtlMs: 1_000 });
    await write('a');
    const lease = await manager.acquire('b', 'create');
    clock.advance(1_000);
    manager.sweep();
    await expect.poll(() => [opened.get('a'), opened.get('b')]).toEqual([0, 1]);
    lease[Symbol.dispose]();
  });

  it('closes a failed store once, and opens it again', async () => {
    const { disk, write, openings, closings, opened } = startManager();
    const { writeFiles } = disk;
    await write('p');
    const tried = Promise.withResolvers<void>();
    disk.writeFiles = async (files) => {
      tried.resolve();
      return files.map(() => new AppError('storage_unavailable'));
    };
    // It is in the log, so it is acknowledged.
    await write('p', 'b');
    await tried.promise;
    await nextTurn();
    disk.writeFiles = writeFiles;
    await write('p');
    expect([openings(), closings(), opened.get('p')]).toEqual([2, 1, 1]);
  });

  it('keeps a store open when the log refuses a write, since the outcome is certain', async () => {
    const { disk, write, openings, opened } = startManager();
    await write('p');
    await nextTurn();
    disk.failAt({ operation: 1, when: 'before', what: 'storage_unavailable' });
    await expect(write('p', 'b')).rejects.toMatchObject({ code: 'storage_unavailable' });
    await write('p', 'b');
    expect([openings(), opened.get('p')]).toEqual([1, 1]);
  });

  it('answers all that wait for an opening with its failure, and tries again for later requests', async () => {
    const { clock, write, manager, openings, opened, breakLists } = startManager({ idleTtlMs: 1 });
    await write('p');
    clock.advance(1);
    manager.sweep();
    await expect.poll(() => opened.get('p')).toBe(0);
    breakLists(true);
    const before = openings();
    const waiting = Array.from({ length: 10 }, () => manager.acquire('p', 'existing'));
    const outcomes = await Promise.allSettled(waiting);
    expect(outcomes.map((one) => one.status === 'rejected' && one.reason.code)).toEqual(
      Array(10).fill('storage_unavailable'),
    );
    expect(openings() - before).toBe(1);
    await expect(write('p')).rejects.toMatchObject({ code: 'storage_unavailable' });
    expect(openings() - before).toBe(2);
    breakLists(false);
    await write('p');
    expect(opened.get('p')).toBe(1);
  });

  it('fails no request of another subject for a share that is in use', async () => {
    const clock = new FakeClock();
    const openings = new Pool({ name: 'openings', capacity: 2, subjectMax: 1, waitMs: 0, clock });
    const { manager } = startManager({ shares: { ...createServiceShares(), openings } });
    using _held = openings.charge({ subject: 'busy', project: 'q' }, 1);
    const codeFor = (subject: string) =>
      runInShare({ subject, project: 'p' }, async () => {
        try {
          using _lease = await manager.acquire('p', 'create');
          return 'open';
        } catch (error) {
          return (error as AppError).code;
        }
      });
    const codes = await Promise.all(['busy', 'busy', 'other', 'busy'].map(codeFor));
    expect(codes).toEqual(['rate_limited', 'rate_limited', 'open', 'open']);
  });

  it('fails no reader of an absent project because it could not be created', async () => {
    const { service, manager } = startManager();
    service.beforeCreate = () => {
      throw new AppError('disk_full');
    };
    const creating = manager.acquire('p', 'create');
    const reading = manager.acquire('p', 'existing');
    await expect(creating).rejects.toMatchObject({ code: 'disk_full' });
    expect(await reading).toBeUndefined();
  });

  it('closes a store whose definitions cannot be read, and opens it again', async () => {
    const { clock, write, manager, opened, breakLists } = startManager({ idleTtlMs: 1 });
    await write('p');
    clock.advance(1);
    manager.sweep();
    await expect.poll(() => opened.get('p')).toBe(0);
    breakLists(true);
    await expect(write('p')).rejects.toMatchObject({ code: 'storage_unavailable' });
    expect(opened.get('p')).toBe(0);
    breakLists(false);
    await write('p');
    expect(opened.get('p')).toBe(1);
  });

  it('waits for running requests when it is closed, and admits no new ones', async () => {
    const { manager, opened, write } = startManager();
    const lease = await manager.acquire('p', 'create');
    let closed = false;
    const closing = manager[Symbol.asyncDispose]().then(() => {
      closed = true;
    });
    await nextTurn();
    expect(closed).toBe(false);
    await expect(write('q')).rejects.toMatchObject({ code: 'overloaded' });
    lease[Symbol.dispose]();
    await closing;
    expect(opened.get('p')).toBe(0);
  });
});

describe('the close of all projects', () => {
  it('waits only for the files that are being written, because the log holds the others', async () => {
    const disk = new SimulatedDisk('/', '/projects');
    const isDocument = ({ path }: FileChange) => path.startsWith('/projects/p/docs/');
    const rounds: (() => void)[] = [];
    const { writeFiles } = disk;
    disk.writeFiles = async (files) => {
      if (files.some(isDocument)) await new Promise<void>((resolve) => rounds.push(resolve));
      return writeFiles.call(disk, files);
    };
    const place = newPlace(disk);
    const { instances, write } = openInstances(place);
    const ids = Array.from({ length: 20 }, (_, n) => `d${n}`);
    for (const id of ids) await write('p', id);
    await instances[Symbol.asyncDispose]();
    let isOver = false;
    const over = closeEngine(disk).then(() => {
      isOver = true;
    });
    // What is being written must be over before another process may write there.
    for (let turn = 0; turn < 50; turn++) await nextTurn();
    expect([isOver, rounds.length]).toEqual([false, 1]);
    rounds[0]?.();
    await over;
    expect(rounds).toHaveLength(1);
    const written = [...disk.files().keys()].filter((path) => isDocument({ path, content: undefined }));
    expect(written.length).toBeLessThan(ids.length);

    disk.writeFiles = writeFiles;
    const { instances: next } = openInstances(place);
    using lease = await next.acquire('p', 'existing');
    for (const id of ids) expect(await lease?.store.get(ref(id))).toBeDefined();
  });
});
