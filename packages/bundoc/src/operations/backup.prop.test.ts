import { hash } from 'node:crypto';
import { AppError } from '@bundoc/shared/contract/app-error';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { readProject } from '../engine/files/projects/project-reader.ts';
import { verifyProject } from '../engine/files/projects/verify-project.ts';
import type { FileStore } from '../engine/files/store/file-store.ts';
import { restoreProject } from '../engine/files/transfer/restore-project.ts';
import { ProjectExists } from '../engine/port/errors.ts';
import type { Write } from '../engine/port/port.ts';
import { CliProject } from '../testing/cli-project.ts';
import type { SimulatedDisk } from '../testing/simulated-disk.ts';
import { closeEngine, engineOn } from '../testing/test-engine.ts';
import { put, remove } from '../testing/writes.ts';
import { checkBackup, cipherOf, openBackup, restoreSource } from './read-backup.ts';
import { createBackup } from './write-backup.ts';

const ROOT = '/projects';

async function* once(bytes: Buffer, pieceBytes = 4_000): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += pieceBytes) yield bytes.subarray(at, at + pieceBytes);
}

/** Writes or removes one document; removing an absent one does nothing. */
async function write(store: FileStore, one: Write): Promise<void> {
  await store.commit([one]).catch((error: unknown) => {
    if (!(error instanceof AppError) || error.code !== 'document_not_found') throw error;
  });
}

/** The whole project, for comparison: texts in creation order, and deletions. */
async function contentOf(store: FileStore) {
  const { documents } = await store.list({ collection: 'notes', after: 0, limit: 1_000, bytesMax: 1e9 });
  const { changes } = await store.changes(0, 1_000);
  return {
    texts: documents.map(({ text }) => text.toString()),
    changes: changes.map(({ ref: { id }, rev, deleted }) => [id, rev, deleted]),
  };
}

/**
 * A backup of a project, and the project as of its last block; `between` runs before each block but the
 * first.
 */
async function backUp(
  project: CliProject,
  disk: SimulatedDisk,
  between: (store: FileStore) => Promise<void> = async () => undefined,
) {
  const store = await project.open(disk);
  const { file, place } = await readProject(await project.place(disk));
  const acquire = async () => ({ store, file, cipher: place.cipher, [Symbol.dispose]: () => undefined });
  const limits = { limit: 3, bytesMax: 2_000 };
  const ports = { instances: { acquire: acquire as never }, clock: project.clock, limits };
  const pieces: Buffer[] = [];
  let content = await contentOf(store);
  for await (const piece of await createBackup(project.project, ports)) {
    pieces.push(piece);
    content = await contentOf(store);
    await between(store);
  }
  return { bytes: Buffer.concat(pieces), content, store };
}

async function restore(project: CliProject, bytes: Buffer, disk: SimulatedDisk) {
  const facts = await checkBackup(once(bytes));
  const cipher = await cipherOf(facts, project.service);
  const engine = await engineOn(disk, { clock: project.clock });
  try {
    return await restoreProject({
      ...restoreSource(facts, () => once(bytes), cipher),
      disk,
      clock: project.clock,
      projectsDirectory: ROOT,
      tmp: '/tmp',
      arrived: (handle) => engine.arrived(project.project, handle, cipher),
      endOrphans: () => engine.endOrphans(project.project, cipher),
    });
  } finally {
    if (!disk.crashed) await closeEngine(disk);
  }
}

const ids = ['a', 'b', 'c', 'd', 'e', 'f', 'g'];
const writes = fc.array(
  fc.record({ id: fc.constantFrom(...ids), pad: fc.option(fc.nat({ max: 1_500 }), { freq: 4 }) }),
  { maxLength: 30 },
);
let counter = 0;
const writeOf = ({ id, pad }: { id: string; pad: number | null }): Write =>
  pad === null ? remove(id) : put(id, `{"v":${++counter},"pad":"${'x'.repeat(pad)}"}`);

