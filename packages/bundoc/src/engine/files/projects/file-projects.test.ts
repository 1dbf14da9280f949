import { randomUUID } from 'node:crypto';
import type { ProjectFile } from '@bundoc/shared/contract/project-file';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { describe, expect, it, vi } from 'vitest';
import { KeyCache } from '../../../crypto/key-cache.ts';
import { FakeKeyService } from '../../../testing/fake-key-service.ts';
import { SimulatedDisk } from '../../../testing/simulated-disk.ts';
import type { Survival } from '../../../testing/simulated-file.ts';
import { engineOn, openTestStore } from '../../../testing/test-engine.ts';
import { put, ref } from '../../../testing/writes.ts';
import type { MarkSetAside } from '../../moves/set-aside.ts';
import { limitsAfter, SEAL_LIMITS, SealBudget } from '../../port/seal-budget.ts';
import { formatProjectFile, unknownSealers } from '../../projects/project-file.ts';
import type { FileStore } from '../store/file-store.ts';
import { FileProjects } from './file-projects.ts';

type Entry = ProjectFile['versions'][number];

const ROOT = '/projects';
const FILE = `${ROOT}/p/project.json`;

function start(disk = new SimulatedDisk('/', ROOT), service?: FakeKeyService) {
  const clock = new FakeClock();
  const keyService = service ?? new FakeKeyService(clock);
  const keys = new KeyCache({ keys: keyService.held, clock, ttlMs: 900_000 });
  const setAside: MarkSetAside[] = [];
  const lost = new Set<string>();
  const folders = new FileProjects({
    disk,
    directory: ROOT,
    keys,
    clock,
    storage: keyService.storage,
    setAside: '/set-aside',
    settle: async () => undefined,
    onSetAside: (mark) => setAside.push(mark),
    tmp: '/tmp',
    isLost: (project) => lost.has(project),
    engine: {
      create: async (...args) => (await engineOn(disk, { clock })).create(...args),
      forget: async (...args) => (await engineOn(disk, { clock })).forget(...args),
      newest: () => undefined,
    },
  });
  /** Opens or creates the project and writes a document. */
  let store: FileStore | undefined;
  const write = async (id: string, json: string) => {
    await store?.[Symbol.asyncDispose]();
    store = undefined;
    const opened = await folders.openOrCreate('p');
    store = await openTestStore('p', opened.directory, disk, opened, clock);
    await store.commit([put(id, json)]);
    return store;
  };
  return { clock, disk, service: keyService, keys, folders, write, setAside, lost };
}

describe('a lost project', () => {
  it('is refused for every use while the storage has nothing of it, without a request to BunKMS', async () => {
    const { disk, folders, service, lost, write } = start();
    lost.add('p');
    service.put('p-dek', service.acting.storage);
    const refused = { code: 'project_damaged', detail: expect.stringContaining('bundoc accept-loss') };
    for (const what of [folders.open('p'), folders.openOrCreate('p'), folders.exists('p')])
      await expect(what).rejects.toMatchObject(refused);
    expect([await folders.open('q'), service.exports, service.creations]).toEqual([undefined, 0, 0]);
    // An interrupted creation left this.
    await disk.makeDirectory(`${ROOT}/p`);
    await disk.makeDirectory(`${ROOT}/p/docs`);
    await expect(folders.openOrCreate('p')).rejects.toMatchObject(refused);
    lost.delete('p');
    await write('a', '{}');
    // A mark of a project that is there has no effect.
    lost.add('p');
    expect([(await folders.open('p')) !== undefined, await folders.exists('p')]).toEqual([true, true]);
  });
});

describe('the key of a project', () => {
  const OTHER = randomUUID();

  it('is neither used nor created when another storage holds it: the refusal names that storage, and nothing is written', async () => {
    const { disk, folders, service, write } = start();
    service.put('p-dek', OTHER);
    const refused = { code: 'project_elsewhere', storage: OTHER };
    await expect(write('a', '{}')).rejects.toMatchObject(refused);
    expect([service.changes, await disk.list(ROOT)]).toEqual([[], []]);
    service.takeOverKey('p-dek', service.acting.storage);
    await start(disk, service).write('a', '{}');
    service.takeOverKey('p-dek', OTHER);
    for (const mode of ['open', 'openOrCreate'] as const)
      await expect(start(disk, service).folders[mode]('p')).rejects.toMatchObject(refused);
    expect(await folders.exists('p')).toBe(true);
  });

  it('is claimed if it has no holder and the storage has no content, but not for existing content', async () => {
    const { disk, service, write } = start();
    service.put('p-dek', null);
    expect(await start(disk, service).folders.open('p')).toBeUndefined();
    expect(service.changes).toEqual([]);
    await write('a', '{}');
    expect(service.changes).toEqual([{ kind: 'claim', name: 'p-dek' }]);
    service.standings.get('p-dek')!.holder = undefined;
    for (const mode of ['open', 'openOrCreate'] as const)
      await expect(start(disk, service).folders[mode]('p')).rejects.toMatchObject({
        code: 'project_unclaimed',
      });
    expect(service.changes).toHaveLength(1);
  });

  it('belongs to the storage that claims it first', async () => {
    const { disk, service, write } = start();
    service.put('p-dek', null);
    const { claimKey } = service;
    service.claimKey = async (name, acting) => {
      service.takeOverKey(name, OTHER);
      return claimKey.call(service, name, acting);
    };
    await expect(write('a', '{}')).rejects.toMatchObject({ code: 'project_elsewhere', storage: OTHER });
    expect(await disk.list(ROOT)).toEqual([]);
  });

  it('reports a running deletion while it is about to be destroyed', async () => {
    const { disk, service, write } = start();
    await write('a', '{}');
    await service.held.intendDeletion('p-dek', '');
    await expect(start(disk, service).write('b', '{}')).rejects.toMatchObject({ code: 'project_deleting' });
  });
});

