import { join } from 'node:path';
import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import { CATALOG_FILE } from '@bundoc/shared/contract/catalog-head';
import type { DeletionMark } from '@bundoc/shared/contract/deletion-mark';
import {
  DELETION_FILE,
  MOVE_FILE,
  PROJECT_FILE,
  type ProjectFile,
} from '@bundoc/shared/contract/project-file';
import type { Clock } from '@bundoc/shared/runtime/clock';
import type { KeyCache } from '../../../crypto/key-cache.ts';
import type { ProjectCipher } from '../../../crypto/project-cipher.ts';
import type { LeasedKey } from '../../../kms/port.ts';
import { projectLost } from '../../lost-projects.ts';
import { judgeMoveMark, mayBeRemoved, type SettleMove } from '../../moves/judge-move-mark.ts';
import type { OnSetAside } from '../../moves/set-aside.ts';
import { formatDeletionMark, readDeletionMark } from '../../projects/deletion-mark.ts';
import { lastChangeOf } from '../../projects/last-change.ts';
import {
  formatProjectFile,
  type LeasedKeys,
  newProjectFile,
  openCipher,
  parseProjectFile,
  SMALL_FILE_BYTES_MAX,
  type TakenOver,
  withNewVersion,
  withWrappings,
} from '../../projects/project-file.ts';
import { keysOfFile, mintOrAdopt, requireNotDestroyed } from '../../projects/project-keys.ts';
import type { OpenedProject, ProjectExtent, Projects } from '../../projects/projects.ts';
import { readCatalogStart } from '../catalog/catalog-start.ts';
import { type Disk, makeDirectoryDurably, replaceFile } from '../disk/disk.ts';
import { DOCS_FOLDER } from '../documents/document-files.ts';
import type { Place } from '../log/layout.ts';
import { readMoveMark, removeMoveMark } from './moved-folder.ts';
import { setFileAside } from './set-file-aside.ts';

/** Concurrent reads of catalog heads. */
const READS_AT_ONCE = 8;

export interface FileProjectsOptions {
  readonly disk: Disk;
  /** `<data>/projects`; exists. */
  readonly directory: string;
  readonly keys: KeyCache;
  readonly clock: Clock;
  /** The identity of this storage. */
  readonly storage: TakenOver;
  /** The folder for marks that are set aside. It is created below an existing folder. */
  readonly setAside: string;
  readonly onSetAside?: OnSetAside;
  /** Finishes an interrupted move out of this storage. */
  readonly settle: SettleMove;
  /** An existing folder for temporary files, on the same file system. */
  readonly tmp: string;
  readonly engine: FolderEngine;
  /** Whether the storage has lost the project. Matters only while it has nothing of it. */
  readonly isLost?: (project: string) => boolean;
}

/** The engine's part in creating and removing projects. */
export interface FolderEngine {
  /** Creates a project with its folder, `project.json` and catalog. Once resolved, it is durable. */
  create(project: string, cipher: ProjectCipher, projectFile: Buffer): Promise<void>;
  /** The newest known part of a handle in the log. */
  newest(handle: string): Place | undefined;
  /** Drops all data of a project from the log and memory, before its folder is removed. */
  forget(project: string): Promise<void>;
}

/** An open project and its folder. */
export interface OpenedFolder extends OpenedProject {
  readonly directory: string;
}

/**
 * Finds and creates project folders. A folder with `project.json` is a project. A key is minted only for a
 * folder without content, so nothing is ever written under a second key.
 *
 * Callers hold the project's lock: two calls for one project must not overlap.
 */
export class FileProjects implements Projects {
  readonly #options: FileProjectsOptions;

  constructor(options: FileProjectsOptions) {
    this.#options = options;
  }