describe('a backup', () => {
  it('restores the project as of its last block, however much was written in the meantime', async () => {
    await fc.assert(
      fc.asyncProperty(writes, writes, fc.integer({ min: 1, max: 5 }), async (before, meanwhile, atOnce) => {
        const project = new CliProject();
        const disk = CliProject.disk();
        const store = await project.open(disk);
        for (const one of before) await write(store, writeOf(one));
        await store[Symbol.asyncDispose]();
        const left = [...meanwhile];
        const made = await backUp(project, disk, async (live) => {
          for (const one of left.splice(0, atOnce)) await write(live, writeOf(one));
        });
        await made.store[Symbol.asyncDispose]();

        const other = CliProject.disk();
        await restore(project, made.bytes, other);
        expect((await verifyProject(await project.place(other), () => undefined)).findings).toEqual([]);
        const restored = await project.open(other.powerCut('synced only'));
        expect(await contentOf(restored)).toEqual(made.content);
        await restored[Symbol.asyncDispose]();
      }),
      { numRuns: 60 },
    );
  });

  /** A project with some documents, and its backup. */
  async function made() {
    const project = new CliProject();
    const disk = CliProject.disk();
    const store = await project.open(disk);
    for (const id of ids) await write(store, put(id, `{"pad":"${'x'.repeat(300)}"}`));
    await write(store, remove('b'));
    await store[Symbol.asyncDispose]();
    const backup = await backUp(project, disk);
    await backup.store[Symbol.asyncDispose]();
    return { project, disk, ...backup };
  }

  it('is refused without a key when it was changed or truncated anywhere', async () => {
    const { bytes } = await made();
    await expect(checkBackup(once(bytes))).resolves.toMatchObject({ head: { project: 'p' } });
    await fc.assert(
      fc.asyncProperty(
        fc.nat({ max: bytes.length - 1 }),
        fc.integer({ min: 1, max: 255 }),
        async (at, by) => {
          const changed = Buffer.from(bytes);
          changed[at] = (bytes[at] as number) ^ by;
          await expect(checkBackup(once(changed))).rejects.toThrow('backup');
          await expect(checkBackup(once(bytes.subarray(0, at)))).rejects.toThrow('backup');
        },
      ),
      { numRuns: 300 },
    );
    await expect(checkBackup(once(Buffer.concat([bytes, Buffer.from('x')])))).rejects.toThrow(
      'after the end',
    );
  });

  it('is refused with the key, without creating a project, when it was changed and its hashes recomputed', async () => {
    const { project, bytes } = await made();
    const nameEnd = 29 + bytes.readUInt8(28);
    let forgeries = 0;
    for (const change of ['sealed', 'clear', 'swap'] as const) {
      const forged = forge(bytes, nameEnd, change);
      await expect(checkBackup(once(forged))).resolves.toBeDefined();
      const facts = await checkBackup(once(forged));
      const cipher = await cipherOf(facts, project.service);
      await expect(openBackup(once(forged), cipher, async () => undefined)).rejects.toThrow('not authentic');
      const disk = CliProject.disk();
      await expect(restore(project, forged, disk)).rejects.toThrow('not authentic');
      expect([...disk.files().keys()].some((path) => path.endsWith('project.json'))).toBe(false);
      forgeries++;
    }
    expect(forgeries).toBe(3);
  });

  it('cannot be restored over an existing project, or with a destroyed key', async () => {
    const { project, disk, bytes } = await made();
    const files = () => [...disk.files()].filter(([path]) => path.startsWith(`${ROOT}/`));
    const before = files();
    await expect(restore(project, bytes, disk)).rejects.toBeInstanceOf(ProjectExists);
    expect(files()).toEqual(before);
    project.loseKey();
    await expect(restore(project, bytes, CliProject.disk())).rejects.toMatchObject({ code: 'key_not_found' });
  });

  it('restores a project that rejects earlier cursors', async () => {
    const { project, bytes, content } = await made();
    const disk = CliProject.disk();
    await restore(project, bytes, disk);
    const store = await project.open(disk);
    for (const after of [1, 8, 100])
      await expect(store.changes(after, 10)).rejects.toMatchObject({ code: 'position_gone' });
    const { position, horizon } = await store.changes(0, 100);
    await write(store, put('new', '{}'));
    expect((await store.changes(position, 10, horizon)).changes.map(({ ref: { id } }) => id)).toEqual([
      'new',
    ]);
    expect((await contentOf(store)).texts.slice(0, -1)).toEqual(content.texts);
    await store[Symbol.asyncDispose]();
  });

  it('a backup of a missing project is refused before its first byte, and ends when the project disappears', async () => {
    const project = new CliProject();
    const disk = CliProject.disk();
    const store = await project.open(disk);
    const { file, place } = await readProject(await project.place(disk));
    const lease = { store, file, cipher: place.cipher, [Symbol.dispose]: () => undefined };
    const leases = [undefined, lease, undefined];
    const instances = { acquire: (async () => leases.shift()) as never };
    const missing = { code: 'project_not_found' };
    await expect(createBackup(project.project, { instances, clock: project.clock })).rejects.toMatchObject(
      missing,
    );
    const pieces = await createBackup(project.project, { instances, clock: project.clock });
    await pieces.next();
    await expect(pieces.next()).rejects.toMatchObject(missing);
  });

  it('fails for an undecryptable document', async () => {
    const { project, disk } = await made();
    const store = await project.open(disk);
    await store.checkpoint();
    await store[Symbol.asyncDispose]();
    const [path, bytes] = [...disk.files()].find(([name]) => name.startsWith('/projects/p/docs/')) ?? [];
    if (path === undefined || bytes === undefined) throw new Error('there is no document file');
    bytes[20] = (bytes[20] as number) ^ 1;
    disk.tamper(path, bytes);
    await expect(backUp(project, disk)).rejects.toMatchObject({ code: 'integrity_error' });
  });

  it('contains no byte of a document, an id or a collection in the clear', async () => {
    const project = new CliProject();
    const disk = CliProject.disk();
    const store = await project.open(disk);
    const secret = put('secret-id', '{"secret-name":"secret-value"}');
    await write(store, { ...secret, ref: { collection: 'secret-collection', id: 'secret-id' } });
    await store[Symbol.asyncDispose]();
    const { bytes } = await backUp(project, disk);
    expect(bytes.toString('latin1')).not.toContain('secret');
  });

  it('is restored as a whole or not at all after a crash at any moment, and can be restored again', async () => {
    const { project, bytes, content } = await made();
    const whole = CliProject.disk();
    await restore(project, bytes, whole);
    const { operations } = whole;
    expect(operations).toBeGreaterThan(20);
    for (let operation = 1; operation <= operations; operation++) {
      for (const when of ['before', 'after'] as const) {
        const disk = CliProject.disk();
        disk.failAt({ operation, when, what: 'crash' });
        await restore(project, bytes, disk).catch((error: unknown) => {
          if (!disk.crashed) throw error;
        });
        for (const survival of ['synced only', 'everything'] as const) {
          const cut = disk.powerCut(survival);
          await restore(project, bytes, cut).catch((error: unknown) => {
            if (!(error instanceof ProjectExists)) throw error;
          });
          expect((await verifyProject(await project.place(cut), () => undefined)).findings).toEqual([]);
          const store = await project.open(cut);
          expect(await contentOf(store)).toEqual(content);
          await store[Symbol.asyncDispose]();
        }
      }
    }
  });
});

/** A backup that was changed without the key, with recomputed hashes. */
function forge(bytes: Buffer, nameEnd: number, change: 'sealed' | 'clear' | 'swap'): Buffer {
  const blocks: Buffer[] = [];
  for (let at = nameEnd + 32; at < bytes.length; ) {
    const end = at + 9 + bytes.readUInt32BE(at + 1) + bytes.readUInt32BE(at + 5);
    blocks.push(Buffer.from(bytes.subarray(at, end)));
    at = end + 32;
  }
  const [first, second] = blocks as [Buffer, Buffer];
  if (change === 'sealed') first[20] = (first[20] as number) ^ 1;
  else if (change === 'clear') first[first.length - 1] = (first.at(-1) as number) ^ 1;
  else [blocks[0], blocks[1]] = [second, first];
  let before = bytes.subarray(nameEnd, nameEnd + 32);
  const parts = [bytes.subarray(0, nameEnd + 32)];
  for (const block of blocks) {
    before = hash('sha256', Buffer.concat([before, block]), 'buffer');
    parts.push(block, before);
  }
  return Buffer.concat(parts);
}
