import { basename, dirname } from 'node:path';
import { AppError } from '@bundoc/shared/contract/app-error';
import {
  type Disk,
  type DiskFile,
  type FileChange,
  type FileContent,
  piecesOf,
  type ReadableFile,
} from '../engine/files/disk/disk.ts';
import type { LogDisk, LogFile } from '../engine/files/log/ports.ts';
import { fileInMemory } from './file-in-memory.ts';
import {
  type Entries,
  type Entry,
  type FileNode,
  isReachable,
  type Node,
  SECTOR_BYTES,
  type Survival,
  settled,
  survives,
  sync,
} from './simulated-file.ts';

/** The process has died here. Every later operation of this disk fails in the same way. */
export class Crash extends Error {
  override readonly name = 'Crash';
}

export interface Fault {
  /** The number of the operation, counted from 1. */
  readonly operation: number;
  readonly when: 'before' | 'after';
  /** `crash` ends the process there. An error code makes only this operation fail. */
  readonly what: 'crash' | 'disk_full' | 'storage_unavailable';
}

interface NameChange {
  readonly directory: string;
  readonly folder: Node | undefined;
  apply(entries: Entries): void;
}

/**
 * A disk in memory that tracks what is durable: names after a sync of their folder, and content after a sync
 * of its file. {@link powerCut} keeps all of that. Of all other names and sectors, it keeps a random choice,
 * in any order.
 */
export class SimulatedDisk implements Disk, LogDisk {
  #durable: Entries = new Map();
  #current: Entries = new Map();
  #unsynced: NameChange[] = [];
  #faults: Fault[] = [];
  #crashLine: { readonly line: RegExp; readonly when: Fault['when'] } | undefined;
  #crashed = false;
  readonly #crashes = Promise.withResolvers<never>();
  /** While true, every operation that takes space fails. */
  full = false;
  /**
   * Called before each operation with its name in the trace; reads begin with `read`. If it returns a value,
   * the operation fails with `storage_unavailable`.
   */
  failing: ((operation: string) => Fault['when'] | undefined) | undefined;
  /** Number of operations so far that change something. */
  operations = 0;
  /** A line for each of them. */
  readonly trace: string[] = [];

  /** A power cut writes a unit of this size completely or not at all. */
  sectorBytes = SECTOR_BYTES;