describe('a storage after a take-over', () => {
  it('counts the possible seals of its copies against each key version until the key is rotated', async () => {
    const { disk, service, folders } = start();
    const { file } = await folders.openOrCreate('p');
    const after = (takenOverMs: number) => ({ ...service.storage, takenOverMs });
    const takenOver = (...of: Parameters<typeof unknownSealers>) => unknownSealers(...of).takenOver;
    expect([0, 1, 3].map((ms) => takenOver(file, 1, after(ms)))).toEqual([false, true, true]);
    // The version is of another storage.
    expect(takenOver(file, 1, { id: randomUUID(), takenOverMs: 2 })).toBe(true);
    service.storage.takenOverMs = 3;
    await service.rotateKey('p-dek', 1);
    const rotated = await start(disk, service).folders.open('p');
    expect([1, 2].map((version) => takenOver(rotated!.file, version, after(3)))).toEqual([true, false]);
    expect(takenOver(rotated!.file, 2, after(4))).toBe(true);
    const kept = await folders.keepWrappings('p', rotated!.file, [{ ...rotated!.keys[0], wrapped: 'bmV3' }]);
    expect(takenOver(kept, 2, after(3))).toBe(false);
  });

  it('counts the seals of a key that existed before the project, too', async () => {
    const { service, folders } = start();
    service.put('p-dek');
    const { file } = await folders.openOrCreate('p');
    expect(unknownSealers(file, 1, service.storage)).toEqual({ takenOver: false, missing: true });
    service.put('q-dek', null);
    for (const project of ['q', 'r'])
      expect(unknownSealers((await folders.openOrCreate(project)).file, 1, service.storage)).toEqual({
        takenOver: false,
        missing: false,
      });
  });

  it.each([
    ['adds that the key was adopted', (entry: Entry): Entry => ({ ...entry, adopted: true })],
    ['adds take-overs', (entry: Entry): Entry => ({ ...entry, takenOver: { storage: randomUUID(), ms: 7 } })],
  ])('does not rotate a key because someone %s in the file', async (_what, edit) => {
    const { disk, service, folders } = start();
    const { file } = await folders.openOrCreate('p');
    const edited = { ...file, versions: file.versions.map(edit) };
    await disk.remove(FILE);
    await disk.createFile(FILE, formatProjectFile(edited));
    await expect(start(disk, service).folders.open('p')).rejects.toMatchObject({ code: 'project_damaged' });
  });

  it('rotates a key at its next seals, and never runs out of seals', () => {
    for (const missing of [false, true]) {
      const limits = limitsAfter(SEAL_LIMITS, { takenOver: true, missing });
      expect(limits.max).toBe(2 ** 30 + 2 ** 20);
      // The last one is that of a restored project.
      for (const count of [0, 100, 2 ** 30]) {
        const budget = new SealBudget(limits, 1, [{ version: 1, count }]);
        expect(budget.rotationDue).toBe(true);
        expect(() => budget.planFor(1_000)).not.toThrow();
      }
    }
    expect(limitsAfter(SEAL_LIMITS, { takenOver: false, missing: false })).toEqual(SEAL_LIMITS);
  });

  it('allows a key whose project was missing fewer seals, without an early rotation', () => {
    const limits = limitsAfter(SEAL_LIMITS, { takenOver: false, missing: true });
    expect(limits).toEqual({ ...SEAL_LIMITS, max: 2 ** 32 - 2 ** 30 });
    const dueAfter = (count: number) => new SealBudget(limits, 1, [{ version: 1, count }]).rotationDue;
    expect([0, 2 ** 30 - 1, 2 ** 30].map(dueAfter)).toEqual([false, false, true]);
  });
});

