import { join } from 'node:path';
import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import { Mutex } from '@bundoc/shared/runtime/mutex';
import {
  formatLost,
  LOST_BYTES_MAX,
  LOST_FILE,
  LOST_MAX,
  type LostProjects,
  lostDamaged,
  parseLost,
} from '../lost-projects.ts';
import { type Disk, replaceFile } from './disk/disk.ts';
import { DOCS_FOLDER } from './documents/document-files.ts';
import { isWithoutContent } from './projects/file-projects.ts';

/** Folders that are listed at the same time. */
const LOOKS_AT_ONCE = 50;

export interface LostInFolderOptions {
  readonly disk: Disk;
  readonly dataDir: string;
  readonly projectsDir: string;
  /** The folder for unfinished files, which each start empties. */
  readonly tmp: string;
}

/** The lost projects of a data folder that one process holds exclusively. */
export class LostInFolder implements LostProjects {
  readonly #options: LostInFolderOptions;
  readonly #changing = new Mutex();
  #marked: ReadonlySet<string>;

  private constructor(options: LostInFolderOptions, marked: ReadonlySet<string>) {
    this.#options = options;
    this.#marked = marked;
  }

  /**
   * Reads the marks, and removes those of projects that have arrived since.
   *
   * @throws StartRefused when the file is damaged; AppError of the disk.
   */
  static async open(options: LostInFolderOptions): Promise<LostInFolder> {
    const read = await readMarks(options);
    const lost = new LostInFolder(options, new Set(read));
    if (read.length > 0) await lost.#change((marked) => lost.absent([...marked]));
    return lost;
  }

  get count(): number {
    return this.#marked.size;
  }

  /** Whether the project has a mark. */
  has(project: string): boolean {
    return this.#marked.has(project);
  }

  async absent(projects: readonly string[]): Promise<readonly string[]> {
    const { disk, projectsDir } = this.#options;
    const absent: string[] = [];
    for (let at = 0; at < projects.length; at += LOOKS_AT_ONCE) {
      const some = projects.slice(at, at + LOOKS_AT_ONCE);
      const found = await Promise.all(some.map((project) => isEmpty(disk, join(projectsDir, project))));
      absent.push(...some.filter((_, n) => found[n]));
    }
    return absent;
  }

  mark(projects: readonly string[]): Promise<void> {
    return this.#change(async (marked) => marked.union(new Set(projects)));
  }

  async list(): Promise<readonly string[]> {
    return (await this.absent([...this.#marked])).toSorted();
  }

  accept(projects: readonly string[]): Promise<void> {
    return this.#change(async (marked) => marked.difference(new Set(projects)));
  }

  #change(next: (marked: ReadonlySet<string>) => Promise<Iterable<string>>): Promise<void> {
    return this.#changing.run(async () => {
      const { disk, dataDir, tmp } = this.#options;
      const marked = new Set(await next(this.#marked));
      if (marked.size > LOST_MAX)
        throw new AppError('storage_unavailable', { cause: new Error(`more than ${LOST_MAX} marks`) });
      const isSame = marked.size === this.#marked.size && marked.isSubsetOf(this.#marked);
      if (!isSame) await replaceFile(disk, tmp, join(dataDir, LOST_FILE), Buffer.from(formatLost(marked)));
      this.#marked = marked;
    });
  }
}

async function readMarks({ disk, dataDir }: LostInFolderOptions): Promise<readonly string[]> {
  const path = join(dataDir, LOST_FILE);
  try {
    const content = await disk.read(path, LOST_BYTES_MAX);
    return content === undefined ? [] : parseLost(path, content.toString());
  } catch (error) {
    // Not a regular file, or too large.
    throw hasCode(error, 'project_damaged') ? lostDamaged(path, error) : error;
  }
}

/**
 * A folder with any mark is not empty, because the mark says what happened to the project. An unreadable
 * folder is not empty either: its project is refused until the folder can be read.
 */
async function isEmpty(disk: Disk, directory: string): Promise<boolean> {
  try {
    const names = (await disk.list(directory)) ?? [];
    if (names.length === 0) return true;
    return names.every((name) => name === DOCS_FOLDER) && (await isWithoutContent(disk, directory));
  } catch (error) {
    // Something other than a folder has the name, or the folder is unreadable.
    if (hasCode(error, 'project_damaged', 'storage_unavailable')) return false;
    throw error;
  }
}
