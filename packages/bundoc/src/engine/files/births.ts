import { randomBytes } from 'node:crypto';
import { basename, dirname, join } from 'node:path';
import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import { CATALOG_FILE } from '@bundoc/shared/contract/catalog-head';
import { projectIdSchema } from '@bundoc/shared/contract/documents';
import { PROJECT_FILE } from '@bundoc/shared/contract/project-file';
import { SMALL_FILE_BYTES_MAX } from '../project-file.ts';
import { isRemoved, writeIfMissing, writeProjectFile } from './birth-file.ts';
import { type Disk, replaceFile } from './disk/disk.ts';
import { writePart } from './disk/write-part.ts';
import { comparePlaces, HANDLE_BYTES, isSamePlace, type Place } from './log/layout.ts';
import type { Log } from './log/log.ts';
import type { FoundBirth } from './log/log-content.ts';
import type { PartKeys } from './log/part-seal.ts';
import { type LoadedFolder, newborn } from './store/project-loader.ts';

/** Births whose folders are checked concurrently. */
const BIRTHS_AT_ONCE = 32;

/** Keys of a new project. */
export interface BirthKeys extends PartKeys {
  /** The version that seals its parts. */
  readonly version: number;
}

/** A project without a catalog. The log has its birth. */
interface Born {
  readonly handle: string;
  /** The bytes of its `project.json`, until they are written. */
  unwritten: Buffer | undefined;
  /** Its birth in the log, until its first opening. */
  unopened: { readonly place: Place; readonly keyVersion: number } | undefined;
  /** Whether folder and `project.json` are synced. Until then, only the log has them durably. */
  isDurable: boolean;
  /** Whether the folder was unreadable when the service started, so its content is unknown. */
  isUnseen: boolean;
  /** Whether a sync of `project.json` has failed: no later sync makes earlier writes durable. */
  mustReplace: boolean;
}

export interface BirthsOptions {
  readonly disk: Disk;
  readonly log: Log;
  /** A folder for temporary files, on the same file system. */
  readonly tmp: string;
  readonly projectsDir: string;
  /** The project of each handle. */
  readonly projectOf: Map<string, string>;
}

/**
 * Projects without a catalog. The log has their births, which contain their `project.json`. Folders are
 * written without a sync, because a start restores them from the log.
 *
 * One class, because writing, syncing and replacing a birth follow one state of each project.
 */
export class Births {
  readonly #options: BirthsOptions;
  readonly #born = new Map<string, Born>();

  constructor(options: BirthsOptions) {
    this.#options = options;
  }

  handleOf(project: string): string | undefined {
    return this.#born.get(project)?.handle;
  }

  /** Called when the project has a durable catalog or was removed. */
  forget(project: string): void {
    this.#born.delete(project);
  }

  /**
   * Creates a project. Its birth goes into the log first, as a separate part. Its folder and `project.json`
   * are written without a sync, because a start restores them from the log. The caller keeps others from
   * creating or opening the project at the same time.
   */
  async create(project: string, directory: string, keys: BirthKeys, projectFile: Buffer): Promise<void> {
    const { log, projectOf } = this.#options;
    const handle = randomBytes(HANDLE_BYTES).toString('hex');
    const birth = { project, projectFile };
    const place = await writePart(
      log,
      { handle, project, keys },
      { kind: 'birth', keyVersion: keys.version, birth },
    );
    const unopened = { place, keyVersion: keys.version };
    const born: Born = newBorn(handle, { unwritten: projectFile, unopened });
    this.#born.set(project, born);
    projectOf.set(handle, project);
    await this.write(project, directory);
  }

  /** Writes the `project.json` of a new project, if that has not succeeded yet. */
  async write(project: string, directory: string): Promise<void> {
    const born = this.#born.get(project);
    if (born?.unwritten === undefined) return;
    const { disk } = this.#options;
    if (born.isUnseen) await writeIfMissing(disk, directory, born.unwritten);
    else await writeProjectFile(disk, directory, born.unwritten);
    born.unwritten = undefined;
    born.isUnseen = false;
  }