describe('creating a project', () => {
  it('leaves a folder whose only readable content is project.json, without any secret', async () => {
    const { disk, service, write } = start();
    await write('a', '{"planted":"secret words"}');
    const file = JSON.parse(String(disk.files().get(FILE)));
    expect(Object.keys(file)).toEqual(['format', 'project', 'createdAt', 'key', 'versions', 'nameKey']);
    const everything = Buffer.concat(
      [...disk.files()].flatMap(([path, bytes]) => [Buffer.from(path), bytes]),
    );
    const dek = service.keys.get('p-dek')!.dek.export();
    for (const needle of [
      'planted',
      'secret words',
      'notes',
      dek,
      dek.toString('hex'),
      dek.toString('base64'),
    ])
      expect(everything.includes(needle)).toBe(false);
  });

  it('requests no key and creates no folder when the project is only looked up', async () => {
    const { clock, disk, service, folders } = start();
    const engine = await engineOn(disk, { clock });
    const { operations } = disk;
    expect(await folders.open('p')).toBeUndefined();
    expect([service.exports, disk.operations, engine.stats.frames]).toEqual([0, operations, 0]);
  });

  it('restarts under the same key after a crash at any step, and loses no acknowledged document', async () => {
    const whole = start();
    await whole.write('a', '{"v":1}');
    expect(whole.disk.operations).toBeGreaterThan(8);
    let seed = 11;
    const random = () => {
      seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648;
      return seed / 2_147_483_648;
    };
    const survivals: Survival[] = [
      'synced only',
      'everything',
      { random },
      { random },
      { random },
      { random },
    ];
    for (let operation = 1; operation <= whole.disk.operations; operation++) {
      for (const when of ['before', 'after'] as const) {
        for (const survival of survivals) {
          const before = start();
          before.disk.failAt({ operation, when, what: 'crash' });
          // Pending operations of a dead process never settle.
          const acknowledged = await Promise.race([before.write('a', '{"v":1}'), before.disk.crashes]).then(
            () => true,
            () => false,
          );
          const after = start(before.disk.powerCut(survival), before.service);
          const store = await after.write('b', '{"v":2}');
          const label = `crash ${when} operation ${operation} (${whole.disk.trace[operation - 1]})`;
          expect(before.service.keys.size, label).toBe(1);
          expect((await store.get(ref('b')))?.text.toString(), label).toContain('"v":2');
          if (acknowledged) expect((await store.get(ref('a')))?.text.toString(), label).toContain('"v":1');
        }
      }
    }
  });

  it('adopts the key after a crash between minting and using it', async () => {
    const first = start();
    first.service.put('p-dek');
    const [minted] = first.service.keys.values();
    const { file } = await first.folders.openOrCreate('p');
    expect(first.service.keys.size).toBe(1);
    expect(file.key.id).toBe(minted?.keyId);
    // Earlier seals under it are unknown.
    expect(file.versions).toEqual([expect.objectContaining({ adopted: true })]);
  });

  it('requests a new key and its export, and nothing else', async () => {
    const { service, folders } = start();
    const { file } = await folders.openOrCreate('p');
    expect([service.creations, service.exports]).toEqual([1, 1]);
    expect(file.versions).toEqual([expect.not.objectContaining({ adopted: true })]);
  });

  it('ends with one key when another node does the same', async () => {
    const { service, write } = start();
    service.beforeCreate = (name) => service.put(name);
    await write('a', '{"v":1}');
    expect(service.keys.size).toBe(1);
    expect(service.exports).toBe(1);
  });

  it('leaves nothing behind on a full disk that prevents a later creation', async () => {
    const whole = start();
    await whole.write('a', '{}');
    for (let operation = 1; operation <= whole.disk.operations; operation++) {
      const { disk, write } = start();
      disk.failAt({ operation, when: 'before', what: 'disk_full' });
      // Once the log has the document, the write is acknowledged, and its file follows when there is space.
      const outcome: unknown = await write('a', '{}').catch((error: unknown) => error);
      if (outcome instanceof Error)
        expect(outcome).toMatchObject({ code: expect.stringMatching(/disk_full|storage_unavailable/) });
      // Free space is noticed within half a second.
      const store = await vi.waitFor(() => write('a', '{}'), { timeout: 2_000 });
      expect(await store.get(ref('a'))).toBeDefined();
    }
  });
});

