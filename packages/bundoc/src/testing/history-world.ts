import { join } from 'node:path';
import { hasCode } from '@bundoc/shared/contract/app-error';
import { createLogger } from '@bundoc/shared/logs/logger';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { KeyCache } from '../crypto/key-cache.ts';
import { createSealedCache } from '../engine/files/documents/sealed-cache.ts';
import type { FilesEngine } from '../engine/files/files-engine.ts';
import { identifyFolder } from '../engine/files/identity-in-folder.ts';
import { LostInFolder } from '../engine/files/lost-in-folder.ts';
import { FileProjects } from '../engine/files/projects/file-projects.ts';
import { readProject } from '../engine/files/projects/project-reader.ts';
import { repairProject } from '../engine/files/projects/repair-project.ts';
import type { FileStore } from '../engine/files/store/file-store.ts';
import { restoreProject } from '../engine/files/transfer/restore-project.ts';
import { StorageGeneration } from '../engine/identity/storage-generation.ts';
import { markLost } from '../engine/lost-projects.ts';
import { positionAt } from '../engine/port/positions.ts';
import { SEAL_LIMITS } from '../engine/port/seal-budget.ts';
import { formatProjectFile } from '../engine/projects/project-file.ts';
import { StorageKeys } from '../kms/storage-keys.ts';
import { checkBackup, cipherOf, restoreSource } from '../operations/read-backup.ts';
import { createBackup } from '../operations/write-backup.ts';
import { FakeKeyService } from './fake-key-service.ts';
import { SimulatedDisk } from './simulated-disk.ts';
import { closeEngine, engineOn, viewLog } from './test-engine.ts';

const ROOT = '/projects';
const logger = createLogger({ service: 'bundoc', level: 'silent' });

/** A process that serves a data folder. */
interface Serving {
  readonly engine: FilesEngine;
  readonly generation: StorageGeneration;
  readonly keys: StorageKeys;
  readonly projects: FileProjects;
  readonly lost: LostInFolder;
  readonly stores: Map<string, FileStore>;
}

/** Bundoc on one data folder, with a BunKMS, and an operator who restores copies of both. */
export class HistoryWorld {
  readonly clock = new FakeClock();
  readonly service = new FakeKeyService(this.clock);
  disk = new SimulatedDisk('/', ROOT, '/tmp');
  #serving: Serving | undefined;

  /** The store of a project, which is created if there is none; undefined for a lost project. */
  async open(project: string): Promise<FileStore> {
    const { engine, generation, projects, stores } = await this.#serve();
    const known = stores.get(project);
    if (known !== undefined) return known;
    const { directory, cipher, file, entries } = await projects.openOrCreate(project);
    const store = await engine.openStore({
      project,
      directory,
      disk: this.disk,
      cipher,
      clock: this.clock,
      entries,
      projectFile: formatProjectFile(file),
      cache: createSealedCache(0),
      positionFloor: () => positionAt(generation.takenOverMs),
      onIntegrityError: (name) => {
        throw new Error(`${name} does not open`);
      },
      onFailure: () => undefined,
      onRotationDue: () => undefined,
      sealLimits: SEAL_LIMITS,
    });
    stores.set(project, store);
    return store;
  }