  /** Syncs the folder of a new project. Required before a file in it is replaced. */
  async sync(project: string): Promise<void> {
    const born = this.#born.get(project);
    if (born === undefined || born.isDurable) return;
    const { disk, projectsDir } = this.#options;
    await this.#replaceIfFailed(project, born);
    try {
      await disk.syncFiles([join(projectsDir, project, PROJECT_FILE)]);
    } catch (error) {
      born.mustReplace = true;
      throw error;
    }
    await disk.syncDirectory(projectsDir);
    born.isDurable = true;
  }

  /**
   * Syncs the folders of the new projects among these, with two syncs in total. The log's segment, which is
   * about to be freed, is the only other place of their `project.json`.
   *
   * @returns the projects that failed, with the error. @throws AppError `disk_full`
   */
  async syncSome(projects: readonly (string | undefined)[]): Promise<Map<string, AppError>> {
    const { disk, projectsDir } = this.#options;
    const unsafe = new Map<string, AppError>();
    const fails = (project: string, error: unknown) => {
      if (!(error instanceof AppError) || error.code === 'disk_full') throw error;
      unsafe.set(project, error);
    };
    const written: [string, Born][] = [];
    for (const project of new Set(projects)) {
      const born = project === undefined ? undefined : this.#born.get(project);
      if (project === undefined || born === undefined || born.isDurable) continue;
      try {
        await this.write(project, join(projectsDir, project));
        await this.#replaceIfFailed(project, born);
        written.push([project, born]);
      } catch (error) {
        fails(project, error);
      }
    }
    if (written.length === 0) return unsafe;
    try {
      await disk.syncFiles(written.map(([project]) => join(projectsDir, project, PROJECT_FILE)));
      await disk.syncDirectory(projectsDir);
      for (const [, born] of written) born.isDurable = true;
    } catch {
      for (const [project, born] of written) {
        born.mustReplace = true;
        await this.sync(project).catch((error: unknown) => fails(project, error));
      }
    }
    return unsafe;
  }

  /** Files of a project that are not durable yet, and folders with undurable names. The caller syncs them. */
  async unsynced(project: string): Promise<{ readonly files: string[]; readonly folders: string[] }> {
    const { projectsDir } = this.#options;
    const born = this.#born.get(project);
    if (born === undefined || born.isDurable) return { files: [], folders: [] };
    await this.#replaceIfFailed(project, born);
    return { files: [join(projectsDir, project, PROJECT_FILE)], folders: [projectsDir] };
  }

  /** Writes `project.json` into a new file after a failed sync that may have included it. */
  async replace(project: string): Promise<void> {
    const born = this.#born.get(project);
    if (born === undefined || born.isDurable) return;
    born.mustReplace = true;
    await this.#replaceIfFailed(project, born);
  }

