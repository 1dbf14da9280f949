import { createSecretKey, randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { afterAll, describe, expect, it } from 'vitest';
import { ProjectCipher } from '../../cipher/project-cipher.ts';
import { SimulatedDisk, type Survival } from '../../testing/simulated-disk.ts';
import { describeProjectStore, put, ref, remove } from '../conformance.ts';
import type { Disk } from './disk.ts';
import { FileStore, WRITES_WAITING_MAX } from './file-store.ts';
import { nodeDisk } from './node-disk.ts';

const cipher = new ProjectCipher('p', createSecretKey(randomBytes(32)), createSecretKey(randomBytes(32)));

function storeOn(disk: Disk, directory: string, damaged: string[] = []): FileStore {
  return new FileStore({
    disk,
    directory,
    cipher,
    clock: new FakeClock(),
    onIntegrityError: (fileName) => damaged.push(fileName),
  });
}

const simulated = () => new SimulatedDisk('/', '/p', '/p/docs', '/p/tmp');

const folders: string[] = [];
afterAll(() => {
  for (const folder of folders) rmSync(folder, { recursive: true });
});

describeProjectStore('FileStore on a simulated disk', async () => {
  const disk = simulated();
  return {
    store: storeOn(disk, '/p'),
    reopen: async () => storeOn(disk.powerCut('synced only'), '/p'),
  };
});

describeProjectStore('FileStore on the real disk', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'bundoc-store-'));
  folders.push(directory);
  for (const name of ['docs', 'tmp']) await mkdir(join(directory, name));
  return { store: storeOn(nodeDisk, directory), reopen: async () => storeOn(nodeDisk, directory) };
});

describe('a document file', () => {
  const written = async () => {
    const disk = simulated();
    const damaged: string[] = [];
    const store = storeOn(disk, '/p', damaged);
    await store.commit(put('a', '{"secret":"first"}'));
    await store.commit(put('b', '{"secret":"second"}'));
    const pathOf = (id: string) => {
      const name = cipher.fileName(ref(id));
      return `/p/docs/${name.slice(0, 2)}/${name}`;
    };
    return { disk, store, damaged, a: pathOf('a'), b: pathOf('b') };
  };
  const bytes = (disk: SimulatedDisk, path: string) => Buffer.from(disk.files().get(path)!);

  it('is nonce, ciphertext and tag, and shows nothing of the document', async () => {
    const { disk, store, a } = await written();
    const text = (await store.get(ref('a')))!.text;
    const sealed = bytes(disk, a);
    expect(sealed).toHaveLength(12 + text.length + 16);
    expect(sealed.includes('first')).toBe(false);
    expect([...disk.files().keys()].join()).not.toMatch(/notes|"a"/);
  });

  it('with any single bit changed is an integrity error of that document alone', async () => {
    const { disk, store, damaged, a } = await written();
    const original = bytes(disk, a);
    for (let bit = 0; bit < original.length * 8; bit++) {
      const changed = Buffer.from(original);
      changed[bit >> 3]! ^= 1 << (bit & 7);
      disk.tamper(a, changed);
      await expect(store.get(ref('a'))).rejects.toMatchObject({ code: 'integrity_error' });
    }
    expect(new Set(damaged)).toEqual(new Set([cipher.fileName(ref('a'))]));
    expect((await store.get(ref('b')))?.text.toString()).toContain('second');
  });

  it('truncated at any length is an integrity error', async () => {
    const { disk, store, a } = await written();
    const original = bytes(disk, a);
    for (let length = 0; length < original.length; length++) {
      disk.tamper(a, original.subarray(0, length));
      await expect(store.get(ref('a'))).rejects.toMatchObject({ code: 'integrity_error' });
    }
  });

  it("swapped with another document's is an integrity error of both", async () => {
    const { disk, store, a, b } = await written();
    const [first, second] = [bytes(disk, a), bytes(disk, b)];
    disk.tamper(a, second);
    disk.tamper(b, first);
    await expect(store.get(ref('a'))).rejects.toMatchObject({ code: 'integrity_error' });
    await expect(store.get(ref('b'))).rejects.toMatchObject({ code: 'integrity_error' });
  });

  it('sealed under the right key and name, but holding another document, is an integrity error', async () => {
    const { disk, store, a } = await written();
    const other = Buffer.from(JSON.stringify({ _id: 'b', _collection: 'notes' }));
    disk.tamper(a, cipher.sealDocument(cipher.fileName(ref('a')), other));
    await expect(store.get(ref('a'))).rejects.toMatchObject({ code: 'integrity_error' });
  });

  it('that does not open is not overwritten, and can be deleted', async () => {
    const { disk, store, a } = await written();
    disk.tamper(a, Buffer.from('damaged'));
    await expect(store.commit(put('a', '{"v":2}'))).rejects.toMatchObject({ code: 'integrity_error' });
    expect(bytes(disk, a).toString()).toBe('damaged');
    await store.commit(remove('a'));
    expect(await store.get(ref('a'))).toBeUndefined();
  });
});

