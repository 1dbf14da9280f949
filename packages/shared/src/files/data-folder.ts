import {
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  readlinkSync,
  realpathSync,
  type Stats,
} from 'node:fs';
import { resolve, sep } from 'node:path';
import { makeFolder } from './make-folder.ts';

// Bundoc's file writer thread also uses this file. It must import no library, so that the thread starts in a
// few milliseconds.

/** The code of an {@link UnsafeEntry}. It survives the transfer between threads; the class does not. */
export const UNSAFE_ENTRY = 'UNSAFE_ENTRY';

/**
 * An entry of a data folder is not of the kind that Bundoc creates there. Nothing of it was read or written.
 */
export class UnsafeEntry extends Error {
  override readonly name = 'UnsafeEntry';
  readonly code = UNSAFE_ENTRY;

  /** A predicate of the entry: "is a symbolic link". */
  readonly problem: string;

  /** @param path below the data folder. */
  constructor(path: string, problem: string) {
    super(`${path === '' ? 'the data folder' : path} ${problem}`);
    this.problem = problem;
  }
}

const { O_DIRECTORY, O_NOFOLLOW, O_NONBLOCK, O_RDONLY } = constants;
/** No link is followed, and no pipe or device is waited for. */
export const SAFE_FLAGS = O_NOFOLLOW | O_NONBLOCK;
export const FOLDER_FLAGS = O_RDONLY | O_DIRECTORY | SAFE_FLAGS;
/** A path that is not normalized, or leads upwards. */
const NOT_BELOW = /(?:^|\/)\.{0,2}(?:\/|$)|\0/;

/**
 * How file access is confined to the data folder. Node has neither `openat` nor `openat2`. Linux has
 * `/proc/self/fd` instead: it gives access to an open folder's entries through its descriptor, and the kernel
 * tells the path of a descriptor. On other systems paths are checked before and after each use. This leaves a
 * moment in which an active attacker can exchange a folder.
 */
export type Containment = 'descriptors' | 'paths';

/** The containment that this system supports. */
function containmentOf(descriptor: number, realPath: string): Containment {
  try {
    return readlinkSync(procPath(descriptor)) === realPath ? 'descriptors' : 'paths';
  } catch {
    return 'paths';
  }
}

/**
 * A data folder for use in another thread of this process. The thread that opened it still owns the
 * descriptor.
 */
export interface SharedFolder {
  readonly path: string;
  readonly realPath: string;
  readonly descriptor: number;
  readonly containment: Containment;
}

/**
 * An open data folder. Others who can write to its storage are not trusted. Below the folder, no symbolic
 * link is followed, and only regular files and folders are opened. A hard link to a file outside cannot be
 * distinguished from a file of the folder.
 *
 * The administrator chooses the path of the folder itself, which may contain symbolic links.
 */
export class DataFolder implements Disposable {
  readonly #shared: SharedFolder;

  private constructor(shared: SharedFolder) {
    this.#shared = shared;
  }

  /**
   * Opens an existing folder.
   *
   * @param containment what this system supports, unless a test sets the other.
   * @throws the system's error when there is no such folder.
   */
  static open(directory: string, containment?: Containment): DataFolder {
    const path = resolve(directory);
    const realPath = realpathSync(path);
    const descriptor = openSync(realPath, FOLDER_FLAGS);
    return new DataFolder({
      path,
      realPath,
      descriptor,
      containment: containment ?? containmentOf(descriptor, realPath),
    });
  }

  /**
   * Opens a folder. Creates it, for the service's user only, if it does not exist.
   *
   * @param variable that names it.
   * @throws FolderNotMade; the system's error when it cannot be opened.
   */
  static make(directory: string, variable: string): DataFolder {
    makeFolder(directory, variable);
    return DataFolder.open(directory);
  }

  /** For another thread than the one that opened it. */
  static over(shared: SharedFolder): DataFolder {
    return new DataFolder(shared);
  }

  /** The path with which it was opened. Paths for {@link below} begin with it. */
  get path(): string {
    return this.#shared.path;
  }

  get shared(): SharedFolder {
    return this.#shared;
  }