  constructor(...directories: string[]) {
    for (const path of directories) {
      const entry: Entry = { node: { kind: 'directory' }, folder: this.#node(dirname(path)) };
      this.#durable.set(path, entry);
      this.#current.set(path, entry);
    }
  }

  /** Plans faults, with operations counted from now. */
  failAt(...faults: readonly Fault[]): void {
    this.#faults = faults.map((fault) => ({ ...fault, operation: this.operations + fault.operation }));
  }

  /** Plans a crash at the next operation of this trace. */
  failAtLine(line: RegExp, when: Fault['when']): void {
    this.#crashLine = { line, when };
  }

  get crashed(): boolean {
    return this.#crashed;
  }

  /** Rejects when the process dies. Running operations never settle then. */
  get crashes(): Promise<never> {
    return this.#crashes.promise;
  }

  /** The disk as it is after a power cut, ready for a new process. */
  powerCut(survival: Survival): SimulatedDisk {
    const entries = new Map(this.#durable);
    for (const change of this.#unsynced) if (survives(survival)) change.apply(entries);
    const next = new SimulatedDisk();
    for (const [path, { node, folder }] of entries) {
      if (!isReachable(entries, path)) continue;
      const left = node.kind === 'directory' ? node : settled(node, survival, this.sectorBytes);
      next.#durable.set(path, { node: left, folder });
    }
    next.#current = new Map(next.#durable);
    next.sectorBytes = this.sectorBytes;
    return next;
  }

  /**
   * The disk as a new process finds it after `kill -9`: it has everything that was written. A later power cut
   * may still remove what was not synced.
   */
  restart(): SimulatedDisk {
    const next = new SimulatedDisk();
    next.#durable = new Map(this.#durable);
    next.#current = new Map(this.#current);
    next.#unsynced = [...this.#unsynced];
    next.sectorBytes = this.sectorBytes;
    return next;
  }

  /** Every file, by path, as a running process sees it. */
  files(): Map<string, Buffer> {
    const files = new Map<string, Buffer>();
    for (const [path, { node }] of this.#current) if (node.kind === 'file') files.set(path, node.content);
    return files;
  }

  async read(path: string, bytesMax: number): Promise<Buffer | undefined> {
    this.#requireReadable(path);
    const node = this.#node(path);
    if (node?.kind === 'directory' || (node?.content.length ?? 0) > bytesMax)
      throw new AppError('project_damaged');
    return node?.kind === 'file' ? Buffer.from(node.content) : undefined;
  }

  async openToRead(path: string, bytesMax: number): Promise<ReadableFile | undefined> {
    const content = await this.read(path, bytesMax);
    return content && fileInMemory(content, () => this.#requireReadable(path));
  }

  async readStart(path: string, bytes: number): Promise<Buffer | undefined> {
    return (await this.read(path, Number.POSITIVE_INFINITY))?.subarray(0, bytes);
  }

  async size(path: string): Promise<number | undefined> {
    this.#requireReadable(path);
    const node = this.#node(path);
    return node?.kind === 'file' ? node.content.length : undefined;
  }

  async list(directory: string): Promise<string[] | undefined> {
    this.#requireReadable(directory);
    if (this.#node(directory)?.kind !== 'directory') return undefined;
    return [...this.#current.keys()]
      .filter((path) => path !== directory && dirname(path) === directory)
      .map((path) => basename(path));
  }

  async makeDirectory(path: string): Promise<boolean> {
    this.#requireAlive();
    if (this.#current.has(path)) return false;
    return this.#change(`mkdir ${path}`, () => {
      this.#requireDirectory(dirname(path));
      this.#forgetUnsynced(path);
      this.#put(path, { kind: 'directory' });
      return true;
    });
  }

  async createFile(path: string, content: FileContent): Promise<void> {
    this.#requireAlive();
    const pieces: Buffer[] = [];
    for await (const piece of piecesOf(content)) pieces.push(piece);
    await this.#change(`create ${path}`, () => {
      this.#requireSpace();
      this.#requireDirectory(dirname(path));
      if (this.#current.has(path)) throw new AppError('storage_unavailable');
      const bytes = Buffer.concat(pieces);
      const node: FileNode = { kind: 'file', content: bytes, durable: Buffer.from(bytes), unsynced: [] };
      this.#put(path, node);
    });
  }

  async writeFiles(files: readonly FileChange[]): Promise<(AppError | undefined)[]> {
    const outcomes: (AppError | undefined)[] = [];
    for (const { path, content } of files) {
      try {
        if (content === undefined) await this.remove(path);
        else await this.#writeFile(path, content);
        outcomes.push(undefined);
      } catch (error) {
        if (!(error instanceof AppError)) throw error;
        outcomes.push(error);
      }
    }
    return outcomes;
  }

  async #writeFile(path: string, content: Buffer): Promise<void> {
    await this.makeDirectory(dirname(path));
    await this.#change(`write ${path}`, () => {
      this.#requireSpace();
      this.#requireDirectory(dirname(path));
      const known = this.#node(path);
      const bytes = Buffer.from(content);
      const node: FileNode =
        known?.kind === 'file'
          ? known
          : { kind: 'file', content: bytes, durable: Buffer.alloc(0), unsynced: [] };
      node.content = bytes;
      node.unsynced.push({ offset: 0, bytes, length: bytes.length });
      if (node !== known) this.#put(path, node);
    });
  }

  async openFile(path: string): Promise<DiskFile> {
    this.#requireAlive();
    const node = this.#node(path);
    if (node?.kind !== 'file') throw new AppError('storage_unavailable');
    return {
      // Two operations, so that a crash can come between them.
      writeDurably: async (offset, bytes) => {
        await this.#change(`write ${path} ${offset} ${bytes.length}`, () => {
          const copy = Buffer.from(bytes);
          copy.copy(node.content, offset);
          node.unsynced.push({ offset, bytes: copy, length: undefined });
        });
        await this.#sync(`fdatasync ${path}`, node);
      },
      close: async () => undefined,
    };
  }

  async openLogFile(path: string): Promise<LogFile> {
    // Read at the time of the call, because an open file outlives its name.
    const node = this.#node(path) as FileNode;
    const file = await this.openFile(path);
    return {
      ...file,
      bytes: node.content.length,
      read: async (offset, bytes) => {
        this.#requireReadable(path);
        return Buffer.from(node.content.subarray(offset, offset + bytes));
      },
    };
  }

  frameBuffer(bytes: number): Buffer {
    return Buffer.alloc(bytes);
  }