describe('a power cut', () => {
  /** Three documents, an overwrite and a delete; undefined means deleted. */
  const steps: readonly (readonly [id: string, json: string | undefined])[] = [
    ['a', '{"v":1}'],
    ['b', '{"v":2}'],
    ['a', '{"v":3}'],
    ['b', undefined],
    ['c', '{"v":4}'],
  ];

  /** Runs the steps until one fails; gives the number that were acknowledged. */
  async function run(store: FileStore): Promise<number> {
    for (const [done, [id, json]] of steps.entries()) {
      try {
        await store.commit(json === undefined ? remove(id) : put(id, json));
      } catch {
        return done;
      }
    }
    return steps.length;
  }

  const valueAfter = (done: number, id: string) => steps.slice(0, done).findLast(([of]) => of === id)?.[1];

  it('at any operation loses no acknowledged write and leaves none half done', async () => {
    const whole = simulated();
    expect(await run(storeOn(whole, '/p'))).toBe(steps.length);
    let seed = 7;
    const random = () => {
      seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648;
      return seed / 2_147_483_648;
    };
    const survivals: Survival[] = ['synced only', 'everything', { random }, { random }, { random }];
    for (let operation = 1; operation <= whole.operations; operation++) {
      for (const when of ['before', 'after'] as const) {
        for (const survival of survivals) {
          const disk = simulated();
          disk.failAt({ operation, when, what: 'crash' });
          const done = await run(storeOn(disk, '/p'));
          const store = storeOn(disk.powerCut(survival), '/p');
          for (const id of ['a', 'b', 'c']) {
            const text = (await store.get(ref(id)))?.text.toString();
            const value = text === undefined ? undefined : `{${/"v":\d/.exec(text)?.[0]}}`;
            const allowed = [valueAfter(done, id), valueAfter(Math.min(done + 1, steps.length), id)];
            expect(allowed, `${id} after a crash ${when} operation ${operation}`).toContain(value);
          }
        }
      }
    }
  });

  it('after a failed sync of the folder leaves the store failed: nothing is read or written until it is reopened', async () => {
    const disk = simulated();
    const store = storeOn(disk, '/p');
    await store.commit(put('a', '{"v":1}'));
    disk.failAt({ operation: 3, when: 'before', what: 'storage_unavailable' });
    await expect(store.commit(put('a', '{"v":2}'))).rejects.toMatchObject({ code: 'storage_unavailable' });
    expect(store.failed).toBe(true);
    await expect(store.get(ref('a'))).rejects.toMatchObject({ code: 'storage_unavailable' });
    await expect(store.commit(put('b', '{}'))).rejects.toMatchObject({ code: 'storage_unavailable' });
  });

  it('a full disk refuses the write with disk_full, keeps what was there and leaves no temporary file', async () => {
    const disk = simulated();
    const store = storeOn(disk, '/p');
    await store.commit(put('a', '{"v":1}'));
    disk.failAt({ operation: 1, when: 'before', what: 'disk_full' });
    await expect(store.commit(put('a', '{"v":2}'))).rejects.toMatchObject({ code: 'disk_full' });
    expect((await store.get(ref('a')))?.text.toString()).toContain('"v":1');
    expect(store.failed).toBe(false);
    await store.commit(put('a', '{"v":3}'));
    expect([...disk.files().keys()].filter((path) => path.startsWith('/p/tmp'))).toEqual([]);
  });
});

describe('the queue of writes', () => {
  it('is bounded: beyond it a write is refused as overloaded', async () => {
    const store = storeOn(simulated(), '/p');
    const outcomes = await Promise.allSettled(
      Array.from({ length: WRITES_WAITING_MAX + 5 }, (_, n) => store.commit(put('same', `{"v":${n}}`))),
    );
    const refused = outcomes.filter((outcome) => outcome.status === 'rejected');
    expect(refused).toHaveLength(5);
    expect(refused[0]?.reason).toMatchObject({ code: 'overloaded' });
  });

  it('does not show a write before it is durable', async () => {
    const disk = simulated();
    const gate = Promise.withResolvers<void>();
    const reached = Promise.withResolvers<void>();
    const slow = Object.create(disk, {
      syncDirectory: {
        value: async (path: string) => {
          if (path.startsWith('/p/docs/')) {
            reached.resolve();
            await gate.promise;
          }
          return disk.syncDirectory(path);
        },
      },
      ...Object.fromEntries(
        (['read', 'list', 'makeDirectory', 'createFile', 'rename', 'remove'] as const).map((name) => [
          name,
          { value: disk[name].bind(disk) },
        ]),
      ),
    }) as Disk;
    const store = storeOn(slow, '/p');
    const writing = store.commit(put('a', '{"v":1}'));
    await reached.promise;
    let seen = false;
    const reading = store.get(ref('a')).then((document) => {
      seen = true;
      return document;
    });
    await Promise.resolve();
    expect(seen).toBe(false);
    gate.resolve();
    await writing;
    expect((await reading)?.text.toString()).toContain('"v":1');
  });
});