  async acceptLoss(project: string): Promise<void> {
    await (await this.#serve()).lost.accept([project]);
  }

  /** Stops gracefully. */
  async stop(): Promise<void> {
    const serving = this.#serving;
    this.#serving = undefined;
    if (serving === undefined) return;
    await serving.generation[Symbol.asyncDispose]();
    for (const store of serving.stores.values()) await store[Symbol.asyncDispose]();
    await closeEngine(this.disk);
  }

  /** Stops gracefully with everything durable, so that files can be exchanged by hand. */
  async halt(): Promise<SimulatedDisk> {
    await this.stop();
    this.disk = this.disk.powerCut('everything');
    return this.disk;
  }

  async powerCut(survival: 'synced only' | 'everything'): Promise<void> {
    const serving = this.#serving;
    this.#serving = undefined;
    const after = this.disk.powerCut(survival);
    await serving?.generation[Symbol.asyncDispose]();
    this.disk = after;
  }

  /** An operator restores a copy of the data folder, with a take-over, as the page on backups says. */
  async putBack(copy: SimulatedDisk): Promise<void> {
    await this.stop();
    this.disk = copy.powerCut('everything');
    const { id } = await (await this.#identity()).read();
    this.service.takeOverStorage(id);
  }

  /** The storages in a backup of BunKMS. */
  kmsBackup(): ReadonlyMap<string, { generation: string | undefined; takenOverMs: number }> {
    return new Map(this.service.storages);
  }

  /** Restores BunKMS while the service runs. It learns of this when it next advances its generation. */
  async restoreKmsBeside(): Promise<void> {
    const { generation } = await this.#serve();
    this.service.takeOverStorage(generation.id, generation.generation);
    await generation.advance();
  }

  /** Restores as `bunkms restore` does, which counts as a take-over. The keys come from the shipped chain. */
  async restoreKms(backup: ReturnType<HistoryWorld['kmsBackup']>): Promise<void> {
    for (const [id, { generation }] of backup) this.service.takeOverStorage(id, generation);
    await this.stop();
  }

  /** `bundoc backup`. */
  async backUp(project: string): Promise<Buffer> {
    const store = await this.open(project);
    await store.checkpoint();
    const { keys } = await this.#serve();
    const { file, place } = await readProject(await this.#place(project, keys));
    const acquire = async () => ({ store, file, cipher: place.cipher, [Symbol.dispose]: () => undefined });
    const pieces: Buffer[] = [];
    const ports = { instances: { acquire: acquire as never }, clock: this.clock };
    for await (const piece of await createBackup(project, ports)) pieces.push(piece);
    return Buffer.concat(pieces);
  }

  /** `bundoc restore`, after the project's folder was removed. */
  async restore(project: string, backup: Buffer): Promise<void> {
    await this.stop();
    const { keys, engine } = await this.#serve();
    await this.disk.removeTree(join(ROOT, project));
    const once = async function* () {
      yield backup;
    };
    const facts = await checkBackup(once());
    const cipher = await cipherOf(facts, keys);
    await restoreProject({
      ...restoreSource(facts, once, cipher),
      disk: this.disk,
      clock: this.clock,
      projectsDirectory: ROOT,
      tmp: '/tmp',
      arrived: (handle) => engine.arrived(project, handle, cipher),
      endOrphans: () => engine.endOrphans(project, cipher),
    });
  }

  /** `bundoc repair`. @returns whether anything was wrong. */
  async repair(project: string): Promise<boolean> {
    const { keys } = await this.#serve();
    await this.stop();
    const repaired = await repairProject(await this.#place(project, keys), {
      clock: this.clock,
      acceptLoss: true,
      onProgress: () => undefined,
      withEngine: async (work) => {
        await work(await engineOn(this.disk, { clock: this.clock }));
        await closeEngine(this.disk);
      },
    });
    return repaired.faults.length > 0;
  }

  async #place(project: string, keys: StorageKeys) {
    const log = await viewLog(this.disk);
    return { project, directory: join(ROOT, project), tmp: '/tmp', disk: this.disk, keys, log };
  }

  #identity() {
    return identifyFolder(this.disk, '/');
  }

  async #serve(): Promise<Serving> {
    if (this.#serving !== undefined) return this.#serving;
    const { disk, clock, service } = this;
    await this.#identity();
    const engine = await engineOn(disk, { clock });
    await engine.scanned;
    const place = { disk, dataDir: '/', projectsDir: ROOT, tmp: '/tmp' };
    const lost = await LostInFolder.open(place);
    const generation = (await this.#confirmed(lost)) ?? (await this.#confirmed(lost));
    if (generation === undefined) throw new Error('the storage was not confirmed');
    const keys = new StorageKeys(service, generation);
    const projects = new FileProjects({
      disk,
      clock,
      directory: ROOT,
      tmp: '/tmp',
      setAside: '/set-aside',
      engine,
      storage: generation,
      keys: new KeyCache({ keys, clock, ttlMs: 900_000 }),
      settle: async () => undefined,
      isLost: (project) => lost.has(project),
    });
    this.#serving = { engine, generation, keys, projects, lost, stores: new Map() };
    return this.#serving;
  }

  /** @returns undefined when another copy was in use; an administrator has let this one take over then. */
  async #confirmed(lost: LostInFolder): Promise<StorageGeneration | undefined> {
    const { service } = this;
    const identity = await this.#identity();
    const { id } = await identity.read();
    const generation = new StorageGeneration({
      id,
      identity,
      calls: service,
      logger,
      kmsUrl: 'http://kms:8082',
      outage: async () => undefined,
      onTakenOver: (before, _takenOverMs, signal) =>
        markLost({ storage: { lost, identity }, calls: service, id, logger }, before, signal),
      pause: (_ms, signal) =>
        new Promise((_resolve, reject) => {
          signal.addEventListener('abort', reject);
        }),
    });
    await generation.start();
    if (generation.state === 'confirmed') return generation;
    await generation[Symbol.asyncDispose]();
    service.takeOverStorage(id);
    return undefined;
  }
}

/** Whether the storage has lost the project, or does not open it. */
export const isDamaged = (error: unknown) => hasCode(error, 'project_damaged');
