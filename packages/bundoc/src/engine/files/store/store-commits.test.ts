import { setImmediate } from 'node:timers/promises';
import { describe, expect, it, vi } from 'vitest';
import { holdLogWrites } from '../../../testing/held-log-writes.ts';
import { ProjectInFiles } from '../../../testing/project-in-files.ts';
import { SlowSteps } from '../../../testing/slow-steps.ts';
import { LARGE_LIMITS, started } from '../../../testing/started-store.ts';
import { SMALL_LIMITS } from '../../../testing/test-engine.ts';
import { commitOne, put, ref, remove } from '../../../testing/writes.ts';
import { COMMITS_WAITING_MAX } from '../../port/port.ts';
import { createSealedCache } from '../documents/sealed-cache.ts';

describe('a commit', () => {
  it('shares one sync with all waiting commits', async () => {
    const { disk, store } = await started();
    await commitOne(store, put('first', '{}'));
    const before = disk.trace.filter((line) => line.startsWith('fdatasync')).length;
    await Promise.all(Array.from({ length: 30 }, (_, n) => store.commit([put(`d${n}`, '{"a":1}')])));
    const syncs = disk.trace.filter((line) => line.startsWith('fdatasync')).length - before;
    expect(syncs).toBeLessThan(10);
  });

  it('a commit that an earlier one in its frame rules out is refused only after that one is durable', async () => {
    const project = new ProjectInFiles();
    const disk = ProjectInFiles.disk();
    const held = holdLogWrites(disk);
    await project.create(disk);
    const store = await project.open(disk);
    held.isHeld = true;
    const created = put('a', '{}', { kind: 'absent' });
    const first = store.commit([created]);
    const answers: unknown[] = [];
    const second = store.commit([created]).catch((error: unknown) => answers.push(error));
    await expect.poll(() => held.waiting).toBeGreaterThan(0);
    for (let turn = 0; turn < 5; turn++) await setImmediate();
    expect(answers).toEqual([]);
    held.isHeld = false;
    held.releaseOne();
    await first;
    await second;
    expect(answers).toMatchObject([{ code: 'precondition_failed' }]);
  });

  it('leaves no readable id, collection or member on the disk', async () => {
    const { disk, store } = await started();
    await store.commit([
      { ...put('planted-id', '{"planted-member":"planted-value"}'), ref: ref('planted-id', 'planted_c') },
    ]);
    await store.checkpoint();
    for (const [path, bytes] of disk.files()) {
      for (const word of ['planted-id', 'planted-member', 'planted-value', 'planted_c']) {
        expect(path).not.toContain(word);
        expect(bytes.includes(word), `${word} in ${path}`).toBe(false);
      }
    }
  });

  it('a large commit is sealed document by document while others are served, and keeps its place in the order', async () => {
    const steps = new SlowSteps();
    const project = new ProjectInFiles({ limits: LARGE_LIMITS, ownWork: steps.own });
    const disk = ProjectInFiles.disk();
    await project.create(disk);
    const store = await project.open(disk);
    const ids = Array.from({ length: 10 }, (_, n) => `d${n}`);
    const text = `{"pad":"${'x'.repeat(200_000)}"}`;
    const order: string[] = [];
    await Promise.all([
      store.commit(ids.map((id) => put(id, text))).then(() => order.push('large')),
      store.commit([put('d0', '{"v":1}')]).then(() => order.push('small')),
    ]);
    expect(order).toEqual(['large', 'small']);
    expect(steps.turns).toBeGreaterThanOrEqual(ids.length - 1);
    const again = await project.open(disk.powerCut('synced only'));
    expect((await again.get(ref('d0')))?.text.toString()).toContain('"v":1');
    for (const id of ids.slice(1)) expect((await again.get(ref(id)))?.text.length).toBeGreaterThan(200_000);
  });

  it('a commit that is being sealed is refused with all later ones when the store fails', async () => {
    const { project, store } = await started(LARGE_LIMITS);
    const large = store.commit([put('a', `{"pad":"${'x'.repeat(2_000_000)}"}`)]);
    const behind = store.commit([put('b', '{}')]);
    const refused = Promise.all(
      [large, behind].map((commit) => expect(commit).rejects.toMatchObject({ code: 'storage_unavailable' })),
    );
    // The turn in which the log takes it.
    await setImmediate();
    store.fail(new Error('a document file'));
    await refused;
    expect(project.failures).toHaveLength(1);
    await store[Symbol.asyncDispose]();
  });

  it('commits with the longest escaped ids and idempotency keys fit into the parts that they were counted for', async () => {
    const { project, disk, store } = await started(LARGE_LIMITS);
    const id = (n: number) => `${'"'.repeat(500)}${n}`;
    const commits = Array.from({ length: 1_000 }, (_, n) =>
      store.commit([{ ...put(id(n), `{"pad":"${'x'.repeat(30_000)}"}`), ref: ref(id(n), 'c'.repeat(128)) }], {
        idempotency: { key: n.toString(16).padStart(32, '0'), request: 'a'.repeat(32) },
      }),
    );
    await Promise.all(commits);
    const again = await project.open(disk.powerCut('synced only'));
    for (const n of [0, 500, 999]) expect(await again.get(ref(id(n), 'c'.repeat(128)))).toBeDefined();
  });

  it('is refused as overloaded when too many are waiting', async () => {
    const { store } = await started();
    const outcomes = await Promise.allSettled(
      Array.from({ length: COMMITS_WAITING_MAX + 50 }, (_, n) => store.commit([put('same', `{"v":${n}}`)])),
    );
    const refused = outcomes.filter((outcome) => outcome.status === 'rejected');
    expect(refused.length).toBeGreaterThan(0);
    expect(refused[0]?.reason).toMatchObject({ code: 'overloaded' });
  });

  it('is refused only when documents have waited for the disk for 5 seconds', async () => {
    const { disk, store } = await started();
    await commitOne(store, put('first', '{}'));
    const { promise: isBack, resolve: comeBack } = Promise.withResolvers<void>();
    const { writeFiles } = disk;
    disk.writeFiles = async (files) => {
      await isBack;
      return writeFiles.call(disk, files);
    };
    await store.commit([put('a', `{"pad":"${'x'.repeat(20_000)}"}`)]);
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    try {
      let refusal: unknown;
      const late = store.commit([put('b', '{}')]).catch((error: unknown) => {
        refusal = error;
      });
      for (let turn = 0; turn < 50; turn++) await setImmediate();
      await vi.advanceTimersByTimeAsync(4_999);
      expect(refusal).toBeUndefined();
      await vi.advanceTimersByTimeAsync(1);
      await late;
      expect(refusal).toMatchObject({ code: 'overloaded', detail: 'too many documents wait for the disk' });
    } finally {
      vi.useRealTimers();
    }
    comeBack();
    await commitOne(store, put('c', '{}'));
    expect([await store.get(ref('b')), (await store.get(ref('a')))?.metadata._id]).toEqual([undefined, 'a']);
  });

  it('larger than a segment is kept whole', async () => {
    const { project, disk, store } = await started();
    const text = 'x'.repeat(SMALL_LIMITS.log.segmentBytes * 3);
    await store.commit([put('big', `{"a":"${text}"}`), put('small', '{}')]);
    const again = await project.open(disk.powerCut('synced only'));
    expect((await again.get(ref('big')))?.text.toString()).toContain(text);
  });

  it('a commit on a full disk is refused in time, while reads and deletes continue, and the store recovers by itself', async () => {
    const { project, disk, store } = await started();
    const ids: string[] = [];
    const fill = async () => {
      for (let n = 0; n < 100; n++) {
        const id = `d${ids.length}`;
        await store.commit([put(id, `{"pad":"${'x'.repeat(1_000)}"}`)]);
        ids.push(id);
      }
    };
    await commitOne(store, put('first', '{"v":1}'));
    disk.full = true;
    await expect(fill()).rejects.toMatchObject({ code: 'disk_full' });
    await expect(fill()).rejects.toMatchObject({ code: 'disk_full' });
    expect(store.failed).toBe(false);
    for (const id of ids) expect(await store.get(ref(id))).toBeDefined();
    await commitOne(store, remove('first'));
    expect(await store.get(ref('first'))).toBeUndefined();
    disk.full = false;
    await expect
      .poll(() =>
        fill().then(
          () => 'written',
          () => 'refused',
        ),
      )
      .toBe('written');
    await store.checkpoint();
    const again = await project.open(disk.powerCut('synced only'));
    for (const id of ids) expect(await again.get(ref(id))).toBeDefined();
    expect(await again.get(ref('first'))).toBeUndefined();
  });

  it('a commit whose write to the log fails is refused, and the store continues', async () => {
    for (const operation of [1, 2]) {
      const { project, disk, store } = await started();
      await commitOne(store, put('a', '{"v":1}'));
      await store.checkpoint();
      disk.failAt({ operation, when: 'after', what: 'storage_unavailable' });
      const refused = await store.commit([put('b', '{}')]).catch((error: unknown) => error);
      await commitOne(store, put('c', '{}'));
      expect(store.failed).toBe(false);
      const again = await project.open(disk.powerCut('everything'));
      expect(await again.get(ref('a'))).toBeDefined();
      expect(await again.get(ref('c'))).toBeDefined();
      expect((await again.get(ref('b'))) !== undefined, `operation ${operation}`).toBe(
        !(refused instanceof Error),
      );
    }
  });
});

