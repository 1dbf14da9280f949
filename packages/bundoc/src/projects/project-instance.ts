import type { Hold } from '@bundoc/shared/admission/pool';
import type { ProjectFile } from '@bundoc/shared/contract/project-file';
import { ageMs, type Clock, type Instant, instant } from '@bundoc/shared/runtime/clock';
import type { DefinedStore } from '../collections/defined-store.ts';
import type { CollectionStore } from '../collections/port.ts';
import type { KeyCache } from '../crypto/key-cache.ts';
import type { ProjectCipher } from '../crypto/project-cipher.ts';
import { type Cursors, cursorsOf } from '../crypto/sealed-cursor.ts';
import type { LeasedKeys } from '../engine/projects/project-file.ts';
import type { OpenedProject } from '../engine/projects/projects.ts';
import type { LeasedKey } from '../kms/port.ts';

/** An open project, held until disposed: `using lease = await manager.acquire(…)`. */
export interface InstanceLease extends Disposable {
  readonly store: CollectionStore;
  readonly cipher: ProjectCipher;
  /** `project.json` as it is now. */
  readonly file: ProjectFile;
  readonly cursors: Cursors;
  /**
   * Whether the project and its key are still usable. Also false while others wait for memory: then release
   * the lease and acquire it again, so that they have their turn.
   */
  isUsable(): boolean;
}

/** One open project: its parts, its keys, and its number of users. */
export class ProjectInstance {
  readonly project: string;
  readonly store: DefinedStore;
  readonly cipher: ProjectCipher;
  readonly cursors: Cursors;
  file: ProjectFile;
  /** All versions that the project uses, the current one first; replaced with their leases. */
  keys: LeasedKeys;
  users = 0;
  lastUsed: Instant;
  /**
   * Whether it was used without a lease since the last idle check: reading two clocks for each read would be
   * too expensive.
   */
  wasUsed = false;
  /** The last sweep that counted a use for the order of eviction. */
  countedInSweep: number | undefined;
  /** Its part of the memory that open projects share. */
  readonly slot: Hold;

  constructor(project: string, opened: OpenedProject, store: DefinedStore, now: Instant, slot: Hold) {
    this.project = project;
    this.store = store;
    this.cipher = opened.cipher;
    this.cursors = cursorsOf(project, opened.cipher);
    this.file = opened.file;
    this.keys = opened.keys;
    this.lastUsed = now;
    this.slot = slot;
  }

  /** Whether all its keys are still usable. This does not count as a use. */
  hasKeys(cache: Pick<KeyCache, 'has'>): boolean {
    return this.keys.every(({ version }, at) => cache.has(this.project, versionAt(at, version)));
  }

  /**
   * Uses its keys.
   *
   * @returns them with their current leases: {@link keys} itself when none was renewed; undefined when a key
   *   is no longer usable, or the current one has changed.
   */
  peekKeys(cache: Pick<KeyCache, 'peek'>): LeasedKeys | undefined {
    // Usually there is one key, which was not renewed.
    if (this.keys.length === 1 && cache.peek(this.project) === this.keys[0]) return this.keys;
    const keys = this.keys.map(({ version }, at) => cache.peek(this.project, versionAt(at, version)));
    if (!isComplete(keys) || !isSameKey(keys[0], this.keys[0])) return undefined;
    return keys.some((key, at) => key !== this.keys[at]) ? keys : this.keys;
  }

  /**
   * Whether it has been unused for this time, milliseconds. Uses without a lease count from the previous
   * call.
   */
  isIdle(clock: Clock, idleTtlMs: number): boolean {
    if (this.wasUsed) {
      this.wasUsed = false;
      this.lastUsed = instant(clock);
    }
    return this.users === 0 && ageMs(clock, this.lastUsed) >= idleTtlMs;
  }
}

/** The current version is requested without its number, so that a rotation is noticed. */
function versionAt(at: number, version: number): number | undefined {
  return at === 0 ? undefined : version;
}

function isComplete(keys: readonly (LeasedKey | undefined)[]): keys is LeasedKeys {
  return keys.every((key) => key !== undefined);
}

function isSameKey(a: LeasedKey, b: LeasedKey): boolean {
  if (a === b) return true;
  return a.keyId === b.keyId && a.version === b.version && a.kcv === b.kcv;
}
