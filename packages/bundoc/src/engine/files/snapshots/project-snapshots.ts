import type { MemoryIndex } from '../../indexes/memory-index.ts';
import {
  beyondLastCommit,
  type SnapshotOptions,
  type StoreSnapshot,
  snapshotTooOld,
} from '../../port/snapshot-port.ts';
import type { DocumentState } from '../../port/state.ts';
import type { Catalog } from '../catalog/catalog.ts';
import type { ProjectFiles } from '../documents/project-files.ts';
import type { StoreReader } from '../documents/store-reader.ts';
import { CollectionStates, type SnapshotGroup } from './collection-states.ts';
import { FileSnapshot, type SnapshotPort } from './file-snapshot.ts';
import type { KeptMemory, KeptOwner } from './kept-memory.ts';
import { KeptState } from './kept-state.ts';

/** How long a state is kept for later pages, milliseconds, and how many of a project. */
export const RETAINED_MS = 60_000;
export const RETAINED_MAX = 4;

/** Schedules a task, as `setTimeout` does. */
export type Later = (task: () => void, ms: number) => NodeJS.Timeout;

export interface ProjectSnapshotsOptions {
  readonly catalog: Catalog;
  readonly reader: StoreReader;
  readonly files: ProjectFiles;
  readonly memory: KeptMemory;
  readonly indexes: {
    /** Indexes of a collection that are not being built. */
    wholeOf(collection: string): readonly MemoryIndex[];
  };
  readonly later?: Later | undefined;
}

/** The snapshots of one project in files. */
export class ProjectSnapshots implements KeptOwner, SnapshotPort {
  readonly #options: ProjectSnapshotsOptions;
  readonly #collections = new Map<string, CollectionStates>();
  /** The ends of retained states, the oldest first. */
  readonly #retained = new Map<SnapshotGroup, NodeJS.Timeout>();
  #bytes = 0;

  constructor(options: ProjectSnapshotsOptions) {
    this.#options = options;
  }

  /** Whether there is any snapshot. Without one, commits need not tell of their changes. */
  get isShown(): boolean {
    return this.#collections.size > 0;
  }

  get bytes(): number {
    return this.#bytes;
  }

  get hasUnread(): boolean {
    return this.#retained.keys().some(({ users }) => users === 0);
  }

  get reader(): StoreReader {
    return this.#options.reader;
  }

  /** As `ProjectStore.snapshot`. */
  take(collection: string, { asOf }: SnapshotOptions = {}): StoreSnapshot {
    const { catalog, reader } = this.#options;
    const { lastSeq } = reader;
    if (asOf !== undefined && asOf > lastSeq) throw beyondLastCommit();
    let states = this.#collections.get(collection);
    const kept = asOf === undefined ? undefined : states?.groupOf(asOf);
    if (states !== undefined && kept !== undefined)
      return new FileSnapshot(asOf ?? lastSeq, this, states, kept);
    if (asOf !== undefined && asOf < catalog.changedIn(collection)) throw snapshotTooOld();
    if (states === undefined) {
      states = new CollectionStates(collection, catalog);
      this.#collections.set(collection, states);
    }
    return new FileSnapshot(asOf ?? lastSeq, this, states, states.present(lastSeq));
  }

  /** Call it before a durable change is applied. Nothing is read from the disk. */
  superseding({ collection, id, seq }: DocumentState): void {
    const states = this.#collections.get(collection);
    const group = states?.groups.at(-1);
    if (states === undefined || group === undefined) return;
    const { catalog, reader, files, memory } = this.#options;
    const ref = { collection, id };
    const place = catalog.placeOf(ref);
    // Re-sealing changes no state.
    if (seq <= group.at || (place !== undefined && place.seq >= seq)) return;
    group.until ??= seq;
    if (place === undefined || place.seq > group.at) return;
    const sealed = reader.sealedInMemory(place);
    const readFile = () => reader.readSealedFile(place);
    const state = new KeptState({ place, until: seq, sealed, keys: this.#keysOf(collection, id) }, readFile);
    if (sealed === undefined) files.readBeforeWriting(place.fileName, state);
    states.keep(state, group);
    this.#count(state.bytes);
    if (group.users === 0 && group.bytes > memory.unreadBytesMax) this.#end(states, group);
  }

  wholeIndexes(collection: string): readonly MemoryIndex[] {
    return this.#options.indexes.wholeOf(collection);
  }

  release(states: CollectionStates, group: SnapshotGroup): void {
    group.users--;
    this.#endUnused(states, group);
  }

  retain(states: CollectionStates, group: SnapshotGroup): void {
    const { later = (task, ms) => setTimeout(task, ms).unref() } = this.#options;
    this.#forgetRetained(group);
    const forget = () => {
      this.#forgetRetained(group);
      this.#endUnused(states, group);
    };
    group.isRetained = true;
    this.#retained.set(group, later(forget, RETAINED_MS));
    const [oldest] = this.#retained.keys();
    if (this.#retained.size <= RETAINED_MAX || oldest === undefined) return;
    this.#forgetRetained(oldest);
    for (const one of this.#collections.values())
      if (one.groups.includes(oldest)) this.#endUnused(one, oldest);
  }

  dropOne(): void {
    let victim: readonly [CollectionStates, SnapshotGroup] | undefined;
    for (const states of this.#collections.values()) {
      if (!states.groups.some(({ bytes }) => bytes > 0)) continue;
      for (const group of states.groups)
        if (victim === undefined || isBefore(group, victim[1])) victim = [states, group];
    }
    if (victim !== undefined) this.#end(...victim);
  }

  /** Ends all snapshots. */
  end(): void {
    for (const states of this.#collections.values())
      for (const group of [...states.groups]) this.#end(states, group);
  }

  #endUnused(states: CollectionStates, group: SnapshotGroup): void {
    if (group.users === 0 && !group.isRetained && !group.isOver) this.#end(states, group);
  }

  #end(states: CollectionStates, group: SnapshotGroup): void {
    this.#forgetRetained(group);
    let bytes = 0;
    for (const state of states.end(group)) {
      bytes += state.bytes;
      if (state.sealed === undefined) this.#options.files.forgetRead(state.place.fileName, state);
      state.free();
    }
    if (states.groups.length === 0) this.#collections.delete(states.name);
    if (bytes > 0) this.#count(-bytes);
  }

  #forgetRetained(group: SnapshotGroup): void {
    clearTimeout(this.#retained.get(group));
    this.#retained.delete(group);
    group.isRetained = false;
  }

  #count(bytes: number): void {
    this.#bytes += bytes;
    this.#options.memory.count(this, bytes);
  }

  #keysOf(collection: string, id: string): ReadonlyMap<MemoryIndex, readonly string[]> {
    const keys = new Map<MemoryIndex, readonly string[]>();
    for (const index of this.wholeIndexes(collection)) {
      const placed = index.placedOf(id);
      if (placed !== undefined) keys.set(index, placed);
    }
    return keys;
  }
}

/** Whether a group ends before another: those that nobody reads come first, then the oldest. */
function isBefore(a: SnapshotGroup, b: SnapshotGroup): boolean {
  const isUnread = a.users === 0;
  return isUnread === (b.users === 0) ? a.at < b.at : isUnread;
}
