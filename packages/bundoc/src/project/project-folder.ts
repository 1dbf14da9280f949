import { join } from 'node:path';
import type { Clock } from '@bundoc/shared/clock';
import type { DeletionMark } from '@bundoc/shared/contract/deletion-mark';
import {
  DELETION_FILE,
  MOVE_FILE,
  PROJECT_FILE,
  PROJECT_FILE_COPY,
  type ProjectFile,
} from '@bundoc/shared/contract/project-file';
import { AppError, hasCode } from '@bundoc/shared/errors';
import type { ProjectCipher } from '../cipher/project-cipher.ts';
import type { LeasedKey } from '../kms/port.ts';
import {
  type Disk,
  makeDirectoryDurably,
  removeLeftovers,
  replaceFile,
  SMALL_FILE_BYTES_MAX,
} from '../storage/embedded/disk.ts';
import { formatDeletionMark, readDeletionMark } from './deletion-mark.ts';
import { judgeMoveMark, mayBeRemoved, type SettleMove } from './judge-move-mark.ts';
import type { KeyCache } from './key-cache.ts';
import { readMoveMark, removeMoveMark } from './moved-folder.ts';
import {
  formatProjectFile,
  type LeasedKeys,
  newProjectFile,
  openCipher,
  parseProjectFile,
  type TakenOver,
  withNewVersion,
  withWrappings,
} from './project-file.ts';
import { keysOfFile, mintOrAdopt, requireNotDestroyed } from './project-keys.ts';
import type { OpenedProject, Projects } from './projects.ts';
import { type OnSetAside, setFileAside } from './set-aside.ts';

export interface ProjectFoldersOptions {
  readonly disk: Disk;
  /** `<data>/projects`; exists. */
  readonly directory: string;
  readonly keys: KeyCache;
  readonly clock: Clock;
  /** The storage that this is. */
  readonly storage: TakenOver;
  /** Where marks go that are set aside: a folder that is made below an existing one. */
  readonly setAside: string;
  readonly onSetAside?: OnSetAside;
  /** Ends a move out of this storage that was cut short. */
  readonly settle: SettleMove;
  /** Told of a project whose content is removed: nothing of it may be kept in memory. */
  readonly onContentRemoved?: (project: string) => void;
  /** Makes the store of a new project in its folder, durably. It may find what a creation that was cut short left. */
  readonly createStore: (project: string, directory: string, cipher: ProjectCipher) => Promise<void>;
}

/** A project, and where it lies. */
export interface OpenedFolder extends OpenedProject {
  readonly directory: string;
}

/** Beside what is being replaced; never content. */
const TMP = 'tmp';
/** What the creation of a project makes before `project.json`; a folder of these is no content while it is empty. */
const EARLY_FOLDERS: readonly string[] = ['docs', 'journal'];
const EARLY_FILES: readonly string[] = ['catalog', PROJECT_FILE_COPY];

/**
 * Finds and makes project folders. `project.json` is what makes a folder a project: it is written last, so a creation
 * that a crash cut short is simply begun again. A key is minted only for a folder without content; nothing is ever
 * written under a second key.
 *
 * Callers hold the project's lock: two calls for one project must not overlap.
 */
export class ProjectFolders implements Projects {
  readonly #options: ProjectFoldersOptions;

  constructor(options: ProjectFoldersOptions) {
    this.#options = options;
  }