describe('opening a project', () => {
  it('fails with key_missing, and never creates a new key, when its key is gone', async () => {
    const { clock, service, folders, write } = start();
    await write('a', '{}');
    service.keys.delete('p-dek');
    clock.advance(900_000);
    await expect(folders.open('p')).rejects.toMatchObject({ code: 'key_missing' });
    await expect(write('b', '{}')).rejects.toMatchObject({ code: 'key_missing' });
    expect(service.creations).toBe(1);
  });

  it('fails with key_mismatch when the key service has another key under its name', async () => {
    const { clock, disk, service, write } = start();
    await write('a', '{}');
    const before = String(disk.files().get(FILE));
    const { keyId } = service.keys.get('p-dek')!;
    const other = service.put('p-dek');
    clock.advance(900_000);
    await expect(write('b', '{}')).rejects.toMatchObject({ code: 'key_mismatch' });
    service.keys.set('p-dek', { ...other, keyId });
    clock.advance(900_000);
    await expect(write('b', '{}')).rejects.toMatchObject({ code: 'key_mismatch' });
    expect(String(disk.files().get(FILE))).toBe(before);
  });

  it('fails with project_damaged, without requesting a key, when it has content but no project.json', async () => {
    const { disk, service, folders, write } = start();
    await write('a', '{}');
    const exportsBefore = service.exports;
    const stripped = new SimulatedDisk('/', ROOT, `${ROOT}/p`, `${ROOT}/p/docs`, `${ROOT}/p/docs/ab`);
    const damaged = start(stripped, service);
    await engineOn(stripped);
    const { operations } = stripped;
    await expect(damaged.folders.open('p')).rejects.toMatchObject({ code: 'project_damaged' });
    await expect(damaged.folders.openOrCreate('p')).rejects.toMatchObject({ code: 'project_damaged' });
    expect(service.exports).toBe(exportsBefore);
    expect(stripped.operations).toBe(operations);
    expect(await folders.open('p')).toBeDefined();
    expect(disk.files().has(FILE)).toBe(true);
  });

  it.each([
    ['is no JSON', (text: string) => text.slice(1)],
    ['is empty', () => ''],
    ['is of another project', (text: string) => text.replaceAll('"p', '"q')],
    ['names another key', (text: string) => text.replace('p-dek', 'q-dek')],
    ['is of a later format', (text: string) => text.replace('"format": 1', '"format": 2')],
  ])('fails with project_damaged when its project.json %s', async (_name, change) => {
    const { disk, folders, write } = start();
    await write('a', '{}');
    disk.tamper(FILE, Buffer.from(change(String(disk.files().get(FILE)))));
    await expect(folders.open('p')).rejects.toMatchObject({ code: 'project_damaged' });
  });

  it('fails with project_damaged when its name key was changed', async () => {
    const { disk, folders, write } = start();
    await write('a', '{}');
    const file = JSON.parse(String(disk.files().get(FILE)));
    file.nameKey[0].sealed = Buffer.alloc(60).toString('base64');
    disk.tamper(FILE, Buffer.from(JSON.stringify(file)));
    await expect(folders.open('p')).rejects.toMatchObject({ code: 'project_damaged' });
  });
});

describe('the wrapped key in project.json', () => {
  it('follows the key service', async () => {
    const { clock, disk, service, folders, write } = start();
    await write('a', '{}');
    service.keys.get('p-dek')!.wrapped = Buffer.alloc(69, 7).toString('base64');
    clock.advance(900_000);
    await folders.open('p');
    expect(String(disk.files().get(FILE))).toContain(Buffer.alloc(69, 7).toString('base64'));
  });

  it.each(['with a new version', 'without one'])(
    'follows the key service for every version, %s',
    async (how) => {
      const { clock, disk, service, folders, write } = start();
      const wrappedIn = () =>
        (JSON.parse(String(disk.files().get(FILE))) as ProjectFile).versions.map(({ wrapped }) => wrapped);
      await write('a', '{}');
      await service.rotateKey('p-dek', 1);
      if (how === 'without one') {
        clock.advance(900_000);
        await folders.open('p');
      }
      const current = service.keys.get('p-dek')!;
      current.wrapped = Buffer.alloc(69, 7).toString('base64');
      current.before![0]!.wrapped = Buffer.alloc(69, 8).toString('base64');
      clock.advance(900_000);
      await folders.open('p');
      expect(wrappedIn()).toEqual([8, 7].map((byte) => Buffer.alloc(69, byte).toString('base64')));
    },
  );

  it('never comes from another key, even with the number of a known version', async () => {
    const { clock, disk, service, folders, write } = start();
    await write('a', '{}');
    await service.rotateKey('p-dek', 1);
    clock.advance(900_000);
    await folders.open('p');
    const before = String(disk.files().get(FILE));
    const current = service.keys.get('p-dek')!;
    const [former] = current.before!;
    const other = { ...service.put('x-dek'), keyId: former!.keyId, version: 1 };
    service.keys.set('p-dek', { ...current, before: [other] });
    clock.advance(900_000);
    await expect(folders.open('p')).rejects.toMatchObject({ code: 'key_mismatch' });
    expect(String(disk.files().get(FILE))).toBe(before);
  });
});
