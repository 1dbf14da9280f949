import type { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { describe, expect, it } from 'vitest';
import { ProjectInFiles } from '../../../testing/project-in-files.ts';
import type { SimulatedDisk } from '../../../testing/simulated-disk.ts';
import { LARGE_LIMITS, started } from '../../../testing/started-store.ts';
import { commitOne, put, ref, remove } from '../../../testing/writes.ts';
import type { FileStore } from './file-store.ts';

describe('the seal budget', () => {
  const sealLimits = { reserve: 10, rotateAt: 30, max: 50 };
  const budgeted = async () => {
    const project = new ProjectInFiles({ sealLimits });
    const disk = ProjectInFiles.disk();
    await project.create(disk);
    return { project, disk, store: await project.open(disk) };
  };
  const writeUntilRefused = async (store: FileStore) => {
    let written = 0;
    for (; written < 100; written++) {
      const refused = await store.commit([put(`d${written % 5}`, '{}')]).catch((error: unknown) => error);
      if (refused instanceof Error) {
        expect(refused).toMatchObject({ code: 'key_exhausted' });
        break;
      }
    }
    return written;
  };

  it('asks for a rotation in time, and refuses seals beyond the last one with key_exhausted', async () => {
    const { project, store } = await budgeted();
    expect(await writeUntilRefused(store)).toBe(sealLimits.max);
    expect(project.rotationsDue.length).toBeGreaterThan(0);
    expect(await store.get(ref('d0'))).toBeDefined();
    await commitOne(store, remove('d0'));
  });

  it('is exact after the store is closed, and loses no seal in a crash', async () => {
    const { project, disk, store } = await budgeted();
    for (let n = 0; n < 20; n++) await commitOne(store, put('a', '{}'));
    await store.checkpoint();
    await store[Symbol.asyncDispose]();
    const closed = await project.open(disk);
    for (let n = 0; n < 5; n++) await commitOne(closed, put('a', '{}'));
    const crashed = await project.open(disk.powerCut('synced only'));
    const left = await writeUntilRefused(crashed);
    expect(left).toBeLessThanOrEqual(25);
    expect(left).toBeGreaterThanOrEqual(25 - 2 * sealLimits.reserve);
  });
});

describe('after a rotation', () => {
  const rotated = async () => {
    const { project, disk, store } = await started();
    for (let n = 0; n < 20; n++) await commitOne(store, put(`d${n}`, `{"n":${n}}`));
    await commitOne(store, remove('d3'));
    await store.checkpoint();
    for (let n = 20; n < 30; n++) await commitOne(store, put(`d${n}`, `{"n":${n}}`));
    await store[Symbol.asyncDispose]();
    project.rotate();
    return { project, disk, store: await project.open(disk) };
  };
  const check = async (store: FileStore) => {
    for (let n = 0; n < 30; n++) {
      const text = (await store.get(ref(`d${n}`)))?.text.toString();
      if (n === 3) expect(text).toBeUndefined();
      else expect(text).toContain(`"n":${n}}`);
    }
  };

  it('everything that the former version sealed opens, log and catalog included, and new writes use the current one', async () => {
    const { project, disk, store } = await rotated();
    await check(store);
    expect(store.pendingReencryption).toBe(29);
    await commitOne(store, put('d0', '{"n":0}'));
    expect(store.pendingReencryption).toBe(28);
    await store.checkpoint();
    await check(await project.open(disk.powerCut('synced only')));
  });

  it('re-sealing moves all documents to the current version, with the same revisions, and is absent from the changes', async () => {
    const { project, disk, store } = await rotated();
    const before = await store.changes(0, 100);
    while (store.pendingReencryption > 0) await store.reseal(7);
    expect(await store.changes(0, 100)).toEqual(before);
    expect(
      (await store.list({ collection: 'notes', after: 0, limit: 100, bytesMax: 1_000_000 })).documents,
    ).toHaveLength(29);
    await store.checkpoint();
    await store[Symbol.asyncDispose]();
    project.forgetFormerVersions();
    const again = await project.open(disk.powerCut('synced only'));
    await check(again);
    expect(again.pendingReencryption).toBe(0);
    expect(await again.changes(0, 100)).toEqual(before);
  });

  it('re-sealing puts at most as much into a frame as can be read again, however large the documents are', async () => {
    const { project, disk, store } = await started(LARGE_LIMITS);
    const pad = 'x'.repeat(3_000_000);
    for (let n = 0; n < 14; n++) await commitOne(store, put(`big-${n}`, `{"n":${n},"pad":"${pad}"}`));
    await store[Symbol.asyncDispose]();
    project.rotate();
    const rotatedStore = await project.open(disk);
    while (rotatedStore.pendingReencryption > 0)
      expect((await rotatedStore.reseal(500)).resealed).toBeLessThan(4);
    const again = await project.open(disk.powerCut('synced only'));
    for (let n = 0; n < 14; n++)
      expect((await again.get(ref(`big-${n}`)))?.text.toString()).toContain(`"n":${n},`);
  });

  it('re-sealing leaves an unreadable document pending, reports it, and tries it again after growing waits', async () => {
    const { project, disk, store } = await rotated();
    await store.checkpoint();
    const clock = project.clock as FakeClock;
    const name = project.cipher.fileName(ref('d1'));
    const path = `/p/docs/${name}`;
    const genuine = await disk.read(path, 1_000_000);
    disk.tamper(path, Buffer.from('x'));
    let resealed = 0;
    let skipped = 0;
    const pass = async () => {
      for (let goesOn = true; goesOn; ) {
        const done = await store.reseal(5);
        expect(done.cause === undefined).toBe(done.skipped === 0);
        resealed += done.resealed;
        skipped += done.skipped;
        goesOn = done.goesOn;
      }
    };
    await pass();
    expect([resealed, skipped, store.pendingReencryption, project.damaged]).toEqual([28, 1, 1, [name]]);
    for (const waitMs of [60_000, 120_000]) {
      clock.advance(waitMs - 1);
      await pass();
      const before = skipped;
      clock.advance(1);
      await pass();
      expect(skipped).toBe(before + 1);
    }
    // Repaired, as from a backup. Its key version is needed until then.
    disk.tamper(path, genuine as Buffer);
    clock.advance(240_000);
    await pass();
    expect([resealed, skipped, store.pendingReencryption]).toEqual([29, 3, 0]);
    await store[Symbol.asyncDispose]();
    project.forgetFormerVersions();
    await check(await project.open(disk.powerCut('synced only')));
  });

  it('re-sealing continues where a crash interrupted it, and never undoes a write in between', async () => {
    for (let operation = 1; operation < 40; operation += 3) {
      const { project, disk, store } = await rotated();
      disk.failAt({ operation, when: 'after', what: 'crash' });
      const moving = (async () => {
        for (let n = 0; n < 10; n++) await store.reseal(5);
      })();
      const writing = store.commit([put('d5', '{"n":5}'), put('d6', '{"n":6}')]);
      await Promise.race([Promise.allSettled([moving, writing]), disk.crashes]).catch(() => undefined);
      const after = await project.open(disk.powerCut('synced only'));
      await check(after);
      await after.reseal(50);
      expect(after.pendingReencryption).toBe(0);
      await check(after);
      expect(project.damaged).toEqual([]);
    }
  });

  describe('a read that a re-sealing overtakes', () => {
    /** Holds the first read of a document file, and returns what it read changed by `change`. */
    function holdRead(disk: SimulatedDisk, change: (before: Buffer, after: Buffer) => Buffer) {
      const { read } = disk;
      const reached = Promise.withResolvers<void>();
      const released = Promise.withResolvers<void>();
      disk.read = async (path, bytesMax) => {
        const before = await read.call(disk, path, bytesMax);
        if (before === undefined || !path.includes('/docs/')) return before;
        disk.read = read;
        reached.resolve();
        await released.promise;
        return change(before, (await read.call(disk, path, bytesMax)) as Buffer);
      };
      return { reached: reached.promise, release: released.resolve };
    }

    async function overtaken(cacheBytes: number, change: (before: Buffer, after: Buffer) => Buffer) {
      const { project, disk, store } = await started();
      await commitOne(store, put('d', '{"n":0}'));
      await store.checkpoint();
      await store[Symbol.asyncDispose]();
      project.rotate();
      const next = await project.open(disk, cacheBytes);
      const held = holdRead(disk, change);
      const document = Promise.resolve(next.get(ref('d')));
      await held.reached;
      await next.reseal(10);
      await next.checkpoint();
      held.release();
      return { project, store: next, document };
    }

    it('puts no bytes of the former version into the cache, and a backup has those of the current one', async () => {
      const { project, store, document } = await overtaken(1_000_000, (before) => before);
      expect((await document)?.text.toString()).toContain('"n":0}');
      const { changes } = await store.sealedChanges(0, { limit: 10, bytesMax: 1_000_000 });
      project.forgetFormerVersions();
      expect(changes.map(({ state }) => state.keyVersion)).toEqual([2]);
      const name = project.cipher.fileName(ref('d'));
      expect(project.cipher.openDocument(name, changes[0]?.sealed as Buffer).toString()).toContain('"n":0}');
    });

    it('reads a file again that had bytes of both versions, and reports no damage', async () => {
      const torn = (before: Buffer, after: Buffer) =>
        Buffer.concat([before.subarray(0, 40), after.subarray(40)]);
      const { project, document } = await overtaken(0, torn);
      expect((await document)?.text.toString()).toContain('"n":0}');
      expect(project.damaged).toEqual([]);
    });

    it('gives a backup the bytes of the version that the document has at that time', async () => {
      const { project, disk, store } = await started();
      await commitOne(store, put('d', '{"n":0}'));
      await store.checkpoint();
      await store[Symbol.asyncDispose]();
      project.rotate();
      const next = await project.open(disk);
      const held = holdRead(disk, (before) => before);
      const page = next.sealedChanges(0, { limit: 10, bytesMax: 1_000_000 });
      await held.reached;
      await next.reseal(10);
      await next.checkpoint();
      held.release();
      const { changes, isComplete } = await page;
      expect(isComplete).toBe(true);
      project.forgetFormerVersions();
      const { state, sealed } = changes[0]!;
      expect(state.keyVersion).toBe(2);
      const name = project.cipher.fileName(ref('d'));
      expect(project.cipher.openDocument(name, sealed as Buffer).toString()).toContain('"n":0}');
    });
  });
});
