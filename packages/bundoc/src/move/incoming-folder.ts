import { join } from 'node:path';
import { PROJECT_FILE, PROJECT_FILE_COPY } from '@bundoc/shared/contract/project-file';
import type { ProjectCipher } from '../cipher/project-cipher.ts';
import { clearFolder, type MarkedFolder } from '../project/clear-marks.ts';
import { emptyMarkedFolder, readMoveMark, removeMoveMark, writeMoveMark } from '../project/moved-folder.ts';
import { isWithoutContent } from '../project/project-folder.ts';
import { makeDirectoryDurably, replaceFile } from '../storage/embedded/disk.ts';
import { SealedFolder } from '../storage/embedded/sealed-folder.ts';
import type { OnProgress } from '../storage/embedded/verify.ts';
import type { Position, SealedChange } from '../storage/port.ts';
import { type LastOfProject, type MoveCounts, MoveFailed, type MoveTarget } from './move-project.ts';

/** The parent of the project's folder exists. */
export interface IncomingFolderOptions extends Omit<MarkedFolder, 'isLeftOver'> {
  /** Of the versions that the project has now. */
  readonly cipher: () => ProjectCipher;
}

/** The folder of a project that is brought in, in a data folder that this process has to itself. */
export class IncomingFolder implements MoveTarget {
  readonly #options: IncomingFolderOptions;
  readonly #folder: SealedFolder;

  constructor(options: IncomingFolderOptions) {
    this.#options = options;
    this.#folder = new SealedFolder(options.disk, options.directory, options.project);
  }

  async begin(mark: string, isOurs: (mark: string) => Promise<boolean>): Promise<void> {
    const { project, directory, disk } = this.#options;
    await clearFolder({ ...this.#options, isLeftOver: isOurs });
    if (!(await isWithoutContent(disk, directory)))
      throw new MoveFailed(`there is a folder of ${project} already`);
    await makeDirectoryDurably(disk, directory);
    await writeMoveMark(disk, directory, mark);
    for (const name of ['tmp', 'docs', 'journal']) await disk.makeDirectory(join(directory, name));
    await disk.syncDirectory(directory);
  }

  put(changes: readonly SealedChange[]): Promise<void> {
    return this.#folder.put(changes);
  }

  async verify(after: Position, onProgress: OnProgress): Promise<void> {
    const wrong = await this.#folder.verify(this.#options.cipher(), after, onProgress);
    if (wrong !== undefined) throw new MoveFailed(`${wrong} is not there as it was copied`);
  }

  async finish(last: LastOfProject, mark: string): Promise<MoveCounts> {
    const { disk, directory, cipher } = this.#options;
    const counts = await this.#folder.finish(cipher(), last);
    for (const name of [PROJECT_FILE_COPY, PROJECT_FILE])
      await replaceFile(disk, join(directory, 'tmp'), join(directory, name), Buffer.from(last.file));
    await writeMoveMark(disk, directory, mark);
    return counts;
  }

  async present() {
    const { disk, directory } = this.#options;
    const hasFile = (await disk.list(directory))?.includes(PROJECT_FILE) === true;
    return { hasFile, mark: await readMoveMark(disk, directory) };
  }

  open(): Promise<void> {
    return removeMoveMark(this.#options.disk, this.#options.directory);
  }

  async discard(): Promise<void> {
    await emptyMarkedFolder(this.#options.disk, this.#options.directory);
    await this.open();
  }
}
