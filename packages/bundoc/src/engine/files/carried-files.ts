import { randomBytes } from 'node:crypto';
import { dirname, join } from 'node:path';
import { AppError } from '@bundoc/shared/contract/app-error';
import { KeyedMutex } from '@bundoc/shared/runtime/mutex';
import type { Disk } from './disk/disk.ts';
import type { DocumentWriter } from './documents/document-writer.ts';
import { isCarriedUpTo } from './log/carried-file.ts';
import type { Place } from './log/layout.ts';
import type { Log } from './log/log.ts';
import type { CarriedContent } from './log/log-api.ts';
import { CARRIED_BYTES_MAX, CARRIED_FOLDER } from './store/project-loader.ts';

/**
 * An open project with more carried files than this gets a checkpoint, so that its next opening need not read
 * them.
 */
const CARRIED_FILES_MAX = 2;

/** A file of carried parts on the way to its folder. */
interface Placed {
  /** Its index among the contents. */
  readonly at: number;
  readonly tmp: string;
  readonly to: string;
}

export interface CarriedFilesOptions {
  readonly disk: Disk;
  readonly log: Log;
  readonly writer: DocumentWriter;
  /** A folder for temporary files, on the same file system. */
  readonly tmp: string;
  readonly projectsDir: string;
  /** The project of each handle. */
  readonly projectOf: ReadonlyMap<string, string>;
  readonly isOpen: (handle: string) => boolean;
}

/** Files of parts that were carried from the log into the folders of their projects. */
export class CarriedFiles {
  readonly #options: CarriedFilesOptions;
  /** The approximate number of files for each handle. */
  readonly #counts = new Map<string, number>();
  /** Keeps a folder of carried files from being removed while another file is added. */
  readonly #folders = new KeyedMutex();
  /** The running write of files into folders. */
  #placing: Promise<unknown> | undefined;

  constructor(options: CarriedFilesOptions) {
    this.#options = options;
  }

  has(handle: string): boolean {
    return this.#counts.has(handle);
  }

  count(handle: string): number {
    return this.#counts.get(handle) ?? 0;
  }

  /** Whether a handle has enough files for a checkpoint of its project. */
  areMany(handle: string): boolean {
    return this.count(handle) > CARRIED_FILES_MAX;
  }

  /** Records the number of files that an opening has found. */
  found(handle: string, files: number): void {
    if (files > 0) this.#counts.set(handle, files);
  }

  forget(handle: string): void {
    this.#counts.delete(handle);
  }

  /** Resolves once no write of files is running. */
  async placed(): Promise<void> {
    await this.#placing;
  }

  /** Writes files of carried parts into the folders of their projects. Calls run one after another. */
  write(contents: readonly CarriedContent[]): Promise<readonly (AppError | undefined)[]> {
    const placing = this.#folders.run(CARRIED_FOLDER, () => this.#place(contents));
    this.#placing = placing.catch(() => undefined);
    return placing;
  }

  /** Writes files of carried parts into the folders of their projects, with a few syncs in total. */
  async #place(contents: readonly CarriedContent[]): Promise<readonly (AppError | undefined)[]> {
    const { disk, isOpen, projectOf, projectsDir, tmp: tmpDir, writer } = this.#options;
    const outcomes: (AppError | undefined)[] = contents.map(() => undefined);
    const files: Placed[] = [];
    for (const [at, { handle, segment }] of contents.entries()) {
      const project = projectOf.get(handle);
      if (project === undefined) outcomes[at] = new AppError('project_not_found');
      else {
        const to = join(projectsDir, project, CARRIED_FOLDER, String(segment));
        files.push({ at, tmp: join(tmpDir, randomBytes(12).toString('hex')), to });
      }
    }
    const failed = (at: number, error: unknown) => {
      if (!(error instanceof AppError)) throw error;
      if (error.code === 'disk_full') throw error;
      outcomes[at] = error;
    };
    try {
      const written = await disk.writeFiles(
        files.map(({ at, tmp }) => ({ path: tmp, content: contents[at]?.content })),
      );
      for (const failure of written) if (failure !== undefined) throw failure;
      await disk.syncFiles(files.map(({ tmp }) => tmp));
      const placed: Placed[] = [];
      for (const file of files)
        try {
          await disk.makeDirectory(dirname(file.to));
          await disk.rename(file.tmp, file.to);
          placed.push(file);
        } catch (error) {
          failed(file.at, error);
        }
      await this.#syncPlaced(placed, failed);
    } finally {
      for (const { tmp } of files) await disk.remove(tmp).catch(() => false);
    }
    for (const [at, { handle }] of contents.entries()) {
      this.#counts.set(handle, this.count(handle) + 1);
      const project = projectOf.get(handle);
      // The next opening writes the document files again, so their pending syncs need not stay in memory.
      if (outcomes[at] === undefined && project !== undefined && !isOpen(handle)) writer.dropWritten(project);
    }
    return outcomes;
  }

  /**
   * Syncs the files and the names of their folders, even of existing ones: a failed attempt or a killed
   * process may have created them without a sync.
   */
  async #syncPlaced(placed: readonly Placed[], failed: (at: number, error: unknown) => void): Promise<void> {
    const { disk } = this.#options;
    const sync = (some: readonly Placed[]) =>
      disk.syncFiles(
        some.map(({ to }) => to),
        some.map(({ to }) => dirname(dirname(to))),
      );
    try {
      await sync(placed);
    } catch {
      for (const one of placed) await sync([one]).catch((error: unknown) => failed(one.at, error));
    }
  }

  /** Removes the files of a handle whose parts a durable snapshot covers. */
  async removeUpTo(handle: string, directory: string, covered: Place): Promise<void> {
    if (!this.has(handle)) return;
    await this.#folders.run(CARRIED_FOLDER, () => this.#removeUpTo(handle, directory, covered));
  }

  async #removeUpTo(handle: string, directory: string, covered: Place): Promise<void> {
    const { disk, log } = this.#options;
    const folder = join(directory, CARRIED_FOLDER);
    const names = (await disk.list(folder)) ?? [];
    let left = 0;
    for (const name of names) {
      const path = join(folder, name);
      const file = await disk.read(path, CARRIED_BYTES_MAX);
      if (file !== undefined && isCarriedUpTo(file, covered)) await disk.remove(path);
      else left++;
    }
    if (left === 0 && names.length > 0) await disk.removeTree(folder);
    await log.stuck.removeUpTo(handle, covered);
    if (left === 0 && !log.stuck.handles.has(handle)) this.#counts.delete(handle);
    else this.#counts.set(handle, left + 1);
  }
}
