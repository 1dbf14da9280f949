import { createSecretKey, randomBytes } from 'node:crypto';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { type DekVersion, ProjectCipher } from '../crypto/project-cipher.ts';
import { createSealedCache } from '../engine/files/documents/sealed-cache.ts';
import type { FilesEngine } from '../engine/files/files-engine.ts';
import type { FileStore } from '../engine/files/store/file-store.ts';
import type { Write } from '../engine/port/port.ts';
import { SEAL_LIMITS } from '../engine/port/seal-budget.ts';
import { SimulatedDisk } from './simulated-disk.ts';
import { closeEngine, engineOn } from './test-engine.ts';
import { put, ref } from './writes.ts';

/** Keys of projects: they outlive processes and disks. */
export class Keys {
  readonly #versions = new Map<string, [DekVersion, ...DekVersion[]]>();
  readonly #nameKeys = new Map<string, ReturnType<typeof createSecretKey>>();

  of(project: string): ProjectCipher {
    const versions = this.#versions.get(project) ?? [{ version: 1, dek: createSecretKey(randomBytes(32)) }];
    const nameKey = this.#nameKeys.get(project) ?? createSecretKey(randomBytes(32));
    this.#versions.set(project, versions);
    this.#nameKeys.set(project, nameKey);
    return new ProjectCipher(project, versions, nameKey);
  }

  rotate(project: string): void {
    const versions = this.#versions.get(project) as [DekVersion, ...DekVersion[]];
    const version = versions[0].version + 1;
    this.#versions.set(project, [{ version, dek: createSecretKey(randomBytes(32)) }, ...versions]);
  }
}

export const fileOf = (project: string, version = 1) => Buffer.from(JSON.stringify({ project, version }));
export const folderOf = (project: string) => `/projects/${project}`;
const pad = (n: number) => `{"v":${n},"pad":"${'x'.repeat(2_000)}"}`;

/** A process with its own data folder. */
export class Process {
  readonly disk: SimulatedDisk;
  readonly keys: Keys;
  readonly failures: unknown[] = [];

  constructor(disk = new SimulatedDisk('/', '/projects'), keys = new Keys()) {
    this.disk = disk;
    this.keys = keys;
  }

  get engine(): Promise<FilesEngine> {
    return engineOn(this.disk, { clock: new FakeClock() });
  }

  async create(project: string): Promise<void> {
    const engine = await this.engine;
    await engine.create(project, this.keys.of(project), fileOf(project));
  }

  async open(
    project: string,
    projectFile = fileOf(project),
    entries?: readonly string[],
  ): Promise<FileStore> {
    const engine = await this.engine;
    return engine.openStore({
      project,
      directory: folderOf(project),
      projectFile,
      disk: this.disk,
      cipher: this.keys.of(project),
      clock: new FakeClock(),
      cache: createSealedCache(0),
      onIntegrityError: (fileName) => this.failures.push(fileName),
      onFailure: (error) => this.failures.push(error),
      positionFloor: () => 0,
      onRotationDue: () => undefined,
      sealLimits: SEAL_LIMITS,
      entries,
    });
  }

  /** Writes into a project, creates it if it is missing, and closes it. */
  async write(project: string, ...writes: Write[]): Promise<void> {
    if (!this.has(`${folderOf(project)}/project.json`)) await this.create(project);
    const store = await this.open(project);
    for (const write of writes) await store.commit([write]);
    await store[Symbol.asyncDispose]();
  }

  /** Which of the ids `a` to `e` a project has; the code of the error when it does not open. */
  async read(project: string): Promise<string> {
    let store: FileStore;
    try {
      store = await this.open(project);
    } catch (error) {
      return (error as { code: string }).code;
    }
    const found: string[] = [];
    for (const id of ['a', 'b', 'c', 'd', 'e']) if ((await store.get(ref(id))) !== undefined) found.push(id);
    await store[Symbol.asyncDispose]();
    return found.join('');
  }

  /** Writes into a project until the log has used the segments again that it has now. */
  async turnOver(store: FileStore): Promise<void> {
    for (let n = 0; n < 400; n++) await store.commit([put(`busy-${n % 3}`, pad(n))]);
  }

  has(path: string): boolean {
    return this.disk.files().has(path);
  }

  namesIn(directory: string): string[] {
    return [...this.disk.files().keys()].filter((path) => path.startsWith(`${directory}/`));
  }

  /** Copies the current folder of a project. @returns a function that restores the copy. */
  copyOf(project: string): () => void {
    const paths = this.namesIn(folderOf(project));
    const copy = paths.map((path) => [path, Buffer.from(this.disk.files().get(path) as Buffer)] as const);
    return () => {
      for (const path of this.namesIn(folderOf(project))) this.disk.tamper(path, undefined);
      for (const [path, content] of copy) this.disk.tamper(path, content);
    };
  }

  /** Ends in order. @returns a process that starts afterwards. */
  async restarted(): Promise<Process> {
    await closeEngine(this.disk);
    return new Process(this.disk.restart(), this.keys);
  }

  /** A process that starts after this one was killed, or the power went. */
  after(end: 'kill -9' | 'synced only' | 'everything'): Process {
    return new Process(end === 'kill -9' ? this.disk.restart() : this.disk.powerCut(end), this.keys);
  }
}
