import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { parseCatalogHead } from '@bundoc/shared/contract/catalog-head';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { afterAll, describe, expect, it, vi } from 'vitest';
import { EmbeddedProject } from '../../../testing/embedded-project.ts';
import { holdLogWrites } from '../../../testing/held-log-writes.ts';
import type { SimulatedDisk } from '../../../testing/simulated-disk.ts';
import { SlowSteps } from '../../../testing/slow-steps.ts';
import { SMALL_LIMITS } from '../../../testing/test-engine.ts';
import { commitOne, put, ref, remove } from '../../../testing/writes.ts';
import { describeProjectStore } from '../../conformance.ts';
import { COMMITS_WAITING_MAX, TOMBSTONE_TTL_MS } from '../../port.ts';
import { openNodeDisk } from '../disk/node-disk.ts';
import { createSealedCache } from '../documents/sealed-cache.ts';
import type { EmbeddedStore } from './embedded-store.ts';

const folders: string[] = [];
afterAll(() => {
  for (const folder of folders) rmSync(folder, { recursive: true });
});

for (const cacheBytes of [0, 1_000_000]) {
  describeProjectStore(`EmbeddedStore on a simulated disk, with ${cacheBytes} bytes of cache,`, async () => {
    const project = new EmbeddedProject();
    const disk = EmbeddedProject.disk();
    await project.create(disk);
    return {
      store: await project.open(disk, cacheBytes),
      reopen: () => project.open(disk.powerCut('synced only'), cacheBytes),
    };
  });
}

describeProjectStore('EmbeddedStore on the real disk', async () => {
  const dataDir = mkdtempSync(join(tmpdir(), 'bundoc-engine-'));
  folders.push(dataDir);
  const project = new EmbeddedProject({ directory: join(dataDir, 'p') });
  const disk = openNodeDisk(dataDir);
  await project.create(disk);
  return { store: await project.open(disk), reopen: () => project.open(disk) };
});

async function started(
  limits = SMALL_LIMITS,
): Promise<{ project: EmbeddedProject; disk: SimulatedDisk; store: EmbeddedStore }> {
  const project = new EmbeddedProject({ limits });
  const disk = EmbeddedProject.disk();
  await project.create(disk);
  return { project, disk, store: await project.open(disk) };
}

/** For what is large. */
const LARGE_LIMITS = {
  log: {
    segmentBytes: 2_097_152,
    segmentsMin: 4,
    segmentsMax: 16,
    frameBytes: 1_048_576,
    chunkBytes: 262_144,
  },
  checkpointBytes: 4_194_304,
};

const logFiles = (disk: SimulatedDisk) => [...disk.files().keys()].filter((path) => path.startsWith('/log/'));

const documentFiles = (disk: SimulatedDisk) =>
  [...disk.files().keys()].filter((path) => path.includes('/docs/'));

