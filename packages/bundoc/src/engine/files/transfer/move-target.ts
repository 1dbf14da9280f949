import { join } from 'node:path';
import { PROJECT_FILE } from '@bundoc/shared/contract/project-file';
import type { ProjectCipher } from '../../../crypto/project-cipher.ts';
import type { FinalState, MoveCounts, MoveTarget } from '../../moves/transfer-port.ts';
import { MoveFailed } from '../../port/errors.ts';
import type { Position, SealedChange } from '../../port/port.ts';
import type { OnProgress } from '../../port/reports.ts';
import { makeDirectoryDurably, replaceFile } from '../disk/disk.ts';
import { DOCS_FOLDER } from '../documents/document-files.ts';
import { clearFolder, type MarkedFolder } from '../projects/clear-folder.ts';
import { isWithoutContent } from '../projects/file-projects.ts';
import { emptyMarkedFolder, readMoveMark, removeMoveMark, writeMoveMark } from '../projects/moved-folder.ts';
import { SealedFolder } from '../projects/sealed-folder.ts';

/** The parent of the project's folder exists. */
export interface FilesMoveTargetOptions extends Omit<MarkedFolder, 'isLeftOver'> {
  /** An existing folder for unfinished files, on the same file system. */
  readonly tmp: string;
  /** Registers the project's new handle in the log. */
  readonly arrived: (handle: string, cipher: ProjectCipher) => Promise<void>;
  /** The cipher of the project's current key versions. */
  readonly cipher: () => ProjectCipher;
}

/** The folder of an arriving project, in a data folder that this process holds exclusively. */
export class FilesMoveTarget implements MoveTarget {
  readonly #options: FilesMoveTargetOptions;
  readonly #folder: SealedFolder;

  constructor(options: FilesMoveTargetOptions) {
    this.#options = options;
    this.#folder = new SealedFolder(options);
  }

  async begin(mark: string, isOurs: (mark: string) => Promise<boolean>): Promise<void> {
    const { project, directory, disk, tmp } = this.#options;
    await clearFolder({ ...this.#options, isLeftOver: isOurs });
    if (!(await isWithoutContent(disk, directory)))
      throw new MoveFailed(`there is a folder of ${project} already`);
    await makeDirectoryDurably(disk, directory);
    await writeMoveMark(disk, tmp, directory, mark);
    await disk.makeDirectory(join(directory, DOCS_FOLDER));
    await disk.syncDirectory(directory);
  }

  put(changes: readonly SealedChange[]): Promise<void> {
    return this.#folder.put(changes);
  }

  async verify(after: Position, onProgress: OnProgress): Promise<void> {
    const wrong = await this.#folder.verify(this.#options.cipher(), after, onProgress);
    if (wrong !== undefined) throw new MoveFailed(`${wrong} differs from its copy`);
  }

  async finish(last: FinalState, mark: string): Promise<MoveCounts> {
    const { disk, directory, tmp, cipher, arrived } = this.#options;
    const projectFile = Buffer.from(last.file);
    const { handle, ...counts } = await this.#folder.finish(cipher(), last, projectFile);
    await arrived(handle, cipher());
    await replaceFile(disk, tmp, join(directory, PROJECT_FILE), projectFile);
    await writeMoveMark(disk, tmp, directory, mark);
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
