import { mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DataFolder } from '@bundoc/shared/files/data-folder';
import { FolderStorage } from '@bundoc/shared/object-storage/folder-storage';
import type { Clock } from '@bundoc/shared/runtime/clock';
import { onTestFinished } from 'vitest';
import { KeyCache } from '../../src/crypto/key-cache.ts';
import { PositionStore } from '../../src/engine/files/archive/position.ts';
import { Shipper } from '../../src/engine/files/archive/shipper.ts';
import { lockDataFolder } from '../../src/engine/files/data-lock.ts';
import { TMP_FOLDER } from '../../src/engine/files/disk/disk.ts';
import { openNodeDisk } from '../../src/engine/files/disk/node-disk.ts';
import { createSealedCache } from '../../src/engine/files/documents/sealed-cache.ts';
import { FileProjects } from '../../src/engine/files/projects/file-projects.ts';
import { type OpenFolder, openFolder } from '../../src/engine/files/storage-folder.ts';
import type { FileStore } from '../../src/engine/files/store/file-store.ts';
import { SEAL_LIMITS } from '../../src/engine/port/seal-budget.ts';
import { formatProjectFile } from '../../src/engine/projects/project-file.ts';
import { FakeKeyService } from '../../src/testing/fake-key-service.ts';
import { commitOne, put, ref } from '../../src/testing/writes.ts';

const LOG_BYTES = 67_108_864;

/** A data folder on the real disk with its archive in another folder, and the keys of its projects. */
export class ArchivedFolder {
  readonly root = mkdtempSync(join(tmpdir(), 'bundoc-archive-'));
  readonly archive = join(this.root, 'archive');
  readonly clock: Clock;
  /** Keeps the keys of all projects. */
  readonly keys: FakeKeyService;

  constructor(clock: Clock) {
    this.clock = clock;
    this.keys = new FakeKeyService(clock);
    mkdirSync(this.archive);
    onTestFinished(() => rmSync(this.root, { recursive: true }));
  }

  /** A path below the folder of the test. */
  path(name: string): string {
    return join(this.root, name);
  }

  /** The objects, in order, as paths. */
  objects(): string[] {
    const names = readdirSync(this.archive, { recursive: true, withFileTypes: true });
    return names
      .filter((entry) => entry.isFile())
      .map(({ parentPath, name }) => join(parentPath, name))
      .sort();
  }

  /** Runs `action` with a data folder that is open, as a service has it. */
  async with(name: string, action: (open: OpenArchived) => Promise<void>): Promise<void> {
    const dataDir = this.path(name);
    using folder = DataFolder.make(dataDir, 'BUNDOC_DATA_DIR');
    using lock = lockDataFolder(dataDir);
    await using disk = openNodeDisk(dataDir);
    const held = { dataDir, folder, lock, disk, clock: this.clock };
    await using open = await openFolder(held, { logBytes: LOG_BYTES, isArchived: true });
    const { engine, projectsDir, identity } = open;
    await engine.scanned;
    const { id } = await identity.read();
    const storageId = Buffer.from(id.replaceAll('-', ''), 'hex');
    await using storage = new FolderStorage({ path: this.archive, clock: this.clock });
    const changed = new Set<string>();
    const tmp = join(dataDir, TMP_FOLDER);
    const shipper = new Shipper({
      disk,
      dataDir,
      projectsDir,
      storageId,
      storage,
      clock: this.clock,
      position: new PositionStore(disk, dataDir, tmp, storage.name, storageId),
      engine: {
        logEnd: async (from) => engine.logEnd(from),
        takeChanged: async () => {
          const taken = [...changed];
          changed.clear();
          return taken;
        },
        shipped: async (segment) => engine.keepFrom(segment),
      },
    });
    const stores = new Map<string, FileStore>();
    const openStore = async (project: string) => {
      changed.add(project);
      const store = stores.get(project) ?? (await this.#openStore(open, { disk, tmp }, project));
      stores.set(project, store);
      return store;
    };
    try {
      await action(new OpenArchived(id, shipper, openStore));
    } finally {
      for (const store of stores.values()) await store[Symbol.asyncDispose]();
    }
  }

  async #openStore(
    { engine, projectsDir }: OpenFolder,
    { disk, tmp }: { readonly disk: ReturnType<typeof openNodeDisk>; readonly tmp: string },
    project: string,
  ): Promise<FileStore> {
    const { clock } = this;
    const projects = new FileProjects({
      disk,
      directory: projectsDir,
      tmp,
      keys: new KeyCache({ keys: this.keys.held, clock, ttlMs: 900_000 }),
      clock,
      storage: this.keys.storage,
      settle: async () => undefined,
      setAside: join(this.root, 'set-aside'),
      engine,
    });
    const { directory, cipher, file } = await projects.openOrCreate(project);
    return await engine.openStore({
      project,
      directory,
      disk,
      cipher,
      clock,
      projectFile: formatProjectFile(file),
      cache: createSealedCache(0),
      onIntegrityError: () => undefined,
      onFailure: () => undefined,
      positionFloor: () => 0,
      onRotationDue: () => undefined,
      sealLimits: SEAL_LIMITS,
    });
  }
}

/** A data folder that is open, with its shipper. */
export class OpenArchived {
  /** The id of the storage. */
  readonly id: string;
  readonly #shipper: Shipper;
  readonly #openStore: (project: string) => Promise<FileStore>;

  constructor(id: string, shipper: Shipper, openStore: (project: string) => Promise<FileStore>) {
    this.id = id;
    this.#shipper = shipper;
    this.#openStore = openStore;
  }

  async put(project: string, id: string, text: string): Promise<void> {
    await commitOne(await this.#openStore(project), put(id, JSON.stringify({ text })));
  }

  /** The text of a document; undefined when there is none. */
  async read(project: string, id: string): Promise<unknown> {
    const found = await (await this.#openStore(project)).get(ref(id));
    return found && (JSON.parse(found.text.toString()) as { readonly text: unknown }).text;
  }

  /** Ships everything. @returns the moment, milliseconds since 1970. */
  async ship(): Promise<number> {
    while ((await this.#shipper.next()) !== undefined);
    return this.#shipper.position?.timeMs ?? 0;
  }
}