  /**
   * Opens an existing project.
   *
   * @returns undefined when there is none. Then nothing was created, and no key was requested unless there is
   *   a mark.
   * @throws AppError `project_destroyed`, `project_moving`, `project_elsewhere`, `project_damaged`,
   *   `key_missing`, `project_unclaimed`, or the error of the key service.
   */
  async open(project: string, beforeOutside?: () => void): Promise<OpenedFolder | undefined> {
    const directory = join(this.#options.directory, project);
    const names = (await this.#options.disk.list(directory)) ?? [];
    if (names.length === 0) return this.#absent(project);
    if (names.includes(DELETION_FILE)) await this.#requireNotDeleted(project, directory);
    if (names.includes(MOVE_FILE)) await this.#requireHere(project, directory);
    const content = await this.#options.disk.read(join(directory, PROJECT_FILE), SMALL_FILE_BYTES_MAX);
    if (content === undefined) {
      await this.#requireEmpty(directory);
      return this.#absent(project);
    }
    const file = parseProjectFile(project, content);
    const keys = await keysOfFile(this.#options.keys, project, file, beforeOutside);
    return { ...(await this.#brought(directory, file, keys)), entries: names };
  }

  /**
   * Opens a project, or creates it. Once resolved, its folder is durable.
   *
   * The order matters. First comes the check that the folder is empty, then the key. The complete folder
   * follows, then the first document. After a crash before the folder is there, the next call adopts the key;
   * after a crash later, the project exists.
   *
   * @throws AppError as {@link open}.
   */
  async openOrCreate(project: string, beforeOutside?: () => void): Promise<OpenedFolder> {
    const existing = await this.open(project, beforeOutside);
    if (existing !== undefined) return existing;
    const { clock, disk, engine, storage } = this.#options;
    const made = await mintOrAdopt(this.#options.keys, project);
    const directory = join(this.#options.directory, project);
    const file = newProjectFile(project, made, new Date(clock.now()), storage);
    const keys: LeasedKeys = [made.key];
    const cipher = openCipher(file, keys);
    // What an arrival that was cut short has left: the new folder replaces an empty one only.
    if ((await disk.list(directory))?.includes(DOCS_FOLDER) === true)
      await disk.removeTree(join(directory, DOCS_FOLDER));
    await engine.create(project, cipher, formatProjectFile(file));
    return { directory, file, keys, cipher, entries: [PROJECT_FILE, CATALOG_FILE] };
  }

  async names(
    after: string,
    limit: number,
    only?: readonly string[],
    prefix = '',
  ): Promise<readonly string[]> {
    const { disk, directory } = this.#options;
    const candidates = only ?? (await disk.list(directory)) ?? [];
    const found: string[] = [];
    for (const name of [...new Set(candidates)].sort()) {
      if (found.length === limit) break;
      if (name <= after || !name.startsWith(prefix)) continue;
      const content = (await listIfFolder(disk, join(directory, name))) ?? [];
      if (content.includes(PROJECT_FILE) && !content.includes(MOVE_FILE)) found.push(name);
    }
    return found;
  }

  /** As of the last checkpoint of each project; its last change is current. */
  async extents(projects: readonly string[]): Promise<ReadonlyMap<string, ProjectExtent>> {
    const { disk, directory, engine } = this.#options;
    const extents = new Map<string, ProjectExtent>();
    const names = projects.values();
    const readSome = async () => {
      for (const project of names) {
        const start = await readCatalogStart(disk, directory, project);
        if (start === undefined) continue;
        const { documents, bytes, keyVersion, handle, covered } = start;
        const last = engine.newest(handle) ?? covered;
        const place = last === undefined ? [] : [last.segment, last.frame, last.tag.toString('hex')];
        const lastChange = lastChangeOf(handle, keyVersion, ...place);
        extents.set(project, { documents, bytes, keyVersion, lastChange });
      }
    };
    await Promise.all(Array.from({ length: READS_AT_ONCE }, readSome));
    return extents;
  }

  /**
   * Stores the current wrappings of the key's versions in `project.json`, which can rebuild a lost key store.
   */
  async keepWrappings(project: string, file: ProjectFile, keys: readonly LeasedKey[]): Promise<ProjectFile> {
    const changed = withWrappings(file, keys);
    if (changed === undefined) return file;
    // The project may have been deleted or moved since it was opened.
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
    if (!(await isWithoutContent(disk, directory))) return true;
    this.#absent(project);
    return false;
  }

  async deletionOf(project: string): Promise<DeletionMark | undefined> {
    const { disk, directory } = this.#options;
    try {
      const content = await disk.read(join(directory, project, DELETION_FILE), SMALL_FILE_BYTES_MAX);
      return content && readDeletionMark(project, content.toString());
    } catch (error) {
      // Not a regular file, or too large for a mark.
      if (hasCode(error, 'project_damaged')) return undefined;
      throw error;
    }
  }

  /**
   * `project.json` goes last. Until then, opening asks for the destroyed key, and the answer is that the
   * project was deleted.
   */
  async remove(project: string, mark: DeletionMark): Promise<void> {
    const { disk, engine, tmp } = this.#options;
    await engine.forget(project);
    const directory = join(this.#options.directory, project);
    await makeDirectoryDurably(disk, directory);
    for (const name of (await disk.list(directory)) ?? [])
      if (name !== DELETION_FILE && name !== PROJECT_FILE) await disk.removeTree(join(directory, name));
    await disk.removeTree(join(directory, PROJECT_FILE));
    await disk.syncDirectory(directory);
    await replaceFile(disk, tmp, join(directory, DELETION_FILE), Buffer.from(formatDeletionMark(mark)));
  }

  /**
   * @throws AppError `project_destroyed` when the key service confirms the mark; any other mark is set aside.
   */
  async #requireNotDeleted(project: string, directory: string): Promise<void> {
    const { disk, keys, setAside, onSetAside } = this.#options;
    if ((await disk.list(directory))?.includes(DELETION_FILE) !== true) return;
    await requireNotDestroyed(keys, project);
    onSetAside?.(await setFileAside(disk, setAside, directory, DELETION_FILE, project));
  }

  /**
   * Removes the mark of a finished move, and sets a forged one aside.
   *
   * @throws AppError as {@link judgeMoveMark}.
   */
  async #requireHere(project: string, directory: string): Promise<void> {
    const { disk, setAside, onSetAside } = this.#options;
    const text = await readMoveMark(disk, directory);
    if (text === undefined) return;
    const hasContent = (await disk.list(directory))?.includes(PROJECT_FILE) === true;
    if ((await judgeMoveMark(project, text, hasContent, this.#options)) === 'over')
      await removeMoveMark(disk, directory);
    else onSetAside?.(await setFileAside(disk, setAside, directory, MOVE_FILE, project));
  }

  /** @throws AppError `project_damaged` when the storage has lost the project. */
  #absent(project: string): undefined {
    if (this.#options.isLost?.(project)) throw projectLost();
  }

  /** Updates the file with a new key version and with the current wrappings of the key's versions. */
  async #brought(directory: string, file: ProjectFile, keys: LeasedKeys): Promise<OpenedFolder> {
    const [current] = keys;
    if (file.versions.every(({ version }) => version !== current.version)) {
      const withNew = withNewVersion(withWrappings(file, keys) ?? file, keys, this.#options.storage);
      await this.#write(directory, withNew);
      return { directory, file: withNew, keys, cipher: openCipher(withNew, keys) };
    }
    // Proves that the key belongs to the project before anything about it is written.
    const cipher = openCipher(file, keys);
    const rewrapped = withWrappings(file, keys);
    if (rewrapped !== undefined) await this.#write(directory, rewrapped);
    return { directory, file: rewrapped ?? file, keys, cipher };
  }

  /**
   * @throws AppError `project_damaged` when the folder has more than the remains of an interrupted creation.
   */
  async #requireEmpty(directory: string): Promise<void> {
    if (await isWithoutContent(this.#options.disk, directory)) return;
    throw new AppError('project_damaged', { cause: new Error(`content without ${PROJECT_FILE}`) });
  }

  /** After an unknown outcome, the next call reads the file and continues from there. */
  async #write(directory: string, file: ProjectFile): Promise<void> {
    await writeProjectFile(this.#options.disk, this.#options.tmp, directory, file);
  }
}

/** An entry that is not a folder is not a project, and must not break the listing. */
async function listIfFolder(disk: Disk, path: string): Promise<string[] | undefined> {
  try {
    return await disk.list(path);
  } catch (error) {
    if (hasCode(error, 'project_damaged')) return undefined;
    throw error;
  }
}

/**
 * True for a folder that does not exist, or has only a deletion mark and the remains of an interrupted
 * restore.
 */
export async function isWithoutContent(disk: Disk, directory: string): Promise<boolean> {
  for (const name of (await disk.list(directory)) ?? []) {
    if (name === DELETION_FILE) continue;
    if (name === DOCS_FOLDER && (await disk.list(join(directory, name)))?.length === 0) continue;
    return false;
  }
  return true;
}

/** Writes `project.json`, durably. @param tmp a folder on the same file system. */
export async function writeProjectFile(
  disk: Disk,
  tmp: string,
  directory: string,
  file: ProjectFile,
): Promise<void> {
  await replaceFile(disk, tmp, join(directory, PROJECT_FILE), formatProjectFile(file));
}