  /**
   * Opens an existing project.
   *
   * @returns undefined when there is none; nothing was made, and no key was asked for unless there is a mark.
   * @throws AppError `project_destroyed`, `project_moving`, `project_elsewhere`, `project_damaged`, `key_missing`, `project_unclaimed`, or what the key
   * service threw.
   */
  async open(project: string): Promise<OpenedFolder | undefined> {
    const directory = join(this.#options.directory, project);
    await this.#requireNotDeleted(project, directory);
    await this.#requireHere(project, directory);
    const content = await this.#options.disk.read(join(directory, PROJECT_FILE), SMALL_FILE_BYTES_MAX);
    if (content === undefined) {
      await this.#requireEmpty(directory);
      return undefined;
    }
    const file = parseProjectFile(project, content);
    const keys = await keysOfFile(this.#options.keys, project, file);
    await makeDirectoryDurably(this.#options.disk, join(directory, TMP));
    await removeLeftovers(this.#options.disk, join(directory, TMP));
    return this.#brought(directory, file, content, keys);
  }

  /**
   * Makes a project, or opens it when it exists. Once resolved, its folder is durable.
   *
   * The order matters: the folder's emptiness is checked before a key is asked for, the key exists before the folder,
   * the folder and its empty store before `project.json`, and that before the first document. Whichever step a crash follows, the next
   * call finds an empty folder and adopts the key that is there already.
   *
   * @throws AppError as {@link open}.
   */
  async openOrCreate(project: string): Promise<OpenedFolder> {
    const existing = await this.open(project);
    if (existing !== undefined) return existing;
    const { disk, clock, storage } = this.#options;
    const made = await mintOrAdopt(this.#options.keys, project);
    const directory = join(this.#options.directory, project);
    for (const path of [directory, join(directory, TMP)]) await makeDirectoryDurably(disk, path);
    await removeLeftovers(disk, join(directory, TMP));
    const file = newProjectFile(project, made, new Date(clock.now()), storage);
    const keys: LeasedKeys = [made.key];
    const cipher = openCipher(file, keys);
    await this.#options.createStore(project, directory, cipher);
    await this.#write(directory, file);
    return { directory, file, keys, cipher };
  }

  async names(after: string, limit: number, only?: readonly string[]): Promise<readonly string[]> {
    const { disk, directory } = this.#options;
    const candidates = only ?? (await disk.list(directory)) ?? [];
    const found: string[] = [];
    for (const name of [...new Set(candidates)].sort()) {
      if (found.length === limit) break;
      if (name <= after) continue;
      const content = (await listIfFolder(disk, join(directory, name))) ?? [];
      if (content.includes(PROJECT_FILE) && !content.includes(MOVE_FILE)) found.push(name);
    }
    return found;
  }

  /** Keeps the present wrappings of the key's versions in `project.json`, which a rebuild of a lost key store needs. */
  async keepWrappings(project: string, file: ProjectFile, keys: readonly LeasedKey[]): Promise<ProjectFile> {
    const changed = withWrappings(file, keys);
    if (changed === undefined) return file;
    // It may have been deleted or moved since it was opened.
    const directory = join(this.#options.directory, project);
    const names = (await this.#options.disk.list(directory)) ?? [];
    if (!names.includes(PROJECT_FILE) || names.includes(MOVE_FILE)) return file;
    await this.#write(directory, changed);
    return changed;
  }

  async exists(project: string): Promise<boolean> {
    const { disk, keys } = this.#options;
    const directory = join(this.#options.directory, project);
    const names = (await disk.list(directory)) ?? [];
    const text = await readMoveMark(disk, directory);
    if (text !== undefined && (await mayBeRemoved(project, text, names.includes(PROJECT_FILE), keys)))
      return true;
    await this.#requireHere(project, directory);
    return !(await isWithoutContent(disk, directory));
  }

  async deletionOf(project: string): Promise<DeletionMark | undefined> {
    const { disk, directory } = this.#options;
    try {
      const content = await disk.read(join(directory, project, DELETION_FILE), SMALL_FILE_BYTES_MAX);
      return content && readDeletionMark(project, content.toString());
    } catch (error) {
      // No regular file, or too large for a mark.
      if (hasCode(error, 'project_damaged')) return undefined;
      throw error;
    }
  }

  async remove(project: string, mark: DeletionMark): Promise<void> {
    const { disk, onContentRemoved } = this.#options;
    onContentRemoved?.(project);
    const directory = join(this.#options.directory, project);
    await makeDirectoryDurably(disk, directory);
    for (const name of (await disk.list(directory)) ?? [])
      if (name !== DELETION_FILE) await disk.removeTree(join(directory, name));
    await disk.syncDirectory(directory);
    // Not by way of `tmp`, which went with the rest; what a crash leaves goes the next time.
    await replaceFile(disk, directory, join(directory, DELETION_FILE), Buffer.from(formatDeletionMark(mark)));
  }

  /** @throws AppError `project_destroyed` when the key service confirms what a mark says; any other mark is set aside. */
  async #requireNotDeleted(project: string, directory: string): Promise<void> {
    const { disk, keys, setAside, onSetAside } = this.#options;
    if ((await disk.list(directory))?.includes(DELETION_FILE) !== true) return;
    await requireNotDestroyed(keys, project);
    onSetAside?.(await setFileAside(disk, setAside, directory, DELETION_FILE, project));
  }

  /** A mark that is over is taken away, and one that is not authentic is set aside. @throws AppError as {@link judgeMoveMark}. */
  async #requireHere(project: string, directory: string): Promise<void> {
    const { disk, setAside, onSetAside } = this.#options;
    const text = await readMoveMark(disk, directory);
    if (text === undefined) return;
    const hasContent = (await disk.list(directory))?.includes(PROJECT_FILE) === true;
    if ((await judgeMoveMark(project, text, hasContent, this.#options)) === 'over')
      await removeMoveMark(disk, directory);
    else onSetAside?.(await setFileAside(disk, setAside, directory, MOVE_FILE, project));
  }

  /** Brings the file up to date: with a version that is new, and with the present wrappings of the key's versions. */
  async #brought(
    directory: string,
    file: ProjectFile,
    content: Buffer,
    keys: LeasedKeys,
  ): Promise<OpenedFolder> {
    const [current] = keys;
    if (file.versions.every(({ version }) => version !== current.version)) {
      const withNew = withNewVersion(withWrappings(file, keys) ?? file, keys, this.#options.storage);
      await this.#write(directory, withNew);
      return { directory, file: withNew, keys, cipher: openCipher(withNew, keys) };
    }
    // Nothing of a key is written down before it is certain that it is the project's own.
    const cipher = openCipher(file, keys);
    const rewrapped = withWrappings(file, keys);
    if (rewrapped === undefined) await this.#keepCopy(directory, content);
    else await this.#write(directory, rewrapped);
    return { directory, file: rewrapped ?? file, keys, cipher };
  }

  /** @throws AppError `project_damaged` when the folder holds anything but what a cut-short creation leaves. */
  async #requireEmpty(directory: string): Promise<void> {
    if (await isWithoutContent(this.#options.disk, directory)) return;
    throw new AppError('project_damaged', { cause: new Error(`content without ${PROJECT_FILE}`) });
  }

  /** A project from before there was a copy, or whose last change a crash cut short, gets one of what it has. */
  async #keepCopy(directory: string, content: Buffer): Promise<void> {
    const { disk } = this.#options;
    const path = join(directory, PROJECT_FILE_COPY);
    if ((await disk.read(path, SMALL_FILE_BYTES_MAX))?.equals(content) === true) return;
    await replaceFile(disk, join(directory, TMP), path, content);
  }

  /** When the outcome is not known, the next call reads what is there and goes on from it. */
  #write(directory: string, file: ProjectFile): Promise<void> {
    return writeProjectFile(this.#options.disk, directory, file);
  }
}

/** What is no folder is no project, and must not keep the others from being listed. */
async function listIfFolder(disk: Disk, path: string): Promise<string[] | undefined> {
  try {
    return await disk.list(path);
  } catch (error) {
    if (hasCode(error, 'project_damaged')) return undefined;
    throw error;
  }
}

/** True for a folder that is not there, or holds nothing but the mark of a deletion and what a cut-short creation leaves. */
export async function isWithoutContent(disk: Disk, directory: string): Promise<boolean> {
  for (const name of (await disk.list(directory)) ?? []) {
    if (name === TMP || name === DELETION_FILE || EARLY_FILES.includes(name)) continue;
    if (EARLY_FOLDERS.includes(name) && (await disk.list(join(directory, name)))?.length === 0) continue;
    return false;
  }
  return true;
}

/**
 * Writes `project.json`, durably: its copy first, so that the copy is never older than a version that something was sealed under,
 * and `project.json` last, since it makes the folder a project.
 */
export async function writeProjectFile(disk: Disk, directory: string, file: ProjectFile): Promise<void> {
  const content = formatProjectFile(file);
  for (const name of [PROJECT_FILE_COPY, PROJECT_FILE])
    await replaceFile(disk, join(directory, TMP), join(directory, name), content);
}