  async rename(from: string, to: string): Promise<void> {
    await this.#change(`rename ${from} ${to}`, () => {
      const node = this.#node(from);
      if (node === undefined) throw new AppError('storage_unavailable');
      this.#requireDirectory(dirname(to));
      const moved = node.kind === 'directory' ? this.#pathsWithin(from) : [];
      if (node.kind === 'directory') {
        if (this.#pathsWithin(to).length > 0) throw new AppError('storage_unavailable');
        this.#forgetUnsynced(to);
      }
      const entry: Entry = { node, folder: this.#node(dirname(to)) };
      this.#name(to, (entries) => {
        entries.delete(from);
        entries.set(to, entry);
        // The content of a folder moves with it, if its names exist.
        for (const path of moved) {
          const one = entries.get(path);
          entries.delete(path);
          if (one !== undefined) entries.set(to + path.slice(from.length), one);
        }
      });
    });
  }

  #pathsWithin(folder: string): string[] {
    return [...this.#current.keys()].filter((path) => path.startsWith(`${folder}/`));
  }

  async remove(path: string): Promise<boolean> {
    return this.#change(`remove ${path}`, () => {
      if (this.#node(path)?.kind !== 'file') return false;
      this.#name(path, (entries) => entries.delete(path));
      return true;
    });
  }

  /** An operation for each file and folder, so that a crash can come between them. */
  async removeTree(path: string): Promise<void> {
    const isWithin = (one: string) => one === path || one.startsWith(`${path}/`);
    const within = [...this.#current.keys()].filter(isWithin).sort().reverse();
    for (const one of within)
      await this.#change(`rm ${one}`, () => this.#name(one, (entries) => entries.delete(one)));
  }

  async syncDirectory(path: string): Promise<void> {
    await this.#change(`sync ${path}`, () => this.#syncNames(path));
  }

  async syncFiles(paths: readonly string[], folders: readonly string[] = []): Promise<void> {
    for (const path of paths) {
      const node = this.#node(path);
      if (node?.kind === 'file') await this.#sync(`fsync ${path}`, node);
    }
    for (const directory of new Set(paths.map((path) => dirname(path))))
      if (this.#current.has(directory)) await this.syncDirectory(directory);
    for (const folder of new Set(folders)) await this.syncDirectory(folder);
  }

  /** Changes a file's bytes behind the store's back; undefined removes it. */
  tamper(path: string, content: Buffer | undefined): void {
    // The same node in both, so that later writes and syncs are durable.
    const node: FileNode | undefined =
      content === undefined
        ? undefined
        : { kind: 'file', content: Buffer.from(content), durable: Buffer.from(content), unsynced: [] };
    for (const entries of [this.#current, this.#durable]) {
      if (node === undefined) entries.delete(path);
      else entries.set(path, { node, folder: this.#node(dirname(path)) });
    }
  }

  #syncNames(path: string): void {
    this.#requireDirectory(path);
    const left: NameChange[] = [];
    for (const change of this.#unsynced) {
      if (change.directory === path && change.folder === this.#node(path)) change.apply(this.#durable);
      else left.push(change);
    }
    this.#unsynced = left;
  }

  /** Forgets unsynced changes in a removed folder, so that they do not reach a new folder with its name. */
  #forgetUnsynced(path: string): void {
    const isWithin = ({ directory }: NameChange) => directory === path || directory.startsWith(`${path}/`);
    this.#unsynced = this.#unsynced.filter((change) => !isWithin(change));
  }

  #node(path: string): Node | undefined {
    return this.#current.get(path)?.node;
  }

  #put(path: string, node: Node): void {
    const entry: Entry = { node, folder: this.#node(dirname(path)) };
    this.#name(path, (entries) => entries.set(path, entry));
  }

  #name(path: string, apply: (entries: Entries) => void): void {
    apply(this.#current);
    const directory = dirname(path);
    this.#unsynced.push({ directory, folder: this.#node(directory), apply });
  }

  /**
   * After a failed sync, the written bytes stay readable, but no later sync makes them durable, because the
   * kernel marks them as clean (https://www.usenix.org/conference/atc20/presentation/rebello).
   */
  async #sync(what: string, node: FileNode): Promise<void> {
    try {
      await this.#change(what, () => sync(node));
    } catch (error) {
      if (!this.#crashed) node.unsynced = [];
      throw error;
    }
  }

  async #change<T>(what: string, effect: () => T): Promise<T> {
    this.#requireAlive();
    this.operations++;
    this.trace.push(what);
    const crash = this.#crashLine?.line.test(what) === true ? this.#crashLine : undefined;
    const fault: Fault | undefined =
      crash === undefined
        ? this.#faults.find(({ operation }) => operation === this.operations)
        : { operation: this.operations, when: crash.when, what: 'crash' };
    if (fault?.when === 'before') this.#raise(fault);
    const fails = this.failing?.(what);
    if (fails === 'before') throw new AppError('storage_unavailable');
    const result = effect();
    if (fault?.when === 'after') this.#raise(fault);
    if (fails === 'after') throw new AppError('storage_unavailable');
    return result;
  }

  #raise(fault: Fault): never {
    if (fault.what !== 'crash') throw new AppError(fault.what);
    this.#crashed = true;
    const crash = new Crash();
    this.#crashes.promise.catch(() => undefined);
    this.#crashes.reject(crash);
    throw crash;
  }

  #requireAlive(): void {
    if (this.#crashed) throw new Crash();
  }

  #requireReadable(path: string): void {
    this.#requireAlive();
    if (this.failing?.(`read ${path}`) !== undefined) throw new AppError('storage_unavailable');
  }

  #requireSpace(): void {
    if (this.full) throw new AppError('disk_full');
  }

  #requireDirectory(path: string): void {
    if (this.#node(path)?.kind !== 'directory') throw new AppError('storage_unavailable');
  }
}
