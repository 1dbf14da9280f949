import {
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  mkdirSync,
  openSync,
  readlinkSync,
  realpathSync,
  type Stats,
} from 'node:fs';
import { resolve, sep } from 'node:path';

// Used by Bundoc's thread that writes files as well: it must import no library, so that the thread starts in
// a few milliseconds.

/** The code of an {@link UnsafeEntry}, which crosses threads where the class does not. */
export const UNSAFE_ENTRY = 'UNSAFE_ENTRY';

/** An entry of a data folder is not what Bundoc puts there. Nothing of it was read or written. */
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
/** A path that is not in its normal form, or leads upwards. */
const NOT_BELOW = /(?:^|\/)\.{0,2}(?:\/|$)|\0/;

/**
 * How descriptors are tied to places below a data folder. Node has neither `openat` nor `openat2`. On Linux
 * the folder `/proc/self/fd` takes their place: an open folder's entries are reached through its descriptor,
 * and the kernel says where a descriptor lies. Elsewhere paths are checked before and after each use, which
 * leaves a moment in which a live attacker can exchange a folder.
 */
export type Containment = 'descriptors' | 'paths';

/** The containment that this system has. */
function containmentOf(descriptor: number, realPath: string): Containment {
  try {
    return readlinkSync(procPath(descriptor)) === realPath ? 'descriptors' : 'paths';
  } catch {
    return 'paths';
  }
}

/** A data folder as another thread of this process takes it over; its descriptor stays the opener's. */
export interface SharedFolder {
  readonly path: string;
  readonly realPath: string;
  readonly descriptor: number;
  readonly containment: Containment;
}

/**
 * A data folder, held open. Who can write to its storage is not trusted: below the folder no symbolic link is
 * followed, and only regular files and folders are opened. A hard link to a file outside cannot be
 * distinguished from a file of the folder.
 *
 * The path of the folder itself is the administrator's, and may lead over links.
 *
 * One class, because it is the one way to the disk: each kind of access is a method here and nowhere else.
 */
export class DataFolder implements Disposable {
  readonly #shared: SharedFolder;

  private constructor(shared: SharedFolder) {
    this.#shared = shared;
  }

  /**
   * Opens an existing folder.
   *
   * @param containment what this system has, unless a test asks for the other.
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

  /** Opens a folder, and makes it for the service's own user if there is none. */
  static make(directory: string): DataFolder {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    return DataFolder.open(directory);
  }

  /** In another thread than the one that opened it. */
  static over(shared: SharedFolder): DataFolder {
    return new DataFolder(shared);
  }

  /** As it was opened: what the paths that {@link below} takes begin with. */
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
   * @throws for a path outside: a defect of the caller.
   */
  below(path: string): string {
    const { path: root } = this.#shared;
    if (path === root) return '';
    const below = path.slice(root.length + 1);
    if (!path.startsWith(root) || path[root.length] !== sep || NOT_BELOW.test(below))
      throw new Error(`${path} is not below the data folder`);
    return below;
  }

  /** The path by which an entry of the folder itself is reached; it may be a link. */
  entry(name: string): string {
    return `${this.entriesOf(this.#shared.descriptor, '')}${sep}${name}`;
  }

  /**
   * The path by which an entry is opened; a link on the way would be followed, so {@link isAt} says where
   * that led.
   */
  pathOf(below: string): string {
    if (this.#shared.containment !== 'descriptors') return this.#realPathOf(below);
    return `${procPath(this.#shared.descriptor)}/${below === '' ? '.' : below}`;
  }

  /**
   * Whether a descriptor that was opened by {@link pathOf} is of that very entry. False also once the data
   * folder itself has got another path.
   *
   * @param now `named` when it must have its name still; otherwise it may have been replaced or removed since
   * it was opened.
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

  /** A path that leads to the entries of the open folder, even if its own path changes. */
  entriesOf(descriptor: number, below: string): string {
    return this.#shared.containment === 'descriptors' ? procPath(descriptor) : this.#realPathOf(below);
  }

  /**
   * Opens what exists below the folder, without following a link. The caller checks its type, and closes it.
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
   * Opens what exists component by component: for an entry that seems not to be where it was looked for. The
   * data folder may have got another path since it was opened, or the entry another name.
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
   * When {@link pathOf} could not be opened. What seems to be absent may be absent only where a link leads.
   *
   * @returns a descriptor when the entry is there after all.
   * @throws UnsafeEntry; the system's error otherwise.
   */
  openInstead(below: string, flags: number, error: unknown): number {
    if (codeOf(error) !== 'ENOENT') throw this.openError(below, error);
    if (this.#shared.containment === 'descriptors') return this.walkSync(below, flags);
    for (let parent = parentOf(below); parent !== ''; parent = parentOf(parent)) {
      const stats = lstatSync(this.#realPathOf(parent), { throwIfNoEntry: false });
      if (stats !== undefined && !stats.isDirectory()) throw new UnsafeEntry(parent, 'is no folder');
    }
    throw error;
  }

  /** What an error of opening an entry says of it. */
  openError(below: string, error: unknown): unknown {
    const code = codeOf(error);
    if (code === 'ELOOP') return new UnsafeEntry(below, 'is a symbolic link');
    if (code === 'ENOTDIR') return new UnsafeEntry(below, 'is no folder, or lies in none');
    // A socket, or a device that is not there.
    if (code === 'ENXIO' || code === 'ENODEV') return new UnsafeEntry(below, 'is no regular file');
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
  if (!stats.isFile()) throw new UnsafeEntry(below, 'is no regular file');
  if (stats.size > bytesMax)
    throw new UnsafeEntry(below, `has ${stats.size} bytes, and at most ${bytesMax} are expected`);
}

/** The folder of an entry below the data folder, empty for the data folder itself. */
export function parentOf(below: string): string {
  return below.slice(0, Math.max(below.lastIndexOf(sep), 0));
}

/** The name of an entry in its folder. */
export function nameOf(below: string): string {
  return below.slice(below.lastIndexOf(sep) + 1);
}

export function codeOf(error: unknown): string | undefined {
  return (error as NodeJS.ErrnoException).code;
}

function procPath(descriptor: number): string {
  return `/proc/self/fd/${descriptor}`;
}