describe('a commit', () => {
  it('shares one sync with all that wait', async () => {
    const { disk, store } = await started();
    await commitOne(store, put('first', '{}'));
    const before = disk.trace.filter((line) => line.startsWith('fdatasync')).length;
    await Promise.all(Array.from({ length: 30 }, (_, n) => store.commit([put(`d${n}`, '{"a":1}')])));
    const syncs = disk.trace.filter((line) => line.startsWith('fdatasync')).length - before;
    expect(syncs).toBeLessThan(10);
  });

  it('shows nothing readable on the disk: neither ids nor collections nor members', async () => {
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

  it('that is large is sealed document by document, while others are served, and comes before what came later', async () => {
    const steps = new SlowSteps();
    const project = new EmbeddedProject({ limits: LARGE_LIMITS, ownWork: steps.own });
    const disk = EmbeddedProject.disk();
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

  it('that is being sealed is refused with those behind it when the store fails, and nothing waits for it', async () => {
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

  it('of the longest ids, escaped, with idempotency keys, is taken in parts as they were counted', async () => {
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

  it('is refused when documents have waited for the disk for 5 seconds, and not before', async () => {
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

  it('on a full disk is refused in time; reads and deletes go on, nothing is lost, and it recovers by itself', async () => {
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

  it('whose write to the log fails is refused for certain, and the store goes on', async () => {
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
  it('waits for a commit whose frame is behind one that is answered meanwhile', async () => {
    const project = new EmbeddedProject();
    const disk = EmbeddedProject.disk();
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
  it('costs few seals beyond those that it makes', async () => {
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

describe('what one process wrote and did not sync', () => {
  const crashes = (disk: SimulatedDisk, operation: number, when: 'before' | 'after' = 'before') =>
    disk.failAt({ operation, when, what: 'crash' });

  /**
   * Killed at each operation of a commit, a new process goes on from all that it finds, and then the power is
   * cut.
   */
  it.each(['before', 'after'] as const)(
    'is made durable by the next one before that builds on it (killed %s an operation)',
    async (when) => {
      for (let operation = 1; operation < 40; operation++) {
        const { project, disk, store } = await started();
        crashes(disk, operation, when);
        const write = commitOne(store, put('a', `{"v":1,"pad":"${'x'.repeat(9_000)}"}`));
        const first = await Promise.race([write, disk.crashes]).catch(() => undefined);
        const others = commitOne(store, put('b', '{"v":2}'))
          .then(() => store.checkpoint())
          .then(() => commitOne(store, remove('b')))
          .then(() => store.checkpoint());
        const deleted = await Promise.race([others, disk.crashes]).catch(() => undefined);
        if (!disk.crashed) break;
        const second = disk.restart();
        const next = await project.open(second);
        const before = await next.get(ref('a'));
        if (first !== undefined) expect(before?.metadata).toEqual(first.metadata);
        await commitOne(next, put('c', '{"v":3}'));
        const third = second.powerCut('synced only');
        const last = await project.open(third);
        expect((await last.get(ref('a')))?.metadata, `operation ${operation}`).toEqual(before?.metadata);
        expect((await last.get(ref('c')))?.text.toString()).toContain('"v":3');
        expect(deleted).toBeUndefined();
      }
    },
  );

  it('of a removed document file is made durable too: it does not come back', async () => {
    const { project, disk, store } = await started();
    await commitOne(store, put('a', '{}'));
    await store.checkpoint();
    await commitOne(store, remove('a'));
    await expect.poll(() => documentFiles(disk)).toEqual([]);
    const second = disk.restart();
    await (await project.open(second)).checkpoint();
    expect(documentFiles(second.powerCut('synced only'))).toEqual([]);
  });

  it('never outlives the folder of its documents, whichever new names a power cut takes', async () => {
    for (let survivor = 0; survivor < 8; survivor++) {
      const { project, disk, store } = await started();
      await store.checkpoint();
      await commitOne(store, put('a', '{}'));
      let isReplaced = false;
      disk.failing = (operation) => {
        if (isReplaced && operation === 'sync /p') return 'before';
        isReplaced ||= /^rename .* \/p\/catalog$/.test(operation);
        return undefined;
      };
      await expect(store.checkpoint()).rejects.toMatchObject({ code: 'storage_unavailable' });
      let change = 0;
      const again = await project.open(disk.powerCut({ random: () => (change++ === survivor ? 0 : 1) }));
      expect(await again.get(ref('a')), `name ${survivor} survives`).toBeDefined();
    }
  });

  it('of a document file whose sync failed is written again from the log', async () => {
    for (let operation = 1; operation < 12; operation++) {
      const { project, disk, store } = await started();
      await commitOne(store, put('a', '{"v":1}'));
      disk.failAt({ operation, when: 'before', what: 'storage_unavailable' });
      for (let n = 0; n < 3; n++) await store.checkpoint().catch(() => undefined);
      const again = await project.open(disk.powerCut('synced only'));
      expect((await again.get(ref('a')))?.text.toString(), `operation ${operation}`).toContain('"v":1');
    }
  });

  it('is never taken for durable after a sync that failed', async () => {
    for (let operation = 1; operation < 30; operation++) {
      const { project, disk, store } = await started();
      disk.failAt({ operation, when: 'before', what: 'storage_unavailable' });
      const acknowledged: string[] = [];
      for (const id of ['a', 'b', 'c']) {
        await commitOne(store, put(id, `{"pad":"${'x'.repeat(3_000)}"}`))
          .then(() => acknowledged.push(id))
          .catch(() => undefined);
      }
      await store.checkpoint().catch(() => undefined);
      await store[Symbol.asyncDispose]();
      disk.failAt();
      const again = await project.open(disk);
      await commitOne(again, put('d', '{}'));
      const last = await project.open(disk.powerCut('synced only'));
      for (const id of [...acknowledged, 'd'])
        expect(await last.get(ref(id)), `operation ${operation}: ${id}`).toBeDefined();
    }
  });
});

describe('a cache that outlives the store', () => {
  it('never makes a commit whose sync failed, and which is found again, an integrity error', async () => {
    for (let operation = 1; operation < 8; operation++) {
      const { project, disk, store: first } = await started();
      await first[Symbol.asyncDispose]();
      const cache = createSealedCache(1_000_000);
      const store = await project.open(disk, cache);
      await commitOne(store, put('a', '{"v":1}'));
      await store.checkpoint();
      disk.failAt({ operation, when: 'before', what: 'storage_unavailable' });
      await commitOne(store, put('a', '{"v":2}')).catch(() => undefined);
      await store[Symbol.asyncDispose]();
      const again = await project.open(disk.restart(), cache);
      await again.checkpoint();
      expect(await again.get(ref('a')), `operation ${operation}`).toBeDefined();
      expect(project.damaged).toEqual([]);
    }
  });
});

describe('on a full disk', () => {
  it.each(['before', 'after'] as const)(
    'a write without space, though that was taken before, loses nothing (%s)',
    async (when) => {
      for (let operation = 1; operation < 12; operation++) {
        const { project, disk, store } = await started();
        disk.failAt({ operation, when, what: 'disk_full' });
        const acknowledged: string[] = [];
        for (const id of ['a', 'b', 'c']) {
          await commitOne(store, put(id, '{}'))
            .then(() => acknowledged.push(id))
            .catch(() => undefined);
        }
        for (const survival of ['synced only', 'everything'] as const) {
          const again = await project.open(disk.powerCut(survival));
          for (const id of acknowledged)
            expect(await again.get(ref(id)), `operation ${operation}: ${id}`).toBeDefined();
        }
      }
    },
  );

  const full = async () => {
    const { project, disk, store } = await started();
    for (let n = 0; n < 40; n++) await commitOne(store, put(`d${n}`, '{}'));
    disk.full = true;
    const fill = async () => {
      for (let n = 0; n < 100; n++) await commitOne(store, put('other', `{"pad":"${'x'.repeat(200)}"}`));
    };
    await expect(fill()).rejects.toMatchObject({ code: 'disk_full' });
    return { project, disk, store, fill };
  };

  it('a delete that shares its frame with a put goes on without it', async () => {
    const { store } = await full();
    const [refused, removed, absent] = await Promise.allSettled([
      store.commit([put('new', '{}')]),
      store.commit([remove('d1')]),
      store.commit([remove('none')]),
    ]);
    expect(refused).toMatchObject({ reason: { code: 'disk_full' } });
    expect(removed).toMatchObject({ status: 'fulfilled' });
    expect(absent).toMatchObject({ reason: { code: 'document_not_found' } });
    expect(await store.get(ref('d1'))).toBeUndefined();
  });

  it('the reserve is left to deletes, however many writers try', async () => {
    const { project, disk, store, fill } = await full();
    for (let n = 0; n < 6; n++) {
      await commitOne(store, remove(`d${n}`));
      await expect(fill()).rejects.toMatchObject({ code: 'disk_full' });
      await store.checkpoint().catch(() => undefined);
    }
    disk.full = false;
    await expect
      .poll(() =>
        fill().then(
          () => 'written',
          () => 'refused',
        ),
      )
      .toBe('written');
    const again = await project.open(disk.powerCut('synced only'));
    for (let n = 0; n < 40; n++) expect((await again.get(ref(`d${n}`))) !== undefined, `d${n}`).toBe(n >= 6);
  });
});

describe('the log', () => {
  it('is used again after checkpoints and does not grow', async () => {
    const { disk, store } = await started();
    for (let n = 0; n < 3_000; n++)
      await commitOne(store, put(`d${n % 20}`, `{"n":${n},"pad":"${'x'.repeat(300)}"}`));
    await store.checkpoint();
    const bytes = logFiles(disk).reduce((sum, path) => sum + (disk.files().get(path)?.length ?? 0), 0);
    expect(bytes).toBeLessThanOrEqual(SMALL_LIMITS.log.segmentsMax * SMALL_LIMITS.log.segmentBytes);
  });

  it('is checkpointed while commits go on without a pause', async () => {
    const { disk, store } = await started();
    await commitOne(store, put('a', '{}'));
    let done = false;
    const checkpoint = store.checkpoint().then(() => {
      done = true;
    });
    for (let n = 0; !done; n++) await commitOne(store, put(`d${n % 7}`, `{"n":${n}}`));
    await checkpoint;
    expect(disk.trace.some((line) => line.endsWith(' /p/catalog'))).toBe(true);
  });

  it('that lost a part of the project keeps it from being opened, and the cause says which', async () => {
    const { project, disk, store } = await started();
    for (let n = 0; n < 3; n++) await commitOne(store, put(`d${n}`, '{}'));
    await store[Symbol.asyncDispose]();
    const next = disk.powerCut('everything');
    for (const path of logFiles(next)) {
      const bytes = Buffer.from(next.files().get(path)!);
      // In the frame of the second commit; each begins at a page.
      const at = bytes.length > 5 * 4_096 ? bytes.indexOf('BLF1', 3 * 4_096) : -1;
      if (at === -1) continue;
      bytes[at + 260]! ^= 1;
      next.tamper(path, bytes);
    }
    const refused = await project.open(next).catch((error: unknown) => error);
    expect(refused).toMatchObject({ code: 'project_damaged' });
    expect(String((refused as Error).cause)).toMatch(/segment \d, frame \d of the log: a part/);
  });
});

describe('a snapshot that is taken while commits go on', () => {
  const DOCUMENTS = 9_600;
  const idOf = (n: number) => `${n}-${'long'.repeat(60)}`;
  const limits = { log: { ...SMALL_LIMITS.log, segmentsMax: 64 }, checkpointBytes: 1e9 };

  /** @param end when the process dies: at this line of the disk's trace, or after the checkpoint. */
  async function history(end: { line: RegExp; when: 'before' | 'after' } | undefined) {
    const { own: ownWork } = new SlowSteps();
    const project = new EmbeddedProject({ limits, backlogBytesMax: 1e9, ownWork });
    const disk = EmbeddedProject.disk();
    await project.create(disk);
    const store = await project.open(disk);
    const model = new Map<string, string | undefined>();
    for (let from = 0; from < DOCUMENTS; from += 400) {
      const batch = Array.from({ length: 400 }, (_, n) => put(idOf(from + n), '{"v":0}'));
      const results = await store.commit(batch);
      for (const [n, { metadata }] of results.entries()) model.set(idOf(from + n), metadata?._rev);
    }
    // So that the one below is not one that is under way already.
    await store.checkpoint();
    const [changed] = await store.commit([put(idOf(0), '{"v":0}')]);
    model.set(idOf(0), changed?.metadata?._rev);
    if (end !== undefined) disk.failAtLine(end.line, end.when);
    let running = true;
    let commits = 0;
    const checkpoint = store
      .checkpoint()
      .catch(() => undefined)
      .finally(() => {
        running = false;
      });
    const used: { key: string; request: string }[] = [];
    while (running && !disk.crashed) {
      const n = commits++;
      if (n % 8 === 0) await setImmediate();
      // Near both ends of the catalog, so that some were walked over already and some not yet.
      const at = n % 2 === 0 ? n % 50 : DOCUMENTS - 1 - (n % 50);
      const id = n % 5 === 4 ? `new-${n}` : idOf(at);
      const isDelete = n % 3 === 1 && model.get(id) !== undefined;
      const idempotency = { key: n.toString(16).padStart(32, '0'), request: 'a'.repeat(32) };
      try {
        const write = isDelete ? remove(id) : put(id, `{"v":${n}}`);
        const [result] = await Promise.race([store.commit([write], { idempotency }), disk.crashes]);
        model.set(id, result?.metadata?._rev);
        used.push(idempotency);
      } catch (error) {
        if (!disk.crashed) throw error;
      }
    }
    await Promise.race([checkpoint, disk.crashes]).catch(() => undefined);
    expect(commits).toBeGreaterThan(5);
    return { project, disk, model, used };
  }

  it.each([
    ['when it is durable', undefined],
    ['before it is named', { line: /^rename .* \/p\/catalog$/, when: 'before' }],
    ['when it is named, and its name not durable', { line: /^rename .* \/p\/catalog$/, when: 'after' }],
    ['before it is written', { line: /^create \/tmp/, when: 'before' }],
  ] as const)('and the log behind it are the whole state after a power cut %s', async (_name, end) => {
    const { project, disk, model, used } = await history(end);
    for (const survival of ['synced only', 'everything'] as const) {
      const again = await project.open(disk.powerCut(survival));
      const { changes } = await again.changes(0, 1_000_000);
      const found = new Map(changes.map(({ ref: { id }, rev, deleted }) => [id, deleted ? undefined : rev]));
      // Every one but the last, whose answer may not have come.
      let different = 0;
      for (const [id, rev] of model) if (found.get(id) !== rev) different++;
      expect(different).toBeLessThanOrEqual(end === undefined ? 0 : 1);
      expect((await again.get(ref(idOf(DOCUMENTS / 2))))?.metadata._rev).toBe(model.get(idOf(DOCUMENTS / 2)));
      for (const idempotency of used.slice(-5)) {
        const repeated = again.commit([put('none', '{}')], {
          idempotency: { ...idempotency, request: 'b'.repeat(32) },
        });
        await expect(repeated).rejects.toMatchObject({ code: 'idempotency_mismatch' });
      }
    }
  });
});

it('leftover temporary files are removed at the next start', async () => {
  const { project, disk, store } = await started();
  await store[Symbol.asyncDispose]();
  await disk.createFile('/tmp/0123', Buffer.from('half a catalog'));
  const next = disk.restart();
  await project.open(next);
  expect([...next.files().keys()].filter((path) => path.startsWith('/tmp/'))).toEqual([]);
});

describe('the cache', () => {
  it('has the latest bytes of a document, and none of a deleted one', async () => {
    const { project, disk, store: first } = await started();
    await first[Symbol.asyncDispose]();
    const cache = createSealedCache(1_000_000);
    const store = await project.open(disk, cache);
    const name = project.cipher.fileName(ref('a'));
    for (const v of [1, 2]) {
      await commitOne(store, put('a', `{"v":${v}}`));
      // Written, so that no pending write answers in its place.
      await store.checkpoint();
      expect((await store.get(ref('a')))?.text.toString()).toContain(`"v":${v}`);
    }
    expect(cache.get('p', name)).toBeDefined();
    await commitOne(store, remove('a'));
    expect(cache.get('p', name)).toBeUndefined();
  });

  it('takes in a document that is read before its file is written, and no document that is only written', async () => {
    const { project, disk, store: first } = await started();
    await first[Symbol.asyncDispose]();
    const cache = createSealedCache(1_000_000);
    const store = await project.open(disk, cache);
    const [read, written] = ['a', 'b'].map((id) => project.cipher.fileName(ref(id)));
    await store.commit([put('a', '{"v":1}'), put('b', '{"v":1}')]);
    // In the turn of its commit, none of its files can have been written.
    expect(store.getSync(ref('a'))?.text.toString()).toContain('"v":1');
    const kept = cache.get('p', read as string);
    expect(kept?.buffer.byteLength).toBe(kept?.length);
    expect(cache.get('p', written as string)).toBeUndefined();
    await commitOne(store, put('a', '{"v":2}'));
    expect(store.getSync(ref('a'))?.text.toString()).toContain('"v":2');
    await store.checkpoint();
    expect((await store.get(ref('a')))?.text.toString()).toContain('"v":2');
  });

  it('that has older bytes than the disk does not keep a document from being read', async () => {
    const { project, disk, store: first } = await started();
    await first[Symbol.asyncDispose]();
    const cache = createSealedCache(1_000_000);
    const store = await project.open(disk, cache);
    const name = project.cipher.fileName(ref('a'));
    await commitOne(store, put('a', '{"v":1}'));
    await store.get(ref('a'));
    const older = cache.get('p', name) as Buffer;
    await commitOne(store, put('a', '{"v":2}'));
    for (const step of ['before', 'after']) {
      cache.set('p', name, older);
      expect((await store.get(ref('a')))?.text.toString(), step).toContain('"v":2');
      await store.checkpoint();
    }
  });
});

describe('an idempotency key', () => {
  it('is remembered by the snapshot when its part of the log is gone', async () => {
    const { project, disk, store } = await started();
    const idempotency = { key: 'a'.repeat(32), request: 'b'.repeat(32) };
    const first = await store.commit([put('a', '{}')], { idempotency });
    await store.checkpoint();
    const again = await project.open(disk.powerCut('synced only'));
    expect(await again.commit([put('a', '{}')], { idempotency })).toEqual(first);
  });
});

describe('the catalog', () => {
  it.each([
    ['missing', () => undefined],
    ['cut short', (bytes: Buffer) => bytes.subarray(0, -5)],
    ['changed', (bytes: Buffer) => Buffer.from(bytes.map((byte, at) => (at === 60 ? byte ^ 1 : byte)))],
    ['empty', () => Buffer.alloc(0)],
  ])('%s is damage, and never a fresh start', async (_name, change) => {
    const { project, disk, store } = await started();
    await commitOne(store, put('a', '{}'));
    await store.checkpoint();
    await store[Symbol.asyncDispose]();
    disk.tamper('/p/catalog', change(disk.files().get('/p/catalog')!));
    await expect(project.open(disk)).rejects.toMatchObject({ code: 'project_damaged' });
  });

  it('that ends at a chunk before its last one is damage', async () => {
    const { project, disk, store } = await started();
    await commitOne(store, put('a', '{}'));
    await store.checkpoint();
    const bytes = disk.files().get('/p/catalog')!;
    const first = parseCatalogHead(bytes)!.end;
    disk.tamper('/p/catalog', bytes.subarray(0, first + 4 + bytes.readUInt32BE(first)));
    await expect(project.open(disk)).rejects.toMatchObject({ code: 'project_damaged' });
  });

  it('never counts back, even if the last change was a deletion that is forgotten', async () => {
    const clock = new FakeClock();
    const project = new EmbeddedProject({ clock });
    const disk = EmbeddedProject.disk();
    await project.create(disk);
    const store = await project.open(disk);
    await commitOne(store, put('a', '{}'));
    await commitOne(store, remove('a'));
    const { position } = await store.changes(0, 10);
    clock.advance(TOMBSTONE_TTL_MS + 1);
    await store.checkpoint();
    const again = await project.open(disk.powerCut('synced only'));
    await commitOne(again, put('b', '{}'));
    expect((await again.changes(position, 10)).changes.map(({ ref: { id } }) => id)).toEqual(['b']);
  });

  it('forgets deletions after seven days, and refuses positions from before them', async () => {
    const clock = new FakeClock();
    const project = new EmbeddedProject({ clock });
    const disk = EmbeddedProject.disk();
    await project.create(disk);
    const store = await project.open(disk);
    await commitOne(store, put('a', '{}'));
    const { position } = await store.changes(0, 10);
    await commitOne(store, put('b', '{}'));
    await commitOne(store, remove('b'));
    clock.advance(TOMBSTONE_TTL_MS - 1);
    await store.checkpoint();
    expect((await store.changes(position, 10)).changes).toHaveLength(1);
    clock.advance(2);
    await store.checkpoint();
    await expect(store.changes(position, 10)).rejects.toMatchObject({ code: 'position_gone' });
    expect((await store.changes(0, 10)).changes.map(({ ref: { id } }) => id)).toEqual(['a']);
    await store[Symbol.asyncDispose]();
    const again = await project.open(disk.powerCut('synced only'));
    await expect(again.changes(position, 10)).rejects.toMatchObject({ code: 'position_gone' });
  });
});

describe('a feed that is begun after deletions were forgotten', () => {
  it('is read page by page to its end, and refused only when more is forgotten meanwhile', async () => {
    const clock = new FakeClock();
    const project = new EmbeddedProject({ clock });
    const disk = EmbeddedProject.disk();
    await project.create(disk);
    const store = await project.open(disk);
    for (const id of ['a', 'b', 'c', 'gone']) await commitOne(store, put(id, '{}'));
    await commitOne(store, remove('gone'));
    clock.advance(TOMBSTONE_TTL_MS + 1);
    await store.checkpoint();
    const first = await store.changes(0, 1);
    const second = await store.changes(first.position, 1, first.horizon);
    expect([first, second].flatMap(({ changes }) => changes.map(({ ref: { id } }) => id))).toEqual([
      'a',
      'b',
    ]);
    await commitOne(store, remove('a'));
    clock.advance(TOMBSTONE_TTL_MS + 1);
    await store.checkpoint();
    await expect(store.changes(second.position, 1, second.horizon)).rejects.toMatchObject({
      code: 'position_gone',
    });
  });
});

describe('a document file', () => {
  const pathOf = (project: EmbeddedProject, id: string) => {
    const name = project.cipher.fileName(ref(id));
    return `/p/docs/${name}`;
  };
  const checkpointed = async () => {
    const { project, disk, store } = await started();
    await commitOne(store, put('a', '{"v":"old"}'));
    await store.checkpoint();
    const old = Buffer.from(disk.files().get(pathOf(project, 'a'))!);
    await commitOne(store, put('a', '{"v":"new"}'));
    await commitOne(store, put('b', '{"v":"fine"}'));
    await store.checkpoint();
    return { project, disk, store, old };
  };

  it.each([
    ['changed', (bytes: Buffer) => Buffer.from(bytes.map((byte, at) => (at === 30 ? byte ^ 1 : byte)))],
    ['cut short', (bytes: Buffer) => bytes.subarray(0, -1)],
    ['missing', () => undefined],
  ])('%s is an integrity error of that document alone', async (_name, change) => {
    const { project, disk, store } = await checkpointed();
    const path = pathOf(project, 'a');
    disk.tamper(path, change(disk.files().get(path)!));
    await expect(store.get(ref('a'))).rejects.toMatchObject({ code: 'integrity_error' });
    expect(project.damaged).toEqual([project.cipher.fileName(ref('a'))]);
    expect((await store.get(ref('b')))?.text.toString()).toContain('fine');
  });

  it('that is damaged does not keep the others from being listed', async () => {
    const { project, disk, store } = await checkpointed();
    disk.tamper(pathOf(project, 'a'), Buffer.from('x'));
    const page = await store.list({ collection: 'notes', after: 0, limit: 10, bytesMax: 1_000_000 });
    expect(page.documents.map(({ metadata }) => metadata._id)).toEqual(['b']);
    expect(page.unreadable).toEqual(['a']);
  });

  it('of an older revision put back is an integrity error', async () => {
    const { project, disk, store, old } = await checkpointed();
    disk.tamper(pathOf(project, 'a'), old);
    await expect(store.get(ref('a'))).rejects.toMatchObject({ code: 'integrity_error' });
  });

  it('that is damaged can be replaced and deleted', async () => {
    const { project, disk, store } = await checkpointed();
    disk.tamper(pathOf(project, 'a'), Buffer.from('x'));
    disk.tamper(pathOf(project, 'b'), Buffer.from('x'));
    await commitOne(store, put('a', '{"v":"newer"}'));
    expect((await store.get(ref('a')))?.text.toString()).toContain('newer');
    await commitOne(store, remove('b'));
    expect(await store.get(ref('b'))).toBeUndefined();
  });
});

describe('the seal budget', () => {
  const sealLimits = { reserve: 10, rotateAt: 30, max: 50 };
  const budgeted = async () => {
    const project = new EmbeddedProject({ sealLimits });
    const disk = EmbeddedProject.disk();
    await project.create(disk);
    return { project, disk, store: await project.open(disk) };
  };
  const writeUntilRefused = async (store: EmbeddedStore) => {
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

  it('asks for a rotation in time, and refuses the seal beyond the last: key_exhausted', async () => {
    const { project, store } = await budgeted();
    expect(await writeUntilRefused(store)).toBe(sealLimits.max);
    expect(project.rotationsDue.length).toBeGreaterThan(0);
    expect(await store.get(ref('d0'))).toBeDefined();
    await commitOne(store, remove('d0'));
  });

  it('is exact over closing, and forgets no seal over crashes', async () => {
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
  const check = async (store: EmbeddedStore) => {
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

  it('re-sealing takes no more into one frame than can be read again, however large the documents', async () => {
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

  it('re-sealing goes on where a crash cut it short, and never undoes a write that came between', async () => {
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
});