  [Symbol.dispose](): void {
    closeSync(this.#shared.descriptor);
  }

  /**
   * @returns the path below the folder, empty for the folder itself.
   *
   * @throws for a path outside, which is a defect of the caller.
   */
  below(path: string): string {
    const { path: root } = this.#shared;
    if (path === root) return '';
    const below = path.slice(root.length + 1);
    if (!path.startsWith(root) || path[root.length] !== sep || NOT_BELOW.test(below))
      throw new Error(`${path} is not below the data folder`);
    return below;
  }

  /** The path to an entry of the folder itself; the entry may be a link. */
  entry(name: string): string {
    return `${this.entriesOf(this.#shared.descriptor, '')}${sep}${name}`;
  }

  /** The path to open an entry. The system would follow links in it, so {@link isAt} checks the result. */
  pathOf(below: string): string {
    if (this.#shared.containment !== 'descriptors') return this.#realPathOf(below);
    return `${procPath(this.#shared.descriptor)}/${below === '' ? '.' : below}`;
  }

  /**
   * Whether a descriptor that was opened by {@link pathOf} belongs to exactly that entry. Also false after
   * the data folder itself was renamed.
   *
   * @param now `named` when it must still have its name; otherwise it may have been replaced or removed
   *   since it was opened.
   */
  isAt(descriptor: number, below: string, now: 'named' | 'opened' = 'opened'): boolean {
    const path = this.#realPathOf(below);
    if (this.#shared.containment === 'descriptors') {
      const at = readlinkSync(procPath(descriptor));
      return at === path || (now === 'opened' && at === `${path} (deleted)`);
    }
    try {
      const [found, opened] = [lstatSync(path), fstatSync(descriptor)];
      const parent = this.#realPathOf(below === '' ? '' : parentOf(below));
      return found.ino === opened.ino && found.dev === opened.dev && realpathSync(parent) === parent;
    } catch (error) {
      if (codeOf(error) === 'ENOENT') return false;
      throw error;
    }
  }

  /** A path to the entries of the open folder that stays valid when the folder is renamed. */
  entriesOf(descriptor: number, below: string): string {
    return this.#shared.containment === 'descriptors' ? procPath(descriptor) : this.#realPathOf(below);
  }

  /**
   * Opens an existing entry below the folder, without following links. The caller checks its type and closes
   * it.
   *
   * @throws UnsafeEntry; the system's error otherwise.
   */
  openSync(below: string, flags: number): number {
    let descriptor: number;
    try {
      descriptor = openSync(this.pathOf(below), flags | SAFE_FLAGS);
    } catch (error) {
      return this.openInstead(below, flags, error);
    }
    if (this.#isAtOrClosed(descriptor, below)) return descriptor;
    return this.walkSync(below, flags);
  }

  /** @throws UnsafeEntry; the system's error otherwise. */
  openFolderSync(below: string): number {
    return this.openSync(below, FOLDER_FLAGS);
  }

  /**
   * Opens an existing entry component by component, for an entry that was not found at its path. The data
   * folder may have been renamed since it was opened, or the entry itself.
   *
   * @throws UnsafeEntry; the system's error otherwise.
   */
  walkSync(below: string, flags: number): number {
    if (this.#shared.containment !== 'descriptors')
      throw new UnsafeEntry(below, 'lies behind a symbolic link');
    const names = below === '' ? ['.'] : below.split(sep);
    let at = this.#shared.descriptor;
    try {
      for (const [index, name] of names.entries()) {
        const isLast = index === names.length - 1;
        const next = openSync(`${procPath(at)}/${name}`, isLast ? flags | SAFE_FLAGS : FOLDER_FLAGS);
        if (at !== this.#shared.descriptor) closeSync(at);
        at = next;
      }
      return at;
    } catch (error) {
      if (at !== this.#shared.descriptor) closeSync(at);
      throw this.openError(below, error);
    }
  }

  /**
   * For when {@link pathOf} could not be opened. The entry may be missing only because a link led elsewhere.
   *
   * @returns a descriptor when the entry exists after all.
   * @throws UnsafeEntry; the system's error otherwise.
   */
  openInstead(below: string, flags: number, error: unknown): number {
    if (codeOf(error) !== 'ENOENT') throw this.openError(below, error);
    if (this.#shared.containment === 'descriptors') return this.walkSync(below, flags);
    for (let parent = parentOf(below); parent !== ''; parent = parentOf(parent)) {
      const stats = lstatSync(this.#realPathOf(parent), { throwIfNoEntry: false });
      if (stats !== undefined && !stats.isDirectory()) throw new UnsafeEntry(parent, 'is not a folder');
    }
    throw error;
  }

  /** The error for a failed attempt to open an entry. */
  openError(below: string, error: unknown): unknown {
    const code = codeOf(error);
    if (code === 'ELOOP') return new UnsafeEntry(below, 'is a symbolic link');
    if (code === 'ENOTDIR') return new UnsafeEntry(below, 'is not a folder, or its parent is not');
    // A socket, or a device that does not exist.
    if (code === 'ENXIO' || code === 'ENODEV') return new UnsafeEntry(below, 'is not a regular file');
    if (code === 'EISDIR') return new UnsafeEntry(below, 'is a folder where a file belongs');
    return error;
  }

  #realPathOf(below: string): string {
    return below === '' ? this.#shared.realPath : `${this.#shared.realPath}${sep}${below}`;
  }

  #isAtOrClosed(descriptor: number, below: string): boolean {
    let isAt = false;
    try {
      isAt = this.isAt(descriptor, below);
      return isAt;
    } finally {
      if (!isAt) closeSync(descriptor);
    }
  }
}

/** @throws UnsafeEntry unless it is a regular file of at most `bytesMax`. */
export function requireFile(below: string, stats: Stats, bytesMax: number): void {
  if (stats.isDirectory()) throw new UnsafeEntry(below, 'is a folder where a file belongs');
  if (!stats.isFile()) throw new UnsafeEntry(below, 'is not a regular file');
  if (stats.size > bytesMax)
    throw new UnsafeEntry(below, `has ${stats.size} bytes, and at most ${bytesMax} are expected`);
}

/** The folder of an entry below the data folder, empty for the data folder itself. */
export function parentOf(below: string): string {
  return below.slice(0, Math.max(below.lastIndexOf(sep), 0));
}

/** The name of an entry in its folder. */
export function getName(below: string): string {
  return below.slice(below.lastIndexOf(sep) + 1);
}

export function codeOf(error: unknown): string | undefined {
  return (error as NodeJS.ErrnoException).code;
}

function procPath(descriptor: number): string {
  return `/proc/self/fd/${descriptor}`;
}