describe('a fence', () => {
  it('a durable fence that cannot be published fails its store, which has the fence after its next opening', async () => {
    const cache = createSealedCache(1_000_000);
    const update = vi.spyOn(cache, 'update');
    const project = new ProjectInFiles();
    const disk = ProjectInFiles.disk();
    await project.create(disk);
    const store = await project.open(disk, cache);
    await commitOne(store, put('a', '{}'));
    const defect = new Error('a defect');
    update.mockImplementationOnce(() => {
      throw defect;
    });
    const refusal = { code: 'storage_unavailable' };
    await expect(store.commit([put('b', '{}')])).rejects.toMatchObject(refusal);
    expect(project.failures).toEqual([defect]);
    await expect(store.commit([put('c', '{}')])).rejects.toMatchObject(refusal);
    await store[Symbol.asyncDispose]();
    const again = await project.open(disk, cache);
    await commitOne(again, put('c', '{}'));
    for (const id of ['a', 'b', 'c']) expect(await again.get(ref(id))).toBeDefined();
  });

  it('waits for a commit whose frame is behind one that is answered meanwhile', async () => {
    const project = new ProjectInFiles();
    const disk = ProjectInFiles.disk();
    const log = holdLogWrites(disk);
    await project.create(disk);
    const store = await project.open(disk);
    await commitOne(store, put('first', '{}'));
    log.isHeld = true;
    const first = store.commit([put('a', '{}')]);
    await expect.poll(() => log.waiting).toBe(1);
    const second = store.commit([put('b', '{}')]);
    // It is taken for the next frame.
    for (let turn = 0; turn < 20; turn++) await setImmediate();
    log.releaseOne();
    await first;
    await expect.poll(() => log.waiting).toBe(1);
    let isFenced = false;
    const fence = store.fence().then((one) => {
      isFenced = true;
      return one;
    });
    for (let turn = 0; turn < 20; turn++) await setImmediate();
    expect(isFenced).toBe(false);
    log.releaseOne();
    await second;
    using _ = await fence;
    expect((await store.metadata()).lastSeq).toBe(3);
  });
});

describe('opening, writing and closing a store', () => {
  it('counts only a few more seals than it makes', async () => {
    const { project, disk, store } = await started();
    await store[Symbol.asyncDispose]();
    for (let cycle = 1; cycle <= 10; cycle++) {
      const next = await project.open(disk);
      await next.commit([put('a', `{"v":${cycle}}`)]);
      const [seals] = (await next.metadata()).seals;
      expect(seals?.count).toBeGreaterThanOrEqual(cycle);
      expect(seals?.count).toBeLessThanOrEqual(cycle * (256 + 1));
      await next[Symbol.asyncDispose]();
    }
  });
});