  /** Writes `project.json` into a new file, if a sync of the current one has failed. */
  async #replaceIfFailed(project: string, born: Born): Promise<void> {
    if (!born.mustReplace) return;
    const { disk, projectsDir, tmp } = this.#options;
    const path = join(projectsDir, project, PROJECT_FILE);
    const content = await disk.read(path, SMALL_FILE_BYTES_MAX);
    if (content === undefined) throw new AppError('project_damaged');
    await replaceFile(disk, tmp, path, content);
    born.mustReplace = false;
  }

  /**
   * The state of a project that was created and never opened. The caller keeps others from opening it at the
   * same time, so the log should only have its birth. If it has another part, the result is undefined and the
   * log must be read.
   */
  takeUnopened(project: string): LoadedFolder | undefined {
    const born = this.#born.get(project);
    if (born?.unopened === undefined) return undefined;
    const { handle, unopened } = born;
    born.unopened = undefined;
    const newest = this.#options.log.newest(handle);
    if (newest === undefined || !isSamePlace(newest, unopened.place)) return undefined;
    return newborn(handle, unopened.place, unopened.keyVersion);
  }

  /** Writes the missing or damaged folders of new projects, and syncs all of them. */
  async restore(): Promise<void> {
    const { disk, log, projectOf, projectsDir } = this.#options;
    const written: Born[] = [];
    const files: string[] = [];
    let areAllThere = true;
    const restoreOne = async ({ handle, project, projectFile }: FoundBirth): Promise<void> => {
      if (projectIdSchema.safeParse(project).data !== project) return;
      const directory = join(projectsDir, project);
      // An operator has removed the project, for example to restore it from a backup.
      if (log.hadFolder(handle) && (await isRemoved(disk, directory))) return;
      const born = newBorn(handle, {});
      let names: readonly string[] | undefined;
      try {
        names = await writeIfMissing(disk, directory, projectFile);
        files.push(join(directory, PROJECT_FILE));
        written.push(born);
      } catch (error) {
        // Only this folder fails; the service starts for the other projects. Opening this project writes it.
        if (!(error instanceof AppError)) throw error;
        [born.unwritten, born.isUnseen, areAllThere] = [projectFile, true, false];
      }
      const isBorn =
        names?.includes(CATALOG_FILE) !== true && this.#isLater(handle, this.#born.get(project)?.handle);
      if (isBorn) this.#born.set(project, born);
      projectOf.set(handle, project);
    };
    let some: FoundBirth[] = [];
    for await (const birth of log.births()) {
      // Two births of one project are restored one after the other.
      if (some.length === BIRTHS_AT_ONCE || some.some(({ project }) => project === birth.project)) {
        await Promise.all(some.map(restoreOne));
        some = [];
      }
      some.push(birth);
    }
    await Promise.all(some.map(restoreOne));
    if (files.length > 0) {
      if (!(await this.#syncEach(files, written))) areAllThere = false;
      await disk.syncDirectory(projectsDir);
    }
    if (areAllThere) await this.#markSettled();
  }

  /**
   * Syncs the files of births together, or one by one when that fails.
   *
   * @returns whether all are durable.
   */
  async #syncEach(files: readonly string[], births: readonly Born[]): Promise<boolean> {
    const { disk } = this.#options;
    try {
      await disk.syncFiles(files);
      for (const born of births) born.isDurable = true;
      return true;
    } catch (error) {
      if (!(error instanceof AppError)) throw error;
    }
    let areAllDurable = true;
    for (const [at, born] of births.entries())
      try {
        // The joint sync did not say which file failed, and a later sync does not make earlier writes
        // durable.
        born.mustReplace = true;
        await this.#replaceIfFailed(basename(dirname(files[at] as string)), born);
        born.isDurable = true;
      } catch (error) {
        if (!(error instanceof AppError)) throw error;
        areAllDurable = false;
      }
    return areAllDurable;
  }

  /** Of two births of one project, the earlier one belongs to a removed folder. */
  #isLater(handle: string, than: string | undefined): boolean {
    const [place, other] = [handle, than].map((one) => one && this.#options.log.newest(one));
    if (!place || !other) return than === undefined || other === undefined;
    return comparePlaces(place, other) > 0;
  }

  /** On a full disk the mark stays unchanged: only `bunkms recover` relies on it. */
  async #markSettled(): Promise<void> {
    try {
      await this.#options.log.markSettled();
    } catch (error) {
      if (!hasCode(error, 'disk_full')) throw error;
    }
  }

  /** Syncs the folders of all new projects, when the engine closes. */
  async syncAll(): Promise<void> {
    const { disk, projectsDir } = this.#options;
    const born = [...this.#born].filter(
      ([, { isDurable, unwritten }]) => !isDurable && unwritten === undefined,
    );
    for (const [project, one] of born) await this.#replaceIfFailed(project, one);
    if (born.length > 0) {
      await disk.syncFiles(born.map(([project]) => join(projectsDir, project, PROJECT_FILE)));
      await disk.syncDirectory(projectsDir);
    }
    if ([...this.#born.values()].every(({ unwritten }) => unwritten === undefined)) await this.#markSettled();
  }
}

function newBorn(
  handle: string,
  { unwritten, unopened }: Partial<Pick<Born, 'unwritten' | 'unopened'>>,
): Born {
  return { handle, unwritten, unopened, isDurable: false, isUnseen: false, mustReplace: false };
}
