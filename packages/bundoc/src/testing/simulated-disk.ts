import { dirname, join } from 'node:path';
import { AppError } from '@bundoc/shared/errors';
import type { Disk } from '../storage/files/disk.ts';

/** The process died here: every later operation of this disk fails the same way. */
export class Crash extends Error {
  override readonly name = 'Crash';
}

type Entry = { readonly kind: 'directory' } | { readonly kind: 'file'; content: Buffer };

/** What a power cut does to names that were not synced. Contents are always synced by `createFile`. */
export type Survival = 'synced only' | 'everything' | { readonly random: () => number };

interface NameChange {
  readonly directory: string;
  apply(entries: Map<string, Entry>): void;
}

export interface Fault {
  /** Which operation, counted from 1. */
  readonly operation: number;
  readonly when: 'before' | 'after';
  /** `crash` ends the process there; an error code fails this one operation. */
  readonly what: 'crash' | 'disk_full' | 'storage_unavailable';
}

/**
 * A disk in memory that knows which names are durable. A name is until its folder is synced not durable, whichever way
 * it came or went; after {@link powerCut} only what was durable is left, or what chance let survive.
 */
export class SimulatedDisk implements Disk {
  #durable = new Map<string, Entry>();
  #current = new Map<string, Entry>();
  #unsynced: NameChange[] = [];
  #fault: Fault | undefined;
  #crashed = false;
  /** Operations so far that change something. */
  operations = 0;
  /** A line for each of them. */
  readonly trace: string[] = [];

  constructor(...directories: string[]) {
    for (const path of directories) {
      this.#durable.set(path, { kind: 'directory' });
      this.#current.set(path, { kind: 'directory' });
    }
  }

  /** Plans a fault, with operations counted from now. */
  failAt(fault: Fault): void {
    this.#fault = { ...fault, operation: this.operations + fault.operation };
  }

  /** The disk as it is after a power cut, ready for a new process. */
  powerCut(survival: Survival): SimulatedDisk {
    const next = new SimulatedDisk();
    const entries = new Map(this.#durable);
    for (const change of this.#unsynced) {
      const survives = survival === 'everything' || (survival !== 'synced only' && survival.random() < 0.5);
      if (survives) change.apply(entries);
    }
    // A name whose folder did not survive is unreachable.
    for (const path of [...entries.keys()]) {
      if (path !== dirname(path) && !this.#isReachable(entries, path)) entries.delete(path);
    }
    next.#durable = new Map(entries);
    next.#current = new Map(entries);
    return next;
  }

  /** Every file, by path, as a running process sees it. */
  files(): Map<string, Buffer> {
    const files = new Map<string, Buffer>();
    for (const [path, entry] of this.#current) if (entry.kind === 'file') files.set(path, entry.content);
    return files;
  }

  async read(path: string): Promise<Buffer | undefined> {
    this.#requireAlive();
    const entry = this.#current.get(path);
    return entry?.kind === 'file' ? Buffer.from(entry.content) : undefined;
  }

  async list(directory: string): Promise<string[] | undefined> {
    this.#requireAlive();
    if (this.#current.get(directory)?.kind !== 'directory') return undefined;
    return [...this.#current.keys()]
      .filter((path) => path !== directory && dirname(path) === directory)
      .map((path) => path.slice(directory.length + 1));
  }

  async makeDirectory(path: string): Promise<boolean> {
    if (this.#current.has(path)) return false;
    return this.#change(`mkdir ${path}`, () => {
      this.#requireDirectory(dirname(path));
      this.#rename(path, (entries) => entries.set(path, { kind: 'directory' }));
      return true;
    });
  }

  async createFile(path: string, content: Buffer): Promise<void> {
    await this.#change(`create ${path}`, () => {
      this.#requireDirectory(dirname(path));
      if (this.#current.has(path)) throw new AppError('storage_unavailable');
      const entry: Entry = { kind: 'file', content: Buffer.from(content) };
      this.#rename(path, (entries) => entries.set(path, entry));
    });
  }

  async rename(from: string, to: string): Promise<void> {
    await this.#change(`rename ${from} ${to}`, () => {
      const entry = this.#current.get(from);
      if (entry === undefined) throw new AppError('storage_unavailable');
      this.#requireDirectory(dirname(to));
      this.#rename(to, (entries) => {
        entries.delete(from);
        entries.set(to, entry);
      });
    });
  }

  async remove(path: string): Promise<boolean> {
    return this.#change(`remove ${path}`, () => {
      if (this.#current.get(path)?.kind !== 'file') return false;
      this.#rename(path, (entries) => entries.delete(path));
      return true;
    });
  }

  async syncDirectory(path: string): Promise<void> {
    await this.#change(`sync ${path}`, () => {
      this.#requireDirectory(path);
      const left: NameChange[] = [];
      for (const change of this.#unsynced) {
        if (change.directory === path) change.apply(this.#durable);
        else left.push(change);
      }
      this.#unsynced = left;
    });
  }

  /** Changes a file's bytes behind the store's back. */
  tamper(path: string, content: Buffer): void {
    this.#current.set(path, { kind: 'file', content });
    this.#durable.set(path, { kind: 'file', content });
  }

  #rename(path: string, apply: (entries: Map<string, Entry>) => void): void {
    apply(this.#current);
    this.#unsynced.push({ directory: dirname(path), apply });
  }

  async #change<T>(what: string, effect: () => T): Promise<T> {
    this.#requireAlive();
    this.operations++;
    this.trace.push(what);
    const fault = this.#fault?.operation === this.operations ? this.#fault : undefined;
    if (fault?.when === 'before') this.#raise(fault);
    const result = effect();
    if (fault?.when === 'after') this.#raise(fault);
    return result;
  }

  #raise(fault: Fault): never {
    if (fault.what !== 'crash') throw new AppError(fault.what);
    this.#crashed = true;
    throw new Crash();
  }

  #requireAlive(): void {
    if (this.#crashed) throw new Crash();
  }

  #requireDirectory(path: string): void {
    if (this.#current.get(path)?.kind !== 'directory') throw new AppError('storage_unavailable');
  }

  #isReachable(entries: Map<string, Entry>, path: string): boolean {
    const parent = dirname(path);
    if (!this.#current.has(join(parent, '..')) || parent === dirname(parent)) return true;
    return entries.get(parent)?.kind === 'directory' && this.#isReachable(entries, parent);
  }
}
